"""Checks of the bytes of NVFP4: block scales, the codes under them, tensor scales. Each byte is read once."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.formats import TENSOR_SCALE_DIVISOR
from studio.core.counting import counted
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.findings.modules import Module
from studio.core.model import Stored
from studio.core.sources.fp8 import decode_e4m3
from studio.core.sources.in_format import Convention

_SLAB = 1 << 20
_LARGEST = 0x7E
_TYPICAL = 2.7
"""The RMS of a block of normal weights over its scale: their largest of 16, 1.77 RMS and more, becomes code 6."""

_IMPLAUSIBLE = 300.0
_PLAUSIBLE = 30.0
"""RMS x sqrt(K) is 0.2 to 5 in trained matrices. One that is 300 times off, and within 30 in another convention, is
stored in that: two conventions differ by 2688 or by 1 / g**2, which is larger still."""

_POWERS = (0, 1, 2, 4, *range(8, 0x7F, 8))
"""Bytes of E4M3 that stand for 0 and powers of two."""

_FEWEST_PAIRS = 256
_SATURATED = 0.05
"""Only the block of the largest weight has the largest scale, and those within 3 % of it; not one in twenty."""


@dataclass(slots=True)
class Tally:
    """What was counted in the blocks of a module."""

    blocks: int = 0
    nan: int = 0
    negative: int = 0
    lost: int = 0
    saturated: int = 0
    pairs: int = 0
    equal: int = 0
    across: int = 0
    equal_across: int = 0
    powers: int = 0
    squares: float = 0.0

    def add(self, scales: NDArray[np.uint8], codes: NDArray[np.uint8]) -> None:
        """Count rows: scales [rows, blocks] as E4M3, and codes [rows, 8 x blocks]."""
        magnitude = scales & 0x7F
        self.blocks += scales.size
        self.nan += int((magnitude == 0x7F).sum())
        self.saturated += int((magnitude == _LARGEST).sum())
        self.powers += int(np.isin(scales, _POWERS).sum())
        self._add_pairs(scales)
        values = np.empty(scales.shape, np.float32)
        decode_e4m3(scales, values)
        self.squares += float(np.square(np.nan_to_num(values), dtype=np.float64).sum())
        live = ((codes & 0x77) != 0).reshape(*scales.shape, 8).any(axis=-1)
        self.lost += int((live & (magnitude == 0)).sum())
        self.negative += int((live & (scales > 0x80) & (scales < 0xFF)).sum())

    def _add_pairs(self, scales: NDArray[np.uint8]) -> None:
        even = scales[:, : scales.shape[1] // 2 * 2]
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
        return alike and self.equal_across < 0.8 * self.across and self.powers < 0.95 * self.blocks


def examine(module: Module, *, quick: bool) -> Iterator[Observation]:
    """What the bytes of an NVFP4 module show; `quick` looks at tensor scales alone.

    Raises CheckpointError for what can not be read.
    """
    unusable = list(_unusable("tensor-scale-unusable", module.third))
    yield from unusable
    yield from _unusable("inputs-unusable", module.inputs)
    if quick:
        return
    tally = Tally()
    for scales, codes in _slabs(module):
        tally.add(scales, codes)
    yield from _of_tally(module.name, tally)
    if module.third and not unusable and tally.blocks:
        yield from _meaning(module, float(_numbers(module.third)[0]), tally)


def _unusable(kind: str, stored: Stored | None) -> Iterator[Observation]:
    """Numbers to multiply with that are not finite and positive."""
    numbers = _numbers(stored) if stored else np.ones(1, np.float32)
    bad = numbers[~(np.isfinite(numbers) & (numbers > 0))]
    if stored and bad.size:
        evidence = f"{bad.size:,} of {numbers.size:,} are no positive numbers, as {bad[0]:g}"
        yield Observation(kind, stored.tensor.name, evidence)


def _of_tally(name: str, tally: Tally) -> Iterator[Observation]:
    counts = {"scales-nan": tally.nan, "scales-negative": tally.negative, "scales-zero": tally.lost}
    for kind, count in counts.items():
        if count:
            yield Observation(kind, name, f"{count:,} of {counted(tally.blocks, 'block')}")
    if tally.saturated > max(_SATURATED * tally.blocks, 16):
        yield Observation("scales-saturated", name, f"{tally.saturated:,} of {counted(tally.blocks, 'block')}")
    if tally.has_lane_bug:
        inside, across = tally.equal / tally.pairs, tally.equal_across / max(tally.across, 1)
        yield Observation("lane-bug", name, f"{inside:.0%} of the pairs of scales are equal, {across:.0%} across pairs")


def _meaning(module: Module, stored: float, tally: Tally) -> Iterator[Observation]:
    columns = module.codes.tensor.shape[-1] * (8 if module.codes.tensor.dtype == "U32" else 2)
    size = _TYPICAL * math.sqrt(tally.squares / tally.blocks * columns)
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
        assert module.third is not None
        evidence = (
            f"{stored:g} as {module.meaning} makes RMS x sqrt(K) {said:.3g}, as {better[0]} {sizes[better[0]]:.3g}"
        )
        yield Observation("tensor-scale-meaning", module.third.tensor.name, evidence)


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


def _slabs(module: Module) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
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
