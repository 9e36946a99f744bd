"""The error of a layer's output, as the allocator counts it."""
