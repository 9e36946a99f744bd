"""Layers whose weight is an H-matrix."""
