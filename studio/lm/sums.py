"""Sums over the inputs of layers, and where they are kept between rounds."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.errors import CheckpointError, ExportError
from studio.core.exporting.writing import writing
from studio.core.statistics.file import Shape
from studio.core.statistics.inputs import BLOCK, COLUMNS, PAIRS, ROWS, LayerInputs
from studio.core.statistics.tensors import Entry, TensorFile, write_tensors
from studio.lm.inputs import Rows

_STRIP = 8 * BLOCK
_JOURNAL = "journal.json"


@dataclass(slots=True)
class Sums:
    """What is summed over the inputs [tokens, K] of a matrix.

    peak: [K] float32. squares: [K] float64. products: within blocks of 16 columns, [K/16, 136] float64.
    """

    columns: int
    tokens: int = 0
    peak: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, PAIRS)))

    def add(self, rows: Rows, name: str) -> None:
        """Add inputs; raises CheckpointError when they are not finite."""
        if not len(rows):
            return
        peak = np.abs(rows).max(0)
        if not np.isfinite(peak).all():
            raise CheckpointError("NaN or Inf goes into it when the model runs in float32", tensor=name)
        self.include(
            Sums(self.columns, len(rows), peak, np.square(rows, dtype=np.float64).sum(0), block_products(rows))
        )

    def include(self, other: "Sums") -> None:
        """Add the sums of other inputs."""
        if not self.tokens:
            self.peak, self.squares, self.products = other.peak, other.squares, other.products
        elif other.tokens:
            self.peak = np.maximum(self.peak, other.peak)
            self.squares = self.squares + other.squares
            self.products = self.products + other.products
        self.tokens += other.tokens

    def inputs(self) -> LayerInputs:
        """The statistics."""
        count = np.float64(max(self.tokens, 1))
        moments = (self.products / count).astype(np.float32) if len(self.products) else None
        return LayerInputs(self.tokens, (self.squares / count).astype(np.float32), self.peak, moments)


def block_products(rows: Rows) -> NDArray[np.float64]:
    """Sums over tokens of x_i x_j in each block of 16 columns, [K/16, 136]; empty where K is no multiple of 16."""
    columns = rows.shape[1]
    if columns % BLOCK:
        return np.zeros((0, PAIRS))
    found = np.empty((columns // BLOCK, PAIRS))
    for start in range(0, columns, _STRIP):
        strip = np.ascontiguousarray(rows[:, start : start + _STRIP])
        count = strip.shape[1] // BLOCK
        whole = (strip.T @ strip).reshape(count, BLOCK, count, BLOCK)
        blocks = whole[np.arange(count), :, np.arange(count)]
        found[start // BLOCK : start // BLOCK + count] = blocks[:, ROWS, COLUMNS]
    return found


class Kept:
    """The folder `<out>.partial`: the sums of all finished rounds, a file a step; locked while this object lives."""

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        """Takes over what an earlier run of the same identity kept; raises ExportError while another is under way."""
        self.path, self._identity = out.with_name(out.name + ".partial"), dict(identity)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise ExportError("another run with this output is under way", file=out) from None
        self.discarded = ""
        self._opened: TensorFile | None = None
        self.rounds = self._rounds()

    def _rounds(self) -> int:
        try:
            journal = json.loads((self.path / _JOURNAL).read_bytes())
            rounds, identity = int(journal["rounds"]), dict(journal["identity"])
        except (OSError, ValueError, KeyError, TypeError):
            self._check_ours()
            return 0
        changed = [key for key, value in self._identity.items() if identity.get(key) != value]
        if changed:
            self.discarded = f"a stopped run with another {' and another '.join(changed)} was discarded"
            self._clear()
            return 0
        return rounds

    def _clear(self) -> None:
        """Remove what an earlier run kept; the journal first, so that nothing is taken for what it is not."""
        with writing(self.path):
            (self.path / _JOURNAL).unlink(missing_ok=True)
            for entry in self.path.iterdir():
                entry.unlink()

    def _check_ours(self) -> None:
        strangers = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(("round-", _JOURNAL))]
        if strangers:
            raise ExportError("exists and was not made by this program", file=self.path, hint="move it away")

    def write(self, number: int, step: int, sums: Mapping[tuple[str, ...], Sums]) -> None:
        """Keep the sums of a step after round `number`."""
        entries = [entry for names, found in sums.items() for entry in _entries(names[0], found)]
        arrays = (array for found in sums.values() for array in _arrays(found))
        metadata = {"names": json.dumps([[*names] for names in sums], ensure_ascii=False)}
        write_tensors(self.path / f"round-{number}-{step}.safetensors", entries, arrays, metadata)

    def read(self, number: int, step: int) -> dict[tuple[str, ...], Sums]:
        """The sums of a step after round `number`."""
        return {names: _read(file, names[0]) for file, names in self._files(number, step)}

    def _file(self, number: int, step: int) -> TensorFile:
        """The file of a step, opened once for all that is read of it in a row."""
        path = self.path / f"round-{number}-{step}.safetensors"
        if self._opened is None or self._opened.path != path:
            self._opened = TensorFile(path)
        return self._opened

    def _files(self, number: int, step: int) -> Iterator[tuple[TensorFile, tuple[str, ...]]]:
        file = self._file(number, step)
        yield from ((file, tuple(names)) for names in json.loads(file.metadata["names"]))

    def finish(self, number: int) -> None:
        """Round `number` is whole: it counts from now on, and the one before goes."""
        journal = self.path / _JOURNAL
        with writing(journal):
            temporary = journal.with_suffix(".json.tmp")
            with temporary.open("wb") as file:
                file.write(json.dumps({"identity": self._identity, "rounds": number + 1}).encode())
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(journal)
            os.fsync(self._lock)
            for old in self.path.glob(f"round-{number - 1}-*"):
                old.unlink()
        self.rounds = number + 1

    def shapes(self, steps: int) -> dict[Shape, tuple[int, int]]:
        """All distinct inputs in the order of the steps, and where their sums are."""
        found = {}
        for step in range(steps):
            for file, names in self._files(self.rounds - 1, step):
                tokens, columns = (int(n) for n in file.read(f"{names[0]}.size", "I64", (2,)))
                found[Shape(names, columns, tokens)] = (self.rounds - 1, step)
        return found

    def inputs_of(self, shape: Shape, place: tuple[int, int]) -> LayerInputs:
        """The statistics of one input."""
        number, step = place
        return _read(self._file(number, step), shape.names[0]).inputs()

    def remove(self) -> None:
        """Remove the folder: what it held is in the statistics file."""
        with writing(self.path):
            shutil.rmtree(self.path)

    def close(self) -> None:
        """Give the lock back; a folder without a finished round goes."""
        if not self.rounds:
            with contextlib.suppress(OSError):
                shutil.rmtree(self.path)
        os.close(self._lock)


def _entries(name: str, sums: Sums) -> list[Entry]:
    shapes = [(part, array.shape) for part, array in (("squares", sums.squares), ("products", sums.products))]
    numbers: list[Entry] = [(f"{name}.{part}", "F64", shape) for part, shape in shapes]
    return [(f"{name}.size", "I64", (2,)), (f"{name}.peak", "F32", sums.peak.shape), *numbers]


def _arrays(sums: Sums) -> Sequence[NDArray[Any]]:
    return np.array([sums.tokens, sums.columns]), sums.peak, sums.squares, sums.products


def _read(file: TensorFile, name: str) -> Sums:
    tokens, columns = (int(n) for n in file.read(f"{name}.size", "I64", (2,)))
    squares, products = (file.read(f"{name}.{part}", "F64") for part in ("squares", "products"))
    return Sums(columns, tokens, file.read(f"{name}.peak", "F32"), squares, products)
