"""Checks of the bytes of NVFP4: block scales, the codes under them, tensor scales. Each byte is read once."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.formats import TENSOR_SCALE_DIVISOR
from kernels.reference import e4m3_decode
from studio.core.counting import counted
from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder
from studio.core.findings.modules import Module
from studio.core.model import Stored
from studio.core.sources.in_format import Convention, multiplier_of

VALUES: NDArray[np.float32] = e4m3_decode(np.arange(0x80, dtype=np.uint8))
"""The numbers that bytes of E4M3 without their sign stand for."""

FLOAT16_MAX = 65504.0

_SLAB = 1 << 20
_LARGEST = 0x7E
_TYPICAL = 2.7
"""The RMS of a block of normal weights over its scale: their largest of 16, 1.77 RMS and more, becomes code 6."""

_IMPLAUSIBLE = 300.0
_PLAUSIBLE = 30.0
"""RMS x sqrt(K) is 0.2 to 5 in trained matrices. One that is 300 times off, and within 30 in another convention, is
stored in that: two conventions differ by 2688 or by 1 / g**2, which is larger still."""

_POWERS = [0, 1, 2, 4, *range(8, 0x7F, 8)]
"""Bytes of E4M3 that stand for 0 and powers of two."""

_FEWEST_PAIRS = 256
_COARSEST, _COARSE = 2, 0.2
"""Scales of the bytes 1 and 2 are up to half off: their blocks lose more than four bits lose."""

_SUBNORMAL = 0.05
_SATURATED = 0.05
"""Only the block of the largest weight has the largest scale, and those within 3 % of it; not one in twenty."""


@dataclass(slots=True)
class Tally:
    """What was counted in the blocks of a module. bytes: block scales by their byte. largest: of those over codes."""

    bytes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    negative: int = 0
    lost: int = 0
    largest: float = 0.0
    pairs: int = 0
    equal: int = 0
    across: int = 0
    equal_across: int = 0

    def add(self, scales: NDArray[np.uint8], codes: NDArray[np.uint8]) -> None:
        """Count rows: scales [rows, blocks] as E4M3, and codes [rows, 8 x blocks]."""
        magnitude = scales & 0x7F
        self.bytes += np.bincount(scales.reshape(-1), minlength=256)
        self._add_pairs(scales)
        live = ((codes & 0x77) != 0).reshape(*scales.shape, 8).any(axis=-1)
        self.lost += int((live & (magnitude == 0)).sum())
        self.negative += int((live & (scales > 0x80) & (scales < 0xFF)).sum())
        known = VALUES[np.where(live & (magnitude < 0x7F), magnitude, 0)]
        self.largest = max(self.largest, float(known.max(initial=0)))

    @property
    def blocks(self) -> int:
        """All blocks."""
        return int(self.bytes.sum())

    def of(self, low: int, high: int) -> int:
        """How many blocks have a scale whose byte, without its sign, is one of low .. high."""
        return int((self.bytes[low : high + 1] + self.bytes[0x80 + low : 0x80 + high + 1]).sum())

    @property
    def rms(self) -> float:
        """The root of the mean square of the scales that are numbers."""
        magnitudes = self.bytes[:0x7F] + self.bytes[0x80:0xFF]
        return math.sqrt(float((magnitudes * VALUES[:0x7F].astype(np.float64) ** 2).sum()) / max(self.blocks, 1))

    def _add_pairs(self, scales: NDArray[np.uint8]) -> None:
        even = scales[
            :, 2 : scales.shape[1] // 2 * 2
        ]  # what the bug left of a launch, or a row, right is its first pair
        left, right = even[:, ::2], even[:, 1::2]
        self.pairs += left.size
        self.equal += int((left == right).sum())
        self.across += left[:, 1:].size
        self.equal_across += int((left[:, 1:] == right[:, :-1]).sum())

    @property
    def has_lane_bug(self) -> bool:
        """True when pairs of blocks share their scale, as if it had been taken over 32 weights.

        Scales of normal weights are equal in a sixth of the pairs, those of two tiers near the smallest in a half, and
        then as often across the borders of pairs. MXFP4 made to NVFP4 has equal pairs, too, of powers of two alone.
        """
        alike = self.pairs >= _FEWEST_PAIRS and self.equal > 0.95 * self.pairs
        return alike and self.equal_across < 0.8 * self.across and self.bytes[_POWERS].sum() < 0.95 * self.blocks


def usable(folder: Folder) -> Iterator[Observation]:
    """Tensor scales and input scales that can not be multiplied with; reads nothing else."""
    for module in folder.modules.values():
        if module.is_nvfp4:
            yield from _unusable("tensor-scale-unusable", module.third)
            yield from _unusable("inputs-unusable", module.inputs)


def _unusable(kind: str, stored: Stored | None) -> Iterator[Observation]:
    """Numbers to multiply with that are not finite and positive, or so small that GPUs take them for 0."""
    numbers = _numbers(stored) if stored else np.ones(1, np.float32)
    bad = numbers[~(np.isfinite(numbers) & (numbers >= np.finfo(np.float32).tiny))]
    if stored and bad.size:
        evidence = f"{bad.size:,} of {numbers.size:,} are no normal positive numbers, as {bad[0]:g}"
        yield Observation(kind, stored.tensor.name, evidence)


def readings(folder: Folder) -> Iterator[Reading]:
    """The modules of NVFP4, to be read."""
    for module in folder.modules.values():
        if module.is_nvfp4:
            yield Reading(module.name, module.codes.tensor.nbytes, partial(_examine, module))


def _examine(module: Module) -> Iterator[Seen]:
    tally = Tally()
    for scales, codes in slabs(module):
        tally.add(scales, codes)
        yield codes.size
    yield from _of_tally(module.name, tally)
    if tally.blocks and not any(_unusable("tensor-scale-unusable", module.third)):
        yield from _overflow(module, tally)
        yield from _meaning(module, tally)


def _of_tally(name: str, tally: Tally) -> Iterator[Observation]:
    counts = {"scales-nan": tally.of(0x7F, 0x7F), "scales-negative": tally.negative, "scales-zero": tally.lost}
    for kind, count in counts.items():
        if count:
            yield Observation(kind, name, f"{count:,} of {counted(tally.blocks, 'block')}")
    saturated, coarse, subnormal = tally.of(_LARGEST, _LARGEST), tally.of(1, _COARSEST), tally.of(1, 7)
    if saturated > max(_SATURATED * tally.blocks, 16):
        yield Observation("scales-saturated", name, f"{saturated:,} of {counted(tally.blocks, 'block')}")
    if coarse > _COARSE * tally.blocks:
        yield Observation("scales-coarse", name, f"{coarse / tally.blocks:.0%} of its blocks have one of two scales")
    elif subnormal > _SUBNORMAL * tally.blocks:
        yield Observation("scales-subnormal", name, f"{subnormal / tally.blocks:.0%} of its blocks")
    if tally.has_lane_bug:
        inside, across = tally.equal / tally.pairs, tally.equal_across / max(tally.across, 1)
        yield Observation("lane-bug", name, f"{inside:.0%} of the pairs of scales are equal, {across:.0%} across pairs")


def _overflow(module: Module, tally: Tally) -> Iterator[Observation]:
    stored = _numbers(module.third) if module.third else np.ones(1, np.float32)
    meaning = module.meaning if module.third else "multiplier"
    largest = 6 * tally.largest * max(multiplier_of(float(one), meaning) for one in stored)
    if largest > FLOAT16_MAX:
        yield Observation("float16-overflow", module.name, f"up to {largest:.6g}, float16 ends at {FLOAT16_MAX:g}")


def _meaning(module: Module, tally: Tally) -> Iterator[Observation]:
    if module.third is None:
        return
    stored = float(_numbers(module.third)[0])
    columns = module.codes.tensor.shape[-1] * (8 if module.codes.tensor.dtype == "U32" else 2)
    size = _TYPICAL * tally.rms * math.sqrt(columns)
    multipliers: dict[Convention, float] = {
        "multiplier": stored,
        "divisor": 1 / stored,
        "amax": stored / TENSOR_SCALE_DIVISOR,
    }
    sizes = {meaning: g * size for meaning, g in multipliers.items()}
    said = sizes.pop(module.meaning)
    if stored == 1 or not size or 1 / _IMPLAUSIBLE < said < _IMPLAUSIBLE:
        return
    better = [meaning for meaning, other in sizes.items() if 1 / _PLAUSIBLE < other < _PLAUSIBLE]
    if better:
        evidence = (
            f"{stored:g} as {module.meaning} makes RMS x sqrt(K) {said:.3g}, as {better[0]} {sizes[better[0]]:.3g}"
        )
        told = better[0] if len(better) == 1 else ""
        yield Observation("tensor-scale-meaning", module.third.tensor.name, evidence, told=told)


def fused(folder: Folder) -> Iterator[Observation]:
    """Groups of matrices that runtimes join and whose tensor scales differ: vLLM takes the largest for all."""
    groups: dict[str, list[Module]] = defaultdict(list)
    for layer in folder.layers:
        module = folder.modules.get(layer.name)
        if layer.group and module and module.third and module.third.tensor.nbytes == 4 and module.layout != "mlx":
            groups[layer.group].append(module)
    for modules in groups.values():
        values = {float(_numbers(module.third)[0]) for module in modules if module.third}
        if len(values) > 1:
            names = ", ".join(module.name for module in modules)
            yield Observation("fused-scales", modules[0].name, f"{names}: {min(values):g} to {max(values):g}")


def _numbers(stored: Stored) -> NDArray[np.float32]:
    """A small tensor of float32; for one of another dtype, an empty or a large one, a single 1."""
    if stored.tensor.dtype != "F32" or not 0 < stored.tensor.nbytes <= _SLAB:
        return np.ones(1, np.float32)
    return np.frombuffer(stored.file.read(stored.tensor.start, stored.tensor.nbytes), np.float32)


def slabs(module: Module) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Scales and codes, some rows at a time."""
    assert module.scales is not None
    codes, scales, rows = module.codes, module.scales, module.rows
    across = scales.tensor.shape[-1]
    if not rows or codes.tensor.nbytes != 8 * across * rows or scales.tensor.nbytes != across * rows:
        return
    height = max(_SLAB // (8 * across), 1)
    for start in range(0, rows, height):
        count = min(height, rows - start)
        yield _rows(scales, start, count, across), _rows(codes, start, count, 8 * across)


def _rows(stored: Stored, start: int, count: int, width: int) -> NDArray[np.uint8]:
    raw = stored.file.read(stored.tensor.start + start * width, count * width)
    return np.frombuffer(raw, np.uint8).reshape(count, width)
