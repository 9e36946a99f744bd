"""Compressed networks in files."""
