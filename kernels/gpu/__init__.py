"""One text of kernels for Metal and CUDA, run through mlx."""
