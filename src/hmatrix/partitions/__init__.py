"""Rows and columns in clusters, and the matrix in blocks of them."""
