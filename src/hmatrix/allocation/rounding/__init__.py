"""The leaves that are stored, made of the pieces that the search chose."""

from hmatrix._support.moved import names_of

__getattr__ = names_of(__name__)
