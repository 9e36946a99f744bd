"""Products with H-matrices as operators of torch."""
