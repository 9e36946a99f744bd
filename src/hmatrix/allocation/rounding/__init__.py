"""From what the search chose to the leaves that are stored."""

from hmatrix._support.moved import names_of

__getattr__ = names_of(__name__)
