"""Writes a shard: every part goes to its place in the file, in any order, from any thread."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import Quantized
from kernels.tiles import gathered
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.exporting.shards import Shard
from studio.core.exporting.writing import StagedFile
from studio.core.layouts import Layout, Target
from studio.core.layouts.placement import Placement, edited, kept_form, pieces, stored_number
from studio.core.model import Layer, Matrix
from studio.core.planning.plan import Choice
from studio.core.running.engine import KeptForm, Sink
from studio.core.running.reading import Slab


def agreed_scale(layout: Target, g: float) -> float:
    """The multiplier that survives being stored in `layout` and read, whatever its convention rounds."""
    for _ in range(8):
        agreed = float(layout.multiplier(layout.store_scale(g)))
        if agreed == g:
            break
        g = agreed
    return g


def _input_scale(choice: Choice, matrix: Matrix) -> float:
    known = zip(choice.layer.matrices, choice.input_scales, strict=False)
    return next((g for one, g in known if one.name == matrix.name), 1.0)


class Agreed(Sink):
    """Drops everything, and knows what readers of a layout will compute."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def agreed_scale(self, g: float) -> float:
        """See `Sink.agreed_scale`."""
        return agreed_scale(self._layout, g)


class ShardWriter(Sink, StagedFile):
    """The file is there at its full size with its header from the start."""

    def __init__(self, path: Path, shard: Shard, layout: Layout) -> None:
        super().__init__(path, shard.nbytes)
        self._shard, self._layout = shard, layout
        self._parts = {matrix.name: parts for item in shard.items for matrix, parts in item.matrices}
        self._kept = {item.choice.layer.name: item.kept for item in shard.items if item.kept}
        self.write(memoryview(shard.head), 0)

    def agreed_scale(self, g: float) -> float:
        """See `Sink.agreed_scale`."""
        return agreed_scale(self._layout, g)

    def write_slab(self, slab: Slab, quantized: Quantized) -> None:
        """See `Sink.write_slab`."""
        row, matrix = quantized.format, slab.matrix
        scales, down = quantized.scales, matrix.rows
        if row.scale == "float32":
            scales, down = gathered(quantized.scales, row, matrix.columns), row.tiles(matrix.rows, matrix.columns)[0]
        for part in self._parts[matrix.name]:
            if part.content == "scales":
                self._write_part(part, part.nbytes // down * (slab.start // row.height), scales)
            elif (array := {"codes": quantized.codes, "biases": quantized.biases}.get(part.content)) is not None:
                self._write_part(part, part.nbytes // matrix.rows * slab.start, array)

    def write_scale(self, choice: Choice, matrix: Matrix, g: float) -> None:
        """See `Sink.write_scale`."""
        numbers = {"tensor_scale": g, "multiplier": g, "input_scale": _input_scale(choice, matrix)}
        for part in self._parts[matrix.name]:
            if part.content in numbers:
                stored = stored_number(self._layout, part.content, numbers[part.content])
                self._write_part(part, 0, np.array([stored], np.float32))
            elif part.content == "shape":
                self._write_part(part, 0, np.array([matrix.rows, matrix.columns], np.int64))

    def kept_form(self, layer: Layer) -> KeptForm:
        """See `Sink.kept_form`."""
        return kept_form(self._kept[layer.name]) if layer.name in self._kept else "bytes"

    def write_kept(self, layer: Layer, offset: int, data: NDArray[np.uint8]) -> None:
        """See `Sink.write_kept`."""
        if self.kept_form(layer) == "whole":
            values = data.view(WEIGHT_DTYPES[layer.kept_dtype])
            for part in self._kept[layer.name]:
                self._write_part(part, 0, edited(part.content, values))
            return
        for first, name, start, count in pieces(self._kept[layer.name], offset, data.size):
            self.write(data[first : first + count].data, self._shard.tensors[name].start + start)

    def _write_part(self, part: Placement, offset: int, array: NDArray[Any]) -> None:
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.write(raw.data, self._shard.tensors[part.name].start + part.offset + offset)
