"""The examples in docstrings of public objects, run."""

import doctest

import numpy as np

import hmatrix as hm

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples_of(name, public):
    """Return the examples of one public object; its members have none of their own."""
    found = doctest.DocTestFinder(recurse=False).find(public, name, globs={"np": np, "hm": hm})
    return [example for test in found for example in test.examples]


def failures_of(name, public, **names):
    """Run the examples of an object, which see NumPy and the package by their usual names; return the failures."""
    [test] = doctest.DocTestFinder(recurse=False).find(public, name, globs={"np": np, "hm": hm, **names})
    told = []
    doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=told.append)
    return "".join(told)
