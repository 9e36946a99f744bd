"""Progressive heads: layers of which only the largest outputs are computed exactly."""
