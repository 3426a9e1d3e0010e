"""Recognition: which tensors are codes, where their scales are, what can not be read. Tensors decide, not configs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from studio.core.model import Source, Stored
from studio.core.names import printable
from studio.core.sources import compressed_tensors, mlx, modelopt
from studio.core.sources.blocks import check_width, in_fp4, scales_of
from studio.core.sources.declared import Section, claims
from studio.core.sources.found import Detector, Found, UnreadError
from studio.core.sources.fp8 import FP8, ScaledFp8
from studio.core.sources.packed import PackedSource
from studio.core.sources.scale_names import Suspects, is_weight_scale, owner_of, scale_names

DETECTORS: tuple[Detector, ...] = (mlx.detect, modelopt.detect, compressed_tensors.detect)
"""Conventions of storing a weight in several tensors, each told by the names and dtypes of these alone."""

InputFirst = Callable[[str, tuple[int, ...]], bool]
"""Whether a tensor of this name and shape is a stack [experts, in, out]."""


@dataclass(frozen=True, slots=True)
class Recognized:
    """What the tensors say.

    sources: by tensor name, for codes that can be read; every other tensor is plain. weights: the names that a plain
    checkpoint gives those which it calls otherwise. scales: names of the tensors that belong to codes. idle: names of
    the scales of activations and caches, which weights do not need. unread: by tensor name, why codes can not be read.
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    scales: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    unread: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def claimed(self) -> bool:
        """True when the convention of codes is known that can not be read."""
        return any(name in self.weights for name in self.unread)

    @property
    def refusal(self) -> str:
        """Why the checkpoint can not be read, or an empty text."""
        if not self.unread:
            return ""
        name, reason = next(iter(self.unread.items()))
        more = f", and {len(self.unread) - 1:,} more" if len(self.unread) > 1 else ""
        return f"{printable(name)}: {reason}{more}"


def recognize(stored: Mapping[str, Stored], sections: Sequence[Section], input_first: InputFirst) -> Recognized:
    """Tell codes, their scales and plain tensors apart; `sections` tell what names, dtypes and shapes can not."""
    return _Recognition(stored, sections, input_first).result()


class _Recognition:
    """Goes through the tensors, and gathers what they are."""

    def __init__(self, stored: Mapping[str, Stored], sections: Sequence[Section], input_first: InputFirst) -> None:
        self._stored, self._sections, self._input_first = stored, sections, input_first
        self._claims = claims(sections)
        self._sources: dict[str, Source] = {}
        self._scales: set[str] = set()
        self._unread: dict[str, str] = {}
        self._weights: dict[str, str] = {}
        self._bare: list[str] = []
        self._claim()
        claimed = self._scales | self._weights.keys()
        self._suspects = Suspects(name for name in stored if name not in claimed)

    def result(self) -> Recognized:
        """Everything that was found."""
        for name, item in self._stored.items():
            if name in self._weights or name in self._scales:
                continue
            if item.tensor.dtype == FP8:
                self._note(name, self._look_at_fp8)
            elif item.tensor.dtype == "I8":
                self._look_at_fp4(name)
        self._look_for_strays()
        idle = self._idle() if self._sections or self._sources or self._unread or self._bare else frozenset()
        for name in self._bare:
            self._note(name, self._settle, idle)
        return Recognized(self._sources, frozenset(self._scales), idle, self._unread, self._weights)

    def _claim(self) -> None:
        """Give the detectors their parts; a tensor is part of one weight only."""
        for detect in DETECTORS:
            for found in detect(self._stored, self._sections):
                codes, *others = found.parts
                if codes in self._weights or codes in self._scales:
                    continue
                self._weights[codes] = found.weight
                self._scales.update(others)
                if isinstance(found, Found):
                    self._sources[codes] = found.source
                else:
                    self._unread[codes] = found.why

    def _note(self, name: str, look: Callable[..., None], *facts: object) -> None:
        try:
            look(name, *facts)
        except UnreadError as error:
            self._unread[name] = str(error)

    def _look_at_fp8(self, name: str) -> None:
        item = self._stored[name]
        if is_weight_scale(name):
            raise UnreadError(f"scales stored as {FP8}, of a format that is not read")
        known = [other for other in scale_names(name) if other in self._stored]
        near = self._suspects.beside(name) if known else self._suspects.in_module(name)
        odd = list(islice((other for other in near if other not in known), 2))
        self._scales.update(known)
        if odd or len(known) > 1:
            beside = " and ".join(printable(other.rpartition(".")[2]) for other in [*known, *odd])
            raise UnreadError(f"{FP8} beside {beside}, whose meaning is not known")
        if not known:
            self._bare.append(name)
            return
        scale, turned = self._stored[known[0]], self._input_first(name, item.tensor.shape)
        scales = scales_of(item, scale, self._claims, input_first=turned) if item.tensor.nbytes else None
        self._sources[name] = ScaledFp8(item, scales)

    def _look_at_fp4(self, name: str) -> None:
        known = [other for other in scale_names(name) if other in self._stored]
        codes = self._stored[name]
        encoding = in_fp4(codes, self._stored[known[0]]) if len(known) == 1 else None
        if encoding:
            *rows, width = codes.tensor.shape
            self._scales.add(known[0])
            self._sources[name] = PackedSource(encoding, (*rows, 2 * width))

    def _look_for_strays(self) -> None:
        """A scale beside a weight that is no code leaves open whether the weight holds numbers or codes."""
        for name in self._suspects.of_weights():
            if name in self._scales or not is_weight_scale(name):
                continue
            if owner := self._stored.get(owner_of(name)):
                what = f"{owner.tensor.dtype} beside {printable(name)}: weights or codes, it can not be told"
                self._unread.setdefault(owner.tensor.name, what)

    def _idle(self) -> frozenset[str]:
        """The scales of activations and caches: numbers and vectors, never a matrix."""
        shapes = {name: self._stored[name].tensor.shape for name in self._suspects.idle}
        return frozenset(name for name, shape in shapes.items() if sum(size > 1 for size in shape) < 2)

    def _settle(self, name: str, idle: frozenset[str]) -> None:
        """FP8 without scales is a mere cast, unless anything in the checkpoint speaks of scales."""
        if self._sections:
            raise UnreadError(f"{FP8} without the scales that {printable(self._sections[0].place)} speaks of")
        if self._scales or self._unread or idle or any(map(_is_scale, self._stored.values())):
            raise UnreadError(f"{FP8} without scales in a checkpoint that has some")
        check_width(self._stored[name])
        self._sources[name] = ScaledFp8(self._stored[name])


def _is_scale(item: Stored) -> bool:
    return item.tensor.dtype == "F8_E8M0" or is_weight_scale(item.tensor.name)
