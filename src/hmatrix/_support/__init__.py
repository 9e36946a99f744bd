"""Helpers for every room: checks, memory, files."""
