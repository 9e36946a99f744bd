"""The packed form of an H-matrix, and products with it."""

from hmatrix._support.moved import names_of

__getattr__ = names_of(__name__)
