"""The outcome of a run: the results of its layers, and what they say together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kernels.fidelity import relative_error
from studio.core.results import LayerResult, finite


@dataclass(frozen=True)
class Outcome:
    """The result of a whole run. Seconds are wall time of the phases; they are no part of an export's bytes.

    backend: what computed it. layout, cautions: of an export, and what its users must know before they load it.
    """

    layers: Sequence[LayerResult]
    target: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    backend: str = ""
    layout: str = ""
    cautions: tuple[str, ...] = ()

    @property
    def quantized(self) -> list[LayerResult]:
        """The layers that were quantized."""
        return [layer for layer in self.layers if layer.quantized]

    @cached_property
    def _figures(self) -> "_Figures":
        return _figures(self.layers)

    @property
    def rel_err(self) -> float:
        """Relative error over all quantized weights together; codes taken over do not count, NaN if all were."""
        return self._figures.rel_err

    @property
    def count(self) -> int:
        """Number of weights."""
        return self._figures.count

    @property
    def quantized_count(self) -> int:
        """Number of weights that were quantized."""
        return self._figures.quantized_count

    @property
    def nbytes_in(self) -> int:
        """Stored bytes before."""
        return self._figures.nbytes_in

    @property
    def nbytes_out(self) -> int:
        """Stored bytes after."""
        return self._figures.nbytes_out

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight of the whole model."""
        return 8 * self.nbytes_out / self.count if self.count else 0.0

    @property
    def worst(self) -> LayerResult | None:
        """The quantized layer with the largest relative error that is known."""
        return self._figures.worst

    def warnings(self) -> list[str]:
        """Sentences about layers that lost so much that someone should look."""
        return self._figures.warnings

    def summary(self) -> dict[str, Any]:
        """The totals as JSON values."""
        worst = self.worst
        return {
            "layers": len(self.layers),
            "quantized_layers": self._figures.quantized_layers,
            "weights": self.count,
            "quantized_weights": self.quantized_count,
            "nbytes_in": self.nbytes_in,
            "nbytes_out": self.nbytes_out,
            "bits_per_weight": self.bits_per_weight,
            "rel_err": finite(self.rel_err),
            "worst_layer": worst.name if worst else None,
            "worst_rel_err": finite(worst.rel_err) if worst else None,
        }


@dataclass(slots=True)
class _Figures:
    count: int = 0
    quantized_count: int = 0
    quantized_layers: int = 0
    nbytes_in: int = 0
    nbytes_out: int = 0
    rel_err: float = 0.0
    worst: LayerResult | None = None
    warnings: list[str] = field(default_factory=list)


def _figures(layers: Sequence[LayerResult]) -> _Figures:
    """All totals in one pass: layers may be many, and be made when they are asked for."""
    found = _Figures()
    errors, squares = [], []
    for layer in layers:
        found.count += layer.count
        found.nbytes_in += layer.nbytes_in
        found.nbytes_out += layer.nbytes_out
        if not layer.quantized:
            continue
        found.quantized_layers += 1
        found.quantized_count += layer.count
        if layer.measured:
            errors.append(layer.sum_error)
            squares.append(layer.sum_squares)
            if found.worst is None or layer.rel_err > found.worst.rel_err:
                found.worst = layer
        found.warnings += [f"{layer.name}: {loss}" for loss in layer.losses]
    taken_over = found.quantized_layers and not errors
    found.rel_err = math.nan if taken_over else relative_error(math.fsum(errors), math.fsum(squares))
    return found
