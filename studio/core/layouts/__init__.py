"""Conventions: a weight <-> its named tensors and its config section; no file access."""

from studio.core.layouts.compressed_tensors import CompressedTensors
from studio.core.layouts.mlx import Mlx
from studio.core.layouts.modelopt import ModelOpt
from studio.core.layouts.placement import Layout

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (Mlx(), ModelOpt(), CompressedTensors())}

__all__ = ["LAYOUTS", "Layout"]
