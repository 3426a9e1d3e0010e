"""The outcome of a run: the results of its layers, and what they say together."""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import nlargest
from typing import Any

from kernels import STORED
from kernels.fidelity import relative_error
from studio.core.counting import counted
from studio.core.results import LayerResult, finite

_GUIDES = {"norm": " by the norm in front", "statistics": " by statistics of the inputs", "": ""}


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

    def worst_layers(self, count: int) -> list[LayerResult]:
        """The quantized layers with the largest relative errors, so many at most, the worst first."""
        figures = self._figures
        ranked = nlargest(count, range(len(figures.places)), key=figures.errors.__getitem__)
        return [self.layers[figures.places[rank]] for rank in ranked]

    @property
    def totals(self) -> list[dict[str, Any]]:
        """One row per role and format: layers, weights, bytes, and the error of those layers together."""
        return [
            {
                "role": role,
                "format": name,
                "layers": total.layers,
                "count": total.count,
                "nbytes_in": total.nbytes_in,
                "nbytes_out": total.nbytes_out,
                "rel_err": relative_error(total.errors, total.squares),
                "worst": total.worst,
            }
            for (role, name), total in sorted(self._figures.totals.items())
        ]

    @property
    def methods_used(self) -> str:
        """A sentence on how the codes of quantized layers were chosen; "" when there are none."""
        used = self._figures.methods.most_common()
        parts = [f"{method}{_GUIDES[guide]} ({counted(count, 'layer')})" for (method, guide), count in used]
        return f"Scales and codes: {', '.join(parts)}." if parts else ""

    @property
    def taken_over(self) -> int:
        """Number of layers whose codes are those of the checkpoint."""
        return sum(count for (method, _), count in self._figures.methods.items() if method == STORED)

    @property
    def would_gain(self) -> bool:
        """True when layers in NVFP4 were quantized and no statistics told of the inputs of any."""
        return self._figures.in_nvfp4 and not self._figures.in_nvfp4_by_statistics

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
class _Total:
    layers: int = 0
    count: int = 0
    nbytes_in: int = 0
    nbytes_out: int = 0
    errors: float = 0.0
    squares: float = 0.0
    worst: LayerResult | None = None

    def add(self, result: LayerResult) -> None:
        self.layers += 1
        self.count += result.count
        self.nbytes_in += result.nbytes_in
        self.nbytes_out += result.nbytes_out
        if result.measured:
            self.errors += result.sum_error
            self.squares += result.sum_squares
            if self.worst is None or result.rel_err > self.worst.rel_err:
                self.worst = result


@dataclass(slots=True)
class _Figures:
    """What is asked of all layers; `places` are those of quantized ones among them, `errors` their relative errors."""

    count: int = 0
    quantized_count: int = 0
    quantized_layers: int = 0
    nbytes_in: int = 0
    nbytes_out: int = 0
    rel_err: float = 0.0
    worst: LayerResult | None = None
    warnings: list[str] = field(default_factory=list)
    totals: dict[tuple[str, str], _Total] = field(default_factory=lambda: defaultdict(_Total))
    methods: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_nvfp4: bool = False
    in_nvfp4_by_statistics: bool = False
    places: "array[int]" = field(default_factory=lambda: array("q"))
    errors: "array[float]" = field(default_factory=lambda: array("d"))


def _figures(layers: Sequence[LayerResult]) -> _Figures:
    """All totals in one pass: layers may be many, and be made when they are asked for."""
    found = _Figures()
    errors, squares = array("d"), array("d")
    for place, layer in enumerate(layers):
        found.count += layer.count
        found.nbytes_in += layer.nbytes_in
        found.nbytes_out += layer.nbytes_out
        found.totals[layer.role, layer.format].add(layer)
        if not layer.quantized:
            continue
        found.quantized_layers += 1
        found.quantized_count += layer.count
        found.methods[layer.method or "max", layer.guide] += 1
        if layer.format.startswith("nvfp4"):
            found.in_nvfp4 = True
            found.in_nvfp4_by_statistics |= layer.guide == "statistics"
        found.places.append(place)
        found.errors.append(layer.rel_err)
        if layer.measured:
            errors.append(layer.sum_error)
            squares.append(layer.sum_squares)
            if found.worst is None or layer.rel_err > found.worst.rel_err:
                found.worst = layer
        found.warnings += [f"{layer.name}: {loss}" for loss in layer.losses]
    taken_over = found.quantized_layers and not errors
    found.rel_err = math.nan if taken_over else relative_error(math.fsum(errors), math.fsum(squares))
    return found
