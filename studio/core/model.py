"""Model and Layer: what a checkpoint holds, known from its headers alone."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels import Context, Format, Quantized
from studio.core.architectures import Family, Role, sections
from studio.core.architectures.generic import GENERIC
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.files import SourceFile
from studio.core.containers.links import checkpoint_name
from studio.core.containers.safetensors import Tensor
from studio.core.errors import CheckpointError
from studio.core.names import printable
from studio.core.running.scratch import Scratch
from studio.core.stores.store_path import close

LONGEST_ROW = 1 << 20
"""Weights in the longest row that is quantized: a slab holds whole rows, and memory is bounded by slabs."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor and the file that holds it."""

    file: SourceFile
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Matrix:
    """The unit of quantization: [rows, columns] = [outputs, inputs] of a stored tensor.

    Element (r, c) is element first + r * row_step + c * column_step of the tensor; row_step 0 means rows that follow
    each other. `name` is the module name that runtimes use for this matrix alone. `group` is equal for matrices that
    runtimes join, which share a tensor scale; "" for one that stands alone. For an expert: `stack` is the module that
    holds the experts, `expert` its place there, `projection` what it is in it.
    """

    name: str
    rows: int
    columns: int
    first: int = 0
    row_step: int = 0
    column_step: int = 1
    group: str = ""
    stack: str = ""
    expert: int | None = None
    projection: str = ""

    @property
    def is_contiguous(self) -> bool:
        """True when its elements follow each other in the tensor, row by row."""
        return self.column_step == 1 and self.row_step in (0, self.columns)


class Source(Protocol):
    """Where the weights of a layer come from, and how stored values become numbers; see `studio.core.sources`."""

    @property
    def stored(self) -> Stored:
        """The tensor of the weights themselves."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        ...

    @property
    def dtype(self) -> str:
        """Dtype of the arrays that `rows` gives, in which weights are counted and quantized."""
        ...

    @property
    def kept_dtype(self) -> str:
        """Dtype on disk when the layer is kept; another than that of `stored` when it is not copied byte for byte."""
        ...

    @property
    def bits(self) -> int:
        """Bits stored per weight, scales left out."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that are read."""
        ...

    @property
    def meaning(self) -> str:
        """How stored values become weights: for people, and to tell two readings of the same bytes apart."""
        ...

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[Any]:
        """Rows `start` .. `stop` of a matrix, [rows, columns] of `dtype`, in `scratch` where there is one.

        Raises CheckpointError for what can not be read.
        """
        ...

    @property
    def format(self) -> Format | None:
        """The format whose bytes `packed` gives; None where weights can only be decoded."""
        ...

    @property
    def scale_dtype(self) -> str:
        """Dtype of the scales that `packed` gives in a format with biases; an empty text in others."""
        ...

    def packed(self, matrix: Matrix, start: int, stop: int) -> Quantized:
        """Rows `start` .. `stop` of a matrix as they are stored, the tensor scale as multiplier; see `format`.

        Raises CheckpointError for scales that are no numbers, ValueError where `format` is None.
        """
        ...

    def multiplier(self, matrix: Matrix) -> float:
        """The tensor scale of a matrix as multiplier g, as near as float64 comes to it; 1 in formats without.

        Raises CheckpointError for one that is not usable.
        """
        ...


class Unpacked:
    """What a source has that can only be decoded."""

    __slots__ = ()

    @property
    def format(self) -> Format | None:
        """See `Source`."""
        return None

    @property
    def scale_dtype(self) -> str:
        """See `Source.scale_dtype`."""
        return ""

    def packed(self, matrix: Matrix, start: int, stop: int) -> Quantized:
        """See `Source.packed`."""
        raise ValueError(f"[packed] {matrix.name} is stored in no format that can be handed on")

    def multiplier(self, matrix: Matrix) -> float:
        """See `Source.multiplier`."""
        return 1.0


