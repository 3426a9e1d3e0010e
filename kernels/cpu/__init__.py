"""The processor as a backend: a C++ library behind ctypes, and numpy where it does not load."""
