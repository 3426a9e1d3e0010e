"""NVFP4 Studio: see every layer of a language model, quantize it, and prove what it cost."""
