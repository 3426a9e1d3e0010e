"""The statistics file: its layout, in safetensors.

token_ids            [windows, length] int32: the text that the model was run on
NAME.tokens          int64: how many inputs were seen; for an expert, those that were routed to it
NAME.peak            [K] float32    } absent where tokens is 0
NAME.mean_square     [K] float32    }
NAME.moments         [K/16, 136] float32, absent too where K is no multiple of 16
Metadata: format, version, model_digest, text_digest, seed, runtime, data_sha256, and `shared`, a JSON object from NAME
to the names of the other matrices that have the same input.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studio.core.errors import CheckpointError, PlanError
from studio.core.model import Layer, Matrix, Model
from studio.core.statistics.digest import model_digest
from studio.core.statistics.inputs import BLOCK, PAIRS, LayerInputs
from studio.core.statistics.tensors import Entry, TensorFile, write_tensors

FORMAT, VERSION = "nvfp4-studio statistics", "1"
_AGAIN = "gather statistics of this model: nvfp4-studio calibrate"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a distinct input takes in the file: the matrices that have it, its columns, the tokens seen."""

    names: tuple[str, ...]
    columns: int
    tokens: int

    def entries(self) -> Iterator[Entry]:
        """Its tensors, in file order."""
        name = self.names[0]
        yield f"{name}.tokens", "I64", ()
        if self.tokens:
            yield f"{name}.peak", "F32", (self.columns,)
            yield f"{name}.mean_square", "F32", (self.columns,)
            if self.columns % BLOCK == 0:
                yield f"{name}.moments", "F32", (self.columns // BLOCK, PAIRS)


def write_statistics(
    path: Path,
    shapes: Sequence[Shape],
    inputs_of: Callable[[Shape], LayerInputs],
    token_ids: NDArray[np.int32],
    about: Mapping[str, str],
) -> None:
    """Write a statistics file; one input is in memory at a time. Raises ExportError."""
    entries: list[Entry] = [("token_ids", "I32", token_ids.shape), *(e for shape in shapes for e in shape.entries())]
    shared = {shape.names[0]: list(shape.names[1:]) for shape in shapes if shape.names[1:]}
    metadata = {"format": FORMAT, "version": VERSION, **about, "shared": json.dumps(shared, ensure_ascii=False)}
    write_tensors(path, entries, _arrays(token_ids, shapes, inputs_of), metadata)


def _arrays(
    token_ids: NDArray[np.int32], shapes: Sequence[Shape], inputs_of: Callable[[Shape], LayerInputs]
) -> Iterator[NDArray[np.generic]]:
    yield token_ids
    for shape in shapes:
        yield np.array(shape.tokens, np.int64)
        if shape.tokens:
            found = inputs_of(shape)
            yield from (a for a in (found.peak, found.mean_square, found.moments) if a is not None)


class GatheredFile:
    """A statistics file, opened for the model that it was gathered on; see `StatisticsFile`."""

    kind = "statistics"

    def __init__(self, path: Path, model: Model) -> None:
        """Raises CheckpointError for a malformed or damaged file, PlanError for one of another model."""
        self.path, self._file = path, TensorFile(path)
        self._check(model)
        self.digest = self._file.check_digest()
        self._stored_under = self._names()

    def _check(self, model: Model) -> None:
        said = self._file.metadata
        if said.get("format") != FORMAT:
            hint = "give a file that calibrate wrote, or an importance file of llama.cpp"
            raise CheckpointError("a safetensors file, but not of statistics", file=self.path, hint=hint)
        if said.get("version") != VERSION:
            what = f"of version {said.get('version', '')!r}, this program reads {VERSION}"
            raise CheckpointError(what, file=self.path, hint="a newer NVFP4 Studio reads it")
        if said.get("model_digest") != model_digest(model):
            raise PlanError(f"statistics of another model than {model.name}", file=self.path, hint=_AGAIN)

    def _names(self) -> dict[str, str]:
        """The name that the inputs of each matrix are stored under."""
        firsts = [name.removesuffix(".tokens") for name in self._file.names if name.endswith(".tokens")]
        found = {name: name for name in firsts}
        for first, others in self._shared().items():
            if first not in found:
                raise CheckpointError("has no statistics, and others share them", file=self.path, tensor=first)
            found.update(dict.fromkeys(others, first))
        return found

    def _shared(self) -> dict[str, list[str]]:
        try:
            shared = json.loads(self._file.metadata.get("shared", "{}"))
        except ValueError:
            shared = None
        if not isinstance(shared, dict) or not all(
            isinstance(names, list) and all(isinstance(name, str) for name in names) for names in shared.values()
        ):
            raise CheckpointError("malformed: `shared` in its metadata does not map names to names", file=self.path)
        return shared

    @property
    def about(self) -> Mapping[str, str]:
        """The metadata: what it was gathered on, with which runtime."""
        return self._file.metadata

    @property
    def token_ids(self) -> NDArray[np.int32]:
        """The windows that the model was run on, [windows, length] int32."""
        return self._file.read("token_ids", "I32")

    def tokens_of(self, layer: Layer, matrix: Matrix) -> int | None:
        """See `StatisticsFile`."""
        name = self._stored_under.get(matrix.name)
        if name is None:
            return None
        tokens = int(self._file.read(f"{name}.tokens", "I64", ()))
        if tokens < 0:
            raise CheckpointError(f"tokens are {tokens}", file=self.path, tensor=name)
        return tokens

    def peak_of(self, layer: Layer, matrix: Matrix) -> tuple[int, float]:
        """See `StatisticsFile`."""
        tokens = self.tokens_of(layer, matrix)
        if not tokens:
            return 0, 0.0
        return tokens, float(self._numbers(f"{self._stored_under[matrix.name]}.peak", (matrix.columns,)).max())

    def of(self, layer: Layer, matrix: Matrix) -> LayerInputs | None:
        """See `StatisticsFile`."""
        tokens = self.tokens_of(layer, matrix)
        if tokens is None:
            return None
        name, width = self._stored_under[matrix.name], (matrix.columns,)
        if not tokens:
            return LayerInputs(0, np.zeros(width, np.float32), np.zeros(width, np.float32))
        has_moments = matrix.columns % BLOCK == 0
        return LayerInputs(
            tokens,
            self._numbers(f"{name}.mean_square", width),
            self._numbers(f"{name}.peak", width),
            self._numbers(f"{name}.moments", (matrix.columns // BLOCK, PAIRS), signed=True) if has_moments else None,
        )

    def _numbers(self, name: str, shape: tuple[int, ...], *, signed: bool = False) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._file.read(name, "F32", shape)
        if not np.isfinite(found).all() or (not signed and (found < 0).any()):
            raise CheckpointError("holds numbers that no statistics can have", file=self.path, tensor=name)
        return found
