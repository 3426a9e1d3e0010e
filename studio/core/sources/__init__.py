"""Sources: from stored tensors to weights, whatever they are stored as.

`plain` reads what is stored as it is used, `fp8` and `fp4` decode; `declared` says what a config claims, `recognition`
tells from the tensors what a checkpoint is.
"""
