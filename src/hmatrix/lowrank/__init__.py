"""Blocks of low rank, and the algorithms that compute them."""

from hmatrix._support.moved import names_of

__getattr__ = names_of(__name__)
