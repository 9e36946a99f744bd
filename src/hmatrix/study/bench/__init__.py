"""Times of products, beside those of other libraries."""

from hmatrix._support.moved import names_of

__getattr__ = names_of(__name__)
