"""Whole networks, compressed and judged by the command line."""

from hmatrix._support.moved import names_of

__getattr__ = names_of(__name__)
