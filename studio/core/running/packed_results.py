"""Packed results: the numbers of many layers in little memory, each made into a result whenever it is asked for."""

import marshal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, overload

from studio.core.counts import Counts
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult, Statistics, result_of

_CHOSEN = (
    *("name", "role", "block", "dtype", "shape", "format", "reason", "count", "nbytes_in", "nbytes_out"),
    *("method", "guide", "lift", "input_scales"),
)
"""Fields that the choice of a layer tells."""
_PLAIN = [f.name for f in fields(LayerResult) if f.name not in (*_CHOSEN, "scale_counts", "statistics")]
_TOLD = [f.name for f in fields(Statistics) if f.name != "histogram"]
_SLIM = [f.name for f in fields(LayerResult) if f.name not in ("scale_counts", "statistics")]
_numbers, _distribution, _slim = attrgetter(*_PLAIN), attrgetter(*_TOLD), attrgetter(*_SLIM)


class _Packed(Sequence[LayerResult], ABC):
    """Results that are made when they are asked for."""

    @overload
    def __getitem__(self, at: int) -> LayerResult: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[LayerResult]: ...
    def __getitem__(self, at: int | slice) -> LayerResult | Sequence[LayerResult]:
        return [self._made(i) for i in range(len(self))[at]] if isinstance(at, slice) else self._made(at)

    @abstractmethod
    def _made(self, at: int) -> LayerResult: ...


class SlimResults(_Packed):
    """Results in the order in which they are appended, without counts of scales and distributions."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []

    def append(self, result: LayerResult) -> None:
        """One more."""
        self._packed.append(marshal.dumps(_slim(result)))

    def __len__(self) -> int:
        return len(self._packed)

    def _made(self, at: int) -> LayerResult:
        told = marshal.loads(self._packed[at])  # noqa: S302 - our own, from this memory
        return LayerResult(**dict(zip(_SLIM, told, strict=True)))


class PackedResults(_Packed):
    """The results of these choices, in their order, once `add` took each."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices
        self._packed: dict[str, bytes] = {}

    def add(self, result: LayerResult) -> None:
        """The result of one of the choices, in any order."""
        known = result.statistics
        told = (*_distribution(known), known.histogram.pack()) if known else None
        self._packed[result.name] = marshal.dumps((_numbers(result), result.scale_counts.pack(), told))

    def __len__(self) -> int:
        return len(self._choices)

    def _made(self, at: int) -> LayerResult:
        choice = self._choices[at]
        return _result(choice, self._packed[choice.layer.name])


def _result(choice: Choice, packed: bytes) -> LayerResult:
    numbers, scale_counts, told = marshal.loads(packed)  # noqa: S302 - our own, from this memory
    return result_of(
        choice,
        **dict(zip(_PLAIN, numbers, strict=True)),
        scale_counts=Counts.unpack(scale_counts),
        statistics=_statistics(*told) if told else None,
    )


def _statistics(*told: Any) -> Statistics:
    *plain, histogram = told
    return Statistics(**dict(zip(_TOLD, plain, strict=True)), histogram=Counts.unpack(histogram))
