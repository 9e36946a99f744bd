"""Blocks of low rank, and how they are computed."""

from hmatrix._support.moved import names_of

__getattr__ = names_of(__name__)
