"""Figures and tables, which are functions of records."""
