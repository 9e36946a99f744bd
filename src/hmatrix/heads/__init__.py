"""Progressive heads: layers that compute only their largest outputs exactly."""
