"""Labelled images, and what a network makes of them."""
