"""Sources: from stored tensors to weights, whatever they are stored as.

`plain` reads what is stored as it is used, `fp8` decodes codes with blocks of scales of any size, `packed` what is
stored in parts row by row, in an encoding: `in_format` is that of the formats of `kernels`, `integers` of whole numbers
in any width, grouping and packing (`tables` says how they lie), `lookup` of codes that a table turns into values. A
module per convention tells its own: `mlx`, `modelopt`, `compressed_tensors`. `declared` says what a config claims,
`recognition` asks them.
"""