class Guide(Hashable, Protocol):
    """What is known of the inputs of a layer, for methods that look at what an error does to the output. Hashable."""

    @property
    def origin(self) -> str:
        """Where it is known from: "norm" or "statistics"."""
        ...

    @property
    def known(self) -> frozenset[str]:
        """What `context` gives for every matrix that was reached: names of `kernels.methods.Need`."""
        ...

    @property
    def meaning(self) -> str:
        """What tells two guides apart."""
        ...

    def context(self, matrix: Matrix) -> Context:
        """What is known of the inputs of a matrix. Raises CheckpointError for what can not be read."""
        ...

    def moments(self, matrix: Matrix) -> tuple[int, NDArray[np.float32]] | None:
        """How often a matrix [rows, K] was used, and what its inputs are like; None where nothing is known.

        That is their mean squares, float32 [K], or the second moments of blocks of 16 of them, [K / 16, 16, 16].
        Raises CheckpointError as `context` does.
        """
        ...

    def peak(self, matrix: Matrix) -> tuple[int, float]:
        """How many inputs of a matrix were seen, and the largest magnitude among them; (0, 0) where that is unknown.

        Raises CheckpointError for what can not be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One weight with its role.

    `name` is the tensor's name without `.weight`. `weight` is the name of the tensor in a plain checkpoint, "" where it
    is stored under that. `kept_as` is the dtype in which it is written when it is kept, "" for that of its source.
    `matrices` is empty for what can only be kept, `obstacle` says why.
    `expert` is the place of the expert that it belongs to alone, None for one of no expert or of a whole stack.
    `guide` is what is known of its inputs, None where nothing is. `lift` is the power of two that its weights are
    multiplied by as they are read, see `studio.core.planning.lifting`; `stored_lift` that by which they were multiplied
    when the export was written that they are read from.
    """

    name: str
    role: Role
    block: int | None
    source: Source
    matrices: tuple[Matrix, ...] = ()
    obstacle: str = ""
    expert: int | None = None
    guide: Guide | None = None
    lift: int = 0
    weight: str = ""
    kept_as: str = ""
    stored_lift: int = 0

    @property
    def whole_lift(self) -> int:
        """The power of two between the weights of the model and those that are read."""
        return self.stored_lift + self.lift

    @property
    def stored(self) -> Stored:
        """The tensor of the weights, and its file."""
        return self.source.stored

    @property
    def weight_name(self) -> str:
        """The name of its tensor in a plain checkpoint."""
        return self.weight or self.tensor.name

    @property
    def group(self) -> str:
        """What layers have in common whose matrices runtimes join; "" for one that stands alone."""
        return self.matrices[0].group if self.matrices else ""

    @property
    def tensor(self) -> Tensor:
        """The tensor of the weights as it is stored."""
        return self.source.stored.tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.source.shape

    @property
    def count(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> str:
        """Dtype in which the weights are counted and quantized."""
        return self.source.dtype

    @property
    def kept_dtype(self) -> str:
        """Dtype on disk when the layer is kept; also that of the scales that an affine format gives it."""
        return self.kept_as or self.source.kept_dtype

    @property
    def widened(self) -> bool:
        """True when a kept layer is decoded, or multiplied, and written anew instead of copied byte for byte."""
        return self.kept_dtype != self.tensor.dtype or self.lift != 0

    @property
    def whole(self) -> Matrix:
        """All weights as one matrix in stored order, to keep them."""
        columns = self.shape[-1] if self.shape else 1
        return Matrix(self.name, self.count // columns if columns else 0, columns)

    @property
    def nbytes(self) -> int:
        """Bytes read from disk for this layer."""
        return self.source.nbytes

    @property
    def kept_nbytes(self) -> int:
        """Bytes written when the layer is kept."""
        return self.count * WEIGHT_DTYPES[self.kept_dtype].itemsize if self.widened else self.tensor.nbytes


@dataclass(frozen=True, eq=False)
class Document:
    """A file that goes along with an export and lies nowhere: its content is made when it is first asked for."""

    name: str
    make: Callable[[], bytes]

    @cached_property
    def content(self) -> bytes:
        """Its bytes. Raises CheckpointError when the source does not tell what must be in it."""
        return self.make()


@dataclass(frozen=True, eq=False)
class Model:
    """A checkpoint, opened: its layers in file order, its configuration, and what was odd about it.

    `side_files` are copied to an export as they are, and `documents` written beside them. `quantized_by` names the
    method when it is quantized already. `family` is the row of the table of architectures that it was read by; `known`
    is False when that is a guess. `container` is that of its files. Close it, or use it as a context manager.
    """

    path: Path
    files: tuple[SourceFile, ...]
    layers: tuple[Layer, ...]
    config: dict[str, Any] = field(default_factory=dict)
    side_files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    quantized_by: str = ""
    family: Family = GENERIC
    known: bool = False
    documents: tuple[Document, ...] = ()
    container: Literal["safetensors", "gguf"] = "safetensors"

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def stack_heights(self) -> dict[tuple[str, str], int]:
        """Number of experts per (stack, projection)."""
        heights: dict[tuple[str, str], int] = defaultdict(int)
        for layer in self.layers:
            for matrix in layer.matrices:
                if matrix.expert is not None:
                    heights[matrix.stack, matrix.projection] += 1
        return heights

    @property
    def folder(self) -> Path:
        """The folder that holds the checkpoint."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def name(self) -> str:
        """The name of the checkpoint, for people; that of its repository in a cache."""
        return checkpoint_name(self.path)

    @property
    def side_names(self) -> tuple[str, ...]:
        """The names of `side_files`, then of `documents`, in an export, "/" between folder and file."""
        copied = (path.relative_to(self.folder).as_posix() for path in self.side_files)
        return (*copied, *(document.name for document in self.documents))

    @property
    def architecture(self) -> str:
        """The architecture that config.json names, or an empty string."""
        found = self.config.get("architectures")
        return str(found[0]) if isinstance(found, list) and found else str(self.config.get("model_type", ""))

    @property
    def read_by(self) -> str:
        """A sentence on the row of the table of architectures that gives the roles, and on how sure that is."""
        kind = printable(self.config.get("model_type", ""), 60)
        if self.known:
            return f"Roles by the row {self.family.name!r} of the table of architectures ({kind})."
        told = f"model type {kind!r} is unknown" if kind else "no config.json names a model type"
        return f"Roles by the row {self.family.name!r}: {told}, so check them before you trust an export."

    @property
    def nbytes(self) -> int:
        """Bytes of all weights on disk."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def count(self) -> int:
        """Number of weights."""
        return sum(layer.count for layer in self.layers)

    @property
    def generates(self) -> bool:
        """True for a model that config.json says predicts tokens, with a head of its own or the embedding as one."""
        return self.architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))

    @cached_property
    def is_tied(self) -> bool:
        """True when the output head is the embedding: none is stored, or config.json says that it is not used."""
        if not any(layer.role == "head" for layer in self.layers):
            return True
        said = (section.get("tie_word_embeddings") for section in reversed(sections(self.config)))
        return bool(next((value for value in said if value is not None), False))

    @cached_property
    def block_count(self) -> int:
        """Number of transformer blocks."""
        return len({layer.block for layer in self.layers if layer.block is not None})

    def check_plain(self) -> None:
        """Raise CheckpointError when the weights are quantized already in a way that is not read (FP8 is)."""
        if self.quantized_by:
            hint = "start from the checkpoint before it was quantized"
            raise CheckpointError(f"already quantized: {self.quantized_by}", file=self.path, hint=hint)

    def check_unchanged(self) -> None:
        """Raise CheckpointError when a file was modified since it was opened."""
        for file in self.files:
            file.check_unchanged()

    def close(self) -> None:
        """Close all files, and the store that they are in."""
        for file in self.files:
            file.close()
        close(self.path)

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
