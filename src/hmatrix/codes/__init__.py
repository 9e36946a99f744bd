"""Precisions in which coefficients are stored: floating point, integer codes, trellises."""
