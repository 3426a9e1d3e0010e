"""Recognition: which tensors are codes, where their scales are, what can not be read. Tensors decide, not configs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from kernels import FORMATS
from studio.core.model import Source, Stored
from studio.core.names import printable
from studio.core.sources import (
    bitsandbytes,
    compressed_integers,
    compressed_tensors,
    gpt_oss,
    gptq,
    hqq,
    mlx,
    modelopt,
    modelopt_integers,
    mx,
    quanto,
    quark,
    torchao,
)
from studio.core.sources.blocks import check_width, scales_of
from studio.core.sources.declared import Section, claims
from studio.core.sources.found import Detector, Fault, Found, MissingPartError, UnreadError
from studio.core.sources.fp8 import FP8, ScaledFp8
from studio.core.sources.in_format import InFormat
from studio.core.sources.packed import PackedSource
from studio.core.sources.scale_names import Suspects, is_weight_scale, owner_of, scale_names
from studio.core.sources.scales import EXPONENTS, Scales

DETECTORS: tuple[Detector, ...] = (
    mlx.detect,
    modelopt_integers.detect,
    modelopt.detect,
    compressed_tensors.detect,
    gpt_oss.detect,
    torchao.detect,
    mx.detect,
    compressed_integers.detect,
    gptq.detect,
    quark.detect,
    bitsandbytes.detect,
    hqq.detect,
    quanto.detect,
)
"""Conventions of storing a weight in several tensors, each told by the names and dtypes of these alone."""

InputFirst = Callable[[str, tuple[int, ...]], bool]
"""Whether a tensor of this name and shape is a stack [experts, in, out]."""


@dataclass(frozen=True, slots=True)
class Recognized:
    """What the tensors say.

    sources: by tensor name, for codes that can be read; every other tensor is plain. weights: the names that a plain
    checkpoint gives those which it calls otherwise. scales: names of the tensors that belong to codes. idle: names of
    the scales of activations and caches, which weights do not need. unread: by tensor name, why codes can not be read.
    faults: of those that nobody can read, what is wrong with their parts.
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    scales: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    unread: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, Fault] = field(default_factory=dict)

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
        self._faults: dict[str, Fault] = {}
        self._weights: dict[str, str] = {}
        self._bare: list[str] = []
        self._claim()
        claimed = self._scales | self._weights.keys()
        self._suspects = Suspects(name for name in stored if name not in claimed)
        for codes, weight in self._weights.items():
            self._note(codes, self._check_alone, weight)

    def result(self) -> Recognized:
        """Everything that was found."""
        for name, item in self._stored.items():
            if name in self._weights or name in self._scales:
                continue
            if item.tensor.dtype == FP8:
                self._note(name, self._look_at_fp8)
        self._look_for_strays()
        idle = self._idle() if self._sections or self._sources or self._unread or self._bare else frozenset()
        for name in self._bare:
            self._note(name, self._settle, idle)
        return Recognized(self._sources, frozenset(self._scales), idle, self._unread, self._weights, self._faults)

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
                    self._give_up(codes, found.why, found.fault)

    def _check_alone(self, _codes: str, weight: str) -> None:
        """Anything else that speaks of scales may change what codes mean."""
        if odd := list(islice(self._suspects.beside(weight), 2)):
            raise UnreadError(f"codes beside {_leaves(odd)}, whose meaning is not known")

    def _note(self, name: str, look: Callable[..., None], *facts: object) -> None:
        try:
            look(name, *facts)
        except UnreadError as error:
            self._give_up(name, str(error), error.fault)
            self._sources.pop(name, None)

    def _give_up(self, name: str, why: str, fault: Fault | None) -> None:
        if name not in self._unread:
            self._unread[name] = why
            self._faults |= {name: fault} if fault else {}

    def _look_at_fp8(self, name: str) -> None:
        item = self._stored[name]
        if is_weight_scale(name):
            raise UnreadError(f"scales stored as {FP8}, of a format that is not read")
        known = [other for other in scale_names(name) if other in self._stored]
        near = self._suspects.beside(name) if known else self._suspects.in_module(name)
        odd = list(islice((other for other in near if other not in known), 2))
        self._scales.update(known)
        if odd or len(known) > 1:
            raise UnreadError(f"{FP8} beside {_leaves([*known, *odd])}, whose meaning is not known")
        if not known:
            self._bare.append(name)
            return
        scale, turned = self._stored[known[0]], self._input_first(name, item.tensor.shape)
        scales = scales_of(item, scale, self._claims, input_first=turned) if item.tensor.nbytes else None
        self._sources[name] = _in_mx(item, scales) or ScaledFp8(item, scales) if scales else ScaledFp8(item)

    def _look_for_strays(self) -> None:
        """A scale beside a weight that is no code leaves open whether the weight holds numbers or codes."""
        for name in self._suspects.of_weights():
            if name in self._scales or not is_weight_scale(name):
                continue
            if owner := self._stored.get(owner_of(name)):
                what = f"{owner.tensor.dtype} beside {printable(name)}: weights or codes, it can not be told"
                self._give_up(owner.tensor.name, what, "misfit")

    def _idle(self) -> frozenset[str]:
        """The scales of activations and caches: numbers and vectors, never a matrix."""
        shapes = {name: self._stored[name].tensor.shape for name in self._suspects.idle}
        return frozenset(name for name, shape in shapes.items() if sum(size > 1 for size in shape) < 2)

    def _settle(self, name: str, idle: frozenset[str]) -> None:
        """FP8 without scales is a mere cast, unless anything in the checkpoint speaks of scales."""
        if self._sections:
            raise MissingPartError(f"{FP8} without the scales that {printable(self._sections[0].place)} speaks of")
        if self._scales or self._unread or idle or any(map(_is_scale, self._stored.values())):
            raise MissingPartError(f"{FP8} without scales in a checkpoint that has some")
        check_width(self._stored[name])
        self._sources[name] = ScaledFp8(self._stored[name])


def _leaves(names: Sequence[str]) -> str:
    return " and ".join(printable(name.rpartition(".")[2]) for name in names)


def _in_mx(codes: Stored, scales: Scales) -> Source | None:
    """FP8 with an exponent for every 32 weights of a row is MXFP8, and can be handed on as that."""
    row, shape = FORMATS["mxfp8"], codes.tensor.shape
    if scales.stored.tensor.dtype not in EXPONENTS or scales.block != (1, row.block) or shape[-1] % row.block:
        return None
    return PackedSource(InFormat(row, shape[-1], codes, scales.stored), shape)


def _is_scale(item: Stored) -> bool:
    return item.tensor.dtype == "F8_E8M0" or is_weight_scale(item.tensor.name)
