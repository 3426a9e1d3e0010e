"""Weights of a GGUF file one by one: in which order, shape and form llama.cpp has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from studio.core.architectures.gguf import GgufArchitecture
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.files import SourceFile
from studio.core.containers.gguf import GgufTensor
from studio.core.containers.safetensors import Tensor
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.model import Source, Stored
from studio.core.names import printable
from studio.core.opening.gguf_changes import order_of, reshaped
from studio.core.sources.ggml import DECODERS
from studio.core.sources.gguf import Ggml
from studio.core.sources.plain import Plain
from studio.core.sources.row_orders import RowOrder
from studio.core.sources.undone import Less, LogOfNegative, Undo, log_of_negative

LONGEST_VECTOR = 1 << 22
"""Bytes of what is read whole while a file is opened."""

_ROUTERS = ("ffn_gate_inp", "ffn_gate_inp_shexp")


@dataclass(frozen=True, slots=True)
class GgufWeight:
    """A weight by the name that transformers gives it; why it can not be decoded, "" when it can."""

    name: str
    source: Source
    obstacle: str = ""

    @property
    def tensor(self) -> str:
        """The name in the file, with the number of an expert behind that of its stack."""
        return self.source.stored.tensor.name


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of a file, or an expert of it: llama.cpp's name of its module, and the shape of the weight."""

    file: SourceFile
    tensor: GgufTensor
    module: str
    shape: tuple[int, ...]
    expert: int | None = None

    @property
    def count(self) -> int:
        """How many weights the tensor holds."""
        return self.tensor.shape[0] if self.expert is not None else 1

    def refuse(self, what: str) -> CheckpointError:
        """An error of this tensor."""
        return CheckpointError(what, file=self.file.path, tensor=self.tensor.name)

    def short(self) -> Any:
        """All numbers of a small tensor in F32. Raises CheckpointError for another one."""
        tensor = self.tensor
        if tensor.type.name != "F32" or not 0 < tensor.nbytes <= LONGEST_VECTOR:
            raise self.refuse("malformed: needs a few numbers in F32")
        return np.frombuffer(self.file.read(tensor.start, tensor.nbytes), "<f4")


def weight_of(
    name: str, part: Part, row: GgufArchitecture, config: Mapping[str, Any], factor: Stored | None
) -> GgufWeight:
    """The weight that transformers calls `name`; `factor`: its tensor scale. Raises CheckpointError."""
    tensor, kind = part.tensor, part.tensor.type
    nbytes = tensor.nbytes // max(part.count, 1)
    start = tensor.start + (part.expert or 0) * nbytes
    order, across = _order(part, row.orders, config, 0), _order(part, row.across, config, 1)
    undo, word = _undo(part, row), _reshaping(part, row)
    kept = _kept_dtype(part, undo, small=bool(word) or part.module in _ROUTERS or _is_small(tensor))
    own = tensor.name if part.expert is None else f"{tensor.name}[{part.expert}]"
    dtype = _dtype(kind.name, order, across, undo)
    shape = _shape(part, word)
    if kind.weights > 1 and len(shape) < 2:
        raise part.refuse(f"a vector in blocks of {kind.name}, which llama.cpp does not store")
    stored = Stored(part.file, Tensor(own, dtype, shape, start, nbytes))
    if dtype == kept:
        return GgufWeight(name, Plain(stored))
    source = Ggml(stored, kind, kept, order, across, undo, factor)
    return GgufWeight(name, source, "" if kind.name in DECODERS else f"{kind.name} is not decoded here")


def _order(part: Part, words: Mapping[str, str], config: Mapping[str, Any], axis: int) -> RowOrder | None:
    """The order of the rows of a tensor, axis 0, or of its columns, 1."""
    word, shape = words.get(part.module, ""), part.tensor.shape
    if not word or (axis and len(shape) < 2):
        return None
    try:
        order, count, what = order_of(word, part.module, config)
    except ValueError as error:
        raise part.refuse(f"of shape {printable(list(shape))}, with {error}") from None
    if shape[axis : axis + 1] != (count,):
        wanted = counted(count, "column" if axis else "row")
        raise part.refuse(f"of shape {printable(list(shape))}, which is not that of {what}: {wanted}")
    return order


def _undo(part: Part, row: GgufArchitecture) -> Undo | None:
    if part.module in row.logs:
        try:
            return log_of_negative(part.short())
        except ValueError as error:
            raise part.refuse(f"malformed: it holds {error}, and is minus an exponential") from None
    is_norm = part.tensor.name.endswith("norm.weight") and part.module not in row.unchanged
    return Less(1.0) if row.plus_one and is_norm else None


def _reshaping(part: Part, row: GgufArchitecture) -> str:
    """The word for the shape that a tensor had, "" for the one that it has."""
    return next((word for own, word in row.reshaped.items() if part.tensor.name.endswith(f".{own}")), "")


def _shape(part: Part, word: str) -> tuple[int, ...]:
    shape = part.shape
    if part.module == "ffn_gate_inp_shexp" and len(shape) == 1:
        return (1, *shape)
    found = reshaped(word, shape) if word and part.tensor.type.weights == 1 else None if word else shape
    if found is None:
        raise part.refuse(f"{part.tensor.type.name} {printable(list(shape))}, which is not how llama.cpp stores it")
    return found


def _dtype(name: str, *changes: RowOrder | Undo | None) -> str:
    """What people are told of the numbers; a dtype that tensors can be copied in only where they are as they should."""
    told = [change.meaning for change in changes if change]
    return ", ".join([name, *told]) if name in WEIGHT_DTYPES else name


def _is_small(tensor: GgufTensor) -> bool:
    """True for vectors, and what is one for every head or expert."""
    return len(tensor.shape) == 1 or tensor.name.endswith((".bias", "_norm.weight"))


def _kept_dtype(part: Part, undo: Undo | None, *, small: bool) -> str:
    """The dtype in which a kept weight loses nothing, of those that hold its type; BF16 for blocks of codes.

    llama.cpp stores vectors, biases and routers in F32 whatever they were: numbers of BF16 only become BF16 again.
    """
    name = part.tensor.type.name
    if isinstance(undo, LogOfNegative):
        return undo.dtype
    if name != "F32" or not small or not 0 < part.tensor.nbytes <= LONGEST_VECTOR:
        return name if name in WEIGHT_DTYPES else "BF16"
    values = undo(part.short()) if undo else part.short()
    return "F32" if (values.view(np.uint32) & 0xFFFF).any() else "BF16"
