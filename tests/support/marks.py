"""Marks of single cases."""

import pytest


def slow(*values):
    """Leave a case to ``make slow``: `make test` runs others of its kind."""
    return pytest.param(*values, marks=pytest.mark.slow)
