"""How coefficients are stored: floating point, integer codes, trellises."""
