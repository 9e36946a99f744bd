"""Marks of single cases."""

import pytest


def slow(*values):
    """Leave a case to ``make slow``: `make test` runs others of its kind."""
    return pytest.param(*values, marks=pytest.mark.slow)


def nightly(*values):
    """Leave a case to ``make nightly``: others run the same in fewer turns."""
    return pytest.param(*values, marks=pytest.mark.nightly)
