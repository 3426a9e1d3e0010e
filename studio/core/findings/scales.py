"""Checks of the bytes of NVFP4: block scales, the codes under them, tensor scales. Each byte is read once."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.formats import TENSOR_SCALE_DIVISOR
from kernels.reference import e4m3_decode
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder
from studio.core.findings.modules import Module
from studio.core.model import Stored
from studio.core.sources.in_format import Convention, multiplier_of

VALUES: NDArray[np.float32] = e4m3_decode(np.arange(0x80, dtype=np.uint8))
"""The numbers that bytes of E4M3 without their sign stand for."""

FLOAT16_MAX = 65504.0

_SLAB, _FEW = 1 << 20, 1 << 12
_NUMBERS = {**WEIGHT_DTYPES, "F64": np.dtype(np.float64)}
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

_UPPER, _NARROW, _MANY_SIXES = 0x76, 0.6, 6.0
"""But where most scales are of the upper half, as those of clipped weights, it may well be: unless of the 16 codes more
than 6 are the largest, as where weights were cut off."""

_UNLIKELY = 100.0
"""A size of a matrix that no convention explains is said to be odd from here on."""

_LARGER, _SMALLER, _FEWEST_ALIKE = 30.0, 300.0, 3
"""Matrices of one name are of like sizes in all blocks; some experts that were hardly trained are small."""


@dataclass(slots=True)
class Tally:
    """What was counted in the blocks of a module.

    bytes: block scales by their byte. largest: of those over codes. saturated: blocks of the largest scale that have a
    code of 6; sixes: how many such codes they have. live: which rows have a weight that is not zero.
    """

    bytes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    negative: int = 0
    lost: int = 0
    saturated: int = 0
    sixes: int = 0
    largest: float = 0.0
    live: list[NDArray[np.bool_]] = field(default_factory=list)
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
        self.live.append((live & (magnitude != 0)).any(axis=-1))
        self._add_saturated(codes.reshape(-1, 8)[(magnitude == _LARGEST).reshape(-1)])
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

    @property
    def is_cut_off(self) -> bool:
        """True when weights beyond the largest scale were cut off."""
        narrow = self.of(_UPPER, _LARGEST) > _NARROW * self.blocks
        many = self.saturated > max(_SATURATED * self.blocks, 16)
        return many and (not narrow or self.sixes > _MANY_SIXES * self.saturated)

    def _add_saturated(self, codes: NDArray[np.uint8]) -> None:
        sixes = ((codes & 7) == 7).sum(axis=-1) + ((codes >> 4 & 7) == 7).sum(axis=-1)
        self.saturated += int((sixes > 0).sum())
        self.sixes += int(sixes.sum())

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
    """Tensor scales that can not be multiplied with; reads nothing else."""
    for module in folder.modules.values():
        if module.is_nvfp4:
            yield from unusable("tensor-scale-unusable", module.third)


def unusable(kind: str, stored: Stored | None) -> Iterator[Observation]:
    """Numbers to multiply with that are not finite and positive, or so small that GPUs take them for 0."""
    numbers = numbers_of(stored) if stored else np.ones(1, np.float32)
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
    yield from _dead(module, tally)
    if tally.blocks and not any(unusable("tensor-scale-unusable", module.third)):
        yield from _overflow(module, tally)
        yield from _meaning(module, tally)


def _of_tally(name: str, tally: Tally) -> Iterator[Observation]:
    counts = {"scales-nan": tally.of(0x7F, 0x7F), "scales-negative": tally.negative, "scales-zero": tally.lost}
    for kind, count in counts.items():
        if count:
            yield Observation(kind, name, f"{count:,} of {counted(tally.blocks, 'block')}")
    coarse, subnormal = tally.of(1, _COARSEST), tally.of(1, 7)
    if tally.is_cut_off:
        yield Observation("scales-saturated", name, f"{tally.saturated:,} of {counted(tally.blocks, 'block')}")
    if coarse > _COARSE * tally.blocks:
        yield Observation("scales-coarse", name, f"{coarse / tally.blocks:.0%} of its blocks have one of two scales")
    elif subnormal > _SUBNORMAL * tally.blocks:
        yield Observation("scales-subnormal", name, f"{subnormal / tally.blocks:.0%} of its blocks")
    if tally.has_lane_bug:
        inside, across = tally.equal / tally.pairs, tally.equal_across / max(tally.across, 1)
        yield Observation("lane-bug", name, f"{inside:.0%} of the pairs of scales are equal, {across:.0%} across pairs")


def _dead(module: Module, tally: Tally) -> Iterator[Observation]:
    """Matrices all of whose weights are zero, and not by scales of zero alone."""
    live = np.concatenate(tally.live) if tally.live else np.ones(1, np.bool_)
    matrices = math.prod(module.stack)
    if tally.lost or not matrices or live.size % matrices:
        return
    dead = ~live.reshape(matrices, -1).any(axis=-1)
    if dead.any():
        evidence = (
            f"{counted(int(dead.sum()), 'matrix', 'matrices')} of {matrices:,}, the first is {int(dead.argmax()):,}"
        )
        yield Observation("weights-zero", module.name, evidence if matrices > 1 else "all its codes are 0")


def _overflow(module: Module, tally: Tally) -> Iterator[Observation]:
    stored = numbers_of(module.third) if module.third else np.ones(1, np.float32)
    meaning = module.meaning if module.third else "multiplier"
    largest = 6 * tally.largest * max(multiplier_of(float(one), meaning) for one in stored)
    if largest > FLOAT16_MAX:
        yield Observation("float16-overflow", module.name, f"up to {largest:.6g}, float16 ends at {FLOAT16_MAX:g}")


def _meaning(module: Module, tally: Tally) -> Iterator[Observation]:
    if module.third is None or not _has_numbers(module.third):
        return
    stored, size = float(numbers_of(module.third)[0]), _size(module, tally.rms)
    multipliers: dict[Convention, float] = {
        "multiplier": stored,
        "divisor": 1 / stored,
        "amax": stored / TENSOR_SCALE_DIVISOR,
    }
    sizes = {meaning: g * size for meaning, g in multipliers.items()}
    said, name = sizes.pop(module.meaning), module.third.tensor.name
    better = [meaning for meaning, other in sizes.items() if 1 / _PLAUSIBLE < other < _PLAUSIBLE]
    implausible = bool(size) and not 1 / _IMPLAUSIBLE < said < _IMPLAUSIBLE
    if implausible and better and stored != 1:
        evidence = (
            f"{stored:g} as {module.meaning} makes RMS x sqrt(K) {said:.3g}, as {better[0]} {sizes[better[0]]:.3g}"
        )
        told = better[0] if len(better) == 1 else ""
        yield Observation("tensor-scale-meaning", name, evidence, told=told)
    elif size and not 1 / _UNLIKELY < said < _UNLIKELY:
        yield Observation("tensor-scale-odd", name, f"{stored:g} makes RMS x sqrt(K) {said:.3g}, usual are 0.2 to 5")


def _size(module: Module, rms: float) -> float:
    """RMS x sqrt(K) of weights whose block scales have an RMS, before the tensor scale."""
    columns = module.codes.tensor.shape[-1] * (8 if module.codes.tensor.dtype == "U32" else 2)
    return _TYPICAL * rms * math.sqrt(columns)


def alike(folder: Folder) -> Iterator[Reading]:
    """Modules of NVFP4 with a tensor scale that have one name in all blocks, to be compared with one another."""
    named: dict[str, list[Module]] = defaultdict(list)
    for module in folder.modules.values():
        if module.is_nvfp4 and module.third and module.third.tensor.shape in ((), (1,)):
            named[module.name.rpartition(".")[2]].append(module)
    for leaf, modules in named.items():
        if len(modules) >= _FEWEST_ALIKE:
            yield Reading(leaf, 0, partial(_sizes, modules))


def _sizes(modules: Sequence[Module]) -> Iterator[Seen]:
    """Those that are much larger or smaller than the others, by their tensor scales and some block scales."""
    found = [(module, _sampled(module)) for module in modules]
    middle = float(np.median([size for _, size in found if size]))
    for module, size in found:
        times = size / middle if middle else 0.0
        if module.third and size and not 1 / _SMALLER < times < _LARGER:
            evidence = f"it makes weights {times:.3g} times as large as those of {len(found) - 1:,} others of its name"
            yield Observation("tensor-scale-odd", module.third.tensor.name, evidence)


def _sampled(module: Module) -> float:
    if module.third is None or module.scales is None or any(unusable("", module.third)):
        return 0.0
    g = multiplier_of(float(numbers_of(module.third)[0]), module.meaning)
    part = module.scales.file.read(module.scales.tensor.start, min(module.scales.tensor.nbytes, _FEW))
    values = np.nan_to_num(VALUES[np.frombuffer(part, np.uint8) & 0x7F]).astype(np.float64)
    return g * float(np.sqrt(np.square(values).mean())) if values.size else 0.0


def fused(folder: Folder) -> Iterator[Observation]:
    """Groups of matrices that runtimes join and whose tensor scales differ: vLLM takes the largest for all."""
    groups: dict[str, list[Module]] = defaultdict(list)
    for layer in folder.layers:
        module = folder.modules.get(layer.name)
        if layer.group and module and module.third and module.third.tensor.nbytes == 4 and module.layout != "mlx":
            groups[layer.group].append(module)
    for modules in groups.values():
        values = {float(numbers_of(module.third)[0]) for module in modules if module.third}
        if len(values) > 1:
            names = ", ".join(module.name for module in modules)
            yield Observation("fused-scales", modules[0].name, f"{names}: {min(values):g} to {max(values):g}")


def numbers_of(stored: Stored) -> NDArray[np.float32]:
    """A small tensor of floating-point numbers; for one of another dtype, an empty or a large one, a single 1."""
    if not _has_numbers(stored):
        return np.ones(1, np.float32)
    dtype = _NUMBERS[stored.tensor.dtype]
    raw = np.frombuffer(stored.file.read(stored.tensor.start, stored.tensor.nbytes), dtype)
    with np.errstate(over="ignore"):
        return raw.astype(np.float32)


def _has_numbers(stored: Stored) -> bool:
    return stored.tensor.dtype in _NUMBERS and 0 < stored.tensor.nbytes <= _SLAB


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
