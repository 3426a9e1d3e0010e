"""Running: slabs of weights through the kernels, on threads, within the memory allowed."""
