"""GGUF models: tensors under the names that transformers gives them, with their values, and config and tokenizer."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from studio.core.architectures import family_of, is_known, text_section
from studio.core.architectures.gguf import GgufArchitecture
from studio.core.architectures.gguf_rows import architecture_of, known_architectures
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.files import SourceFile
from studio.core.containers.gguf import GgufTensor
from studio.core.containers.safetensors import Tensor
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.layouts.documents import json_document
from studio.core.model import Document, Model, Source, Stored
from studio.core.names import printable
from studio.core.opening.configs import read_config
from studio.core.opening.gguf_config import Facts, config_of
from studio.core.opening.gguf_files import GgufModel
from studio.core.opening.gguf_stacks import joined_biases, joined_stack
from studio.core.opening.gguf_tokenizer import (
    TOKENIZER_FILES,
    UnknownTokenizerError,
    generation_document,
    tokenizer_documents,
    tokenizer_obstacle,
)
from studio.core.opening.grouping import layers_of
from studio.core.opening.norms import with_norms
from studio.core.opening.side_files import side_files
from studio.core.sources.ggml import DECODERS
from studio.core.sources.gguf import Ggml
from studio.core.sources.plain import Plain
from studio.core.sources.recognition import Recognized

_IN_BLOCK = re.compile(r"blk\.(\d{1,9})\.((.+)\.(weight|bias))")
_OUT_OF_BLOCK = re.compile(r"(.+)\.(weight|bias)")
_ROPE = "rope_freqs.weight"
_MULTIPLIER, _OF_INPUTS = ".scale", ".input_scale"
_LONGEST_VECTOR = 1 << 22
_ROUTERS = ("ffn_gate_inp", "ffn_gate_inp_shexp")
_IDENTITY = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
_GENERATION = "generation_config.json"
_TOKENIZERS = {"tokenizer.json", "tokenizer.model", "vocab.json"}


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


def opened_gguf(place: Path, files: GgufModel, warnings: list[str]) -> Model:
    """The model of GGUF files, opened at `place`; adds to `warnings` what is odd about it. Raises CheckpointError.

    A config.json beside it that is of the same model takes the place of what the metadata tell, as do the files of a
    tokenizer beside that.
    """
    reading = GgufReading(files, warnings)
    weights = list(reading.weights())
    found = Recognized(
        {weight.tensor: weight.source for weight in weights},
        unread={weight.tensor: weight.obstacle for weight in weights if weight.obstacle},
        weights={weight.tensor: weight.name for weight in weights},
    )
    config, beside = _beside(place, reading.config, warnings)
    family = family_of(config)
    layers = layers_of({weight.tensor: weight.source.stored for weight in weights}, config, family, found, warnings)
    layers = with_norms(layers, {weight.name: weight.source.stored for weight in weights}, config)
    documents = _documents(files, config, {path.name for path in beside}, warnings)
    told = (config, beside, tuple(warnings), _refusal(weights), family, is_known(config), documents)
    return Model(place, tuple(files.files.values()), layers, *told, container="gguf")


def _beside(place: Path, config: dict[str, Any], warnings: list[str]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The config that counts, and the side files: what lies beside one file alone may be of any model."""
    folder = place if place.is_dir() else place.parent
    other = read_config(folder)
    same = bool(other) and all(text_section(other).get(key) == config[key] for key in _IDENTITY)
    if other and not same:
        warnings.append("config.json: beside the file, but of another model, left out")
    files = side_files(folder, []) if same or place.is_dir() else ()
    return other if same else config, files


def _documents(
    files: GgufModel, config: Mapping[str, Any], there: set[str], warnings: list[str]
) -> tuple[Document, ...]:
    """What the metadata tell of tokenizer and generation, as files, where none lies beside."""
    pairs, path = files.pairs, files.first
    makers = {_GENERATION: lambda: json_document(generation_document(pairs))}
    if not there & _TOKENIZERS:
        longest = config.get("max_position_embeddings", 0)
        told = cache(lambda: _tokenizer(pairs, longest, path))
        if reason := tokenizer_obstacle(pairs):
            warnings.append(f"no tokenizer is written, since {reason}: bring tokenizer.json from the original")
        else:
            makers |= {name: partial(lambda name: told()[name], name) for name in TOKENIZER_FILES}
    return tuple(Document(name, make) for name, make in makers.items() if name not in there)


def _tokenizer(pairs: Mapping[str, Any], longest: int, path: Path) -> dict[str, bytes]:
    try:
        return tokenizer_documents(pairs, longest)
    except UnknownTokenizerError as error:
        what = f"no tokenizer can be made of it: {error}"
        hint = "put config.json and tokenizer.json of the original beside it"
        raise CheckpointError(what, file=path, hint=hint) from None


def _refusal(weights: Sequence[GgufWeight]) -> str:
    """Why no plan can be made of it, "" when one can: a layer that is not decoded can not be kept either."""
    unread = [weight for weight in weights if weight.obstacle]
    if not unread:
        return ""
    more = f", and {len(unread) - 1:,} more" if len(unread) > 1 else ""
    return f"{printable(unread[0].tensor)}: {unread[0].obstacle}{more}"


class GgufReading:
    """What a GGUF model is in the words of transformers. Raises CheckpointError for what is not known or not right."""

    def __init__(self, model: GgufModel, warnings: list[str]) -> None:
        self._model, self._warnings = model, warnings
        self._row = self._architecture()
        shapes = {name: tensor.shape for name, (_, tensor) in model.tensors.items()}
        for name in ("token_embd.weight", "output_norm.weight"):
            if name not in shapes:
                raise CheckpointError("is missing: this is no whole model", file=model.first, tensor=name)
        if len(shapes["token_embd.weight"]) != 2:
            raise CheckpointError("is no matrix", file=model.first, tensor="token_embd.weight")
        half = model.tensors["token_embd.weight"][1].type.name == "F16"
        facts = Facts(self._row, model.pairs, shapes, self._rope_factors(), half, model.first)
        self.config = config_of(facts, warnings)

    def _architecture(self) -> GgufArchitecture:
        pairs, first = self._model.pairs, self._model.first
        kind, name = pairs.get("general.type", "model"), pairs.get("general.architecture")
        if kind != "model":
            raise CheckpointError(f"a GGUF file that holds no model, but: {printable(kind, 60)}", file=first)
        experts = bool(pairs.get(f"{name}.expert_count"))
        if row := architecture_of(name, experts):
            return row
        what = f"of the architecture {printable(name, 60)}{' with experts' if experts else ''}"
        hint = f"start from the original checkpoint; GGUF is read of {', '.join(known_architectures())}"
        raise CheckpointError(f"{what}, whose names and changed values are not known here", file=first, hint=hint)

    def weights(self) -> Iterator[GgufWeight]:
        """All weights, those of experts one by one, in the order of the files."""
        if idle := sum(name.endswith(_OF_INPUTS) and self._is_beside(name) for name in self._model.tensors):
            scales = "scale of activations is" if idle == 1 else "scales of activations are"
            self._warnings.append(f"{idle:,} {scales} left out: weights alone are quantized")
        for file, tensor in self._model.tensors.values():
            if not self._is_beside(tensor.name):
                yield from self._weights(file, tensor)

    def _is_beside(self, name: str) -> bool:
        """True for what is no weight: frequencies that follow from the config, and scales of codes and of inputs."""
        owner = f"{name.removesuffix(_OF_INPUTS).removesuffix(_MULTIPLIER)}.weight"
        return name == _ROPE or (name.endswith((_MULTIPLIER, _OF_INPUTS)) and owner in self._model.tensors)

    def _weights(self, file: SourceFile, tensor: GgufTensor) -> Iterator[GgufWeight]:
        if found := self._in_block(tensor.name):
            block, own, _, _ = found
            whole = next((name for name, parts in self._row.joined.items() if own in parts), "")
            if whole:
                if self._row.joined[whole][0] == own:
                    yield self._joined(f"{self._row.blocks}.{block}.{whole}", block, self._row.joined[whole])
                return
        module, name = self._named(file, tensor)
        if "{}" not in name:
            yield self._weight(file, tensor, module, name, tensor.shape)
            return
        for expert in range(self._height(file, tensor)):
            yield self._weight(file, tensor, module, name.format(expert), tensor.shape[1:], expert)

    def _height(self, file: SourceFile, tensor: GgufTensor) -> int:
        """How many experts a stack holds."""
        if len(tensor.shape) != 3 or not all(tensor.shape):
            raise CheckpointError("should be a stack of experts [experts, out, in]", file=file.path, tensor=tensor.name)
        return tensor.shape[0]

    def _joined(self, name: str, block: int, owns: Sequence[str]) -> GgufWeight:
        """A weight of transformers that llama.cpp has in several tensors, which are called `owns` in a block."""
        found = [self._part(f"blk.{block}.{own}") for own in owns]
        if owns[0].endswith(".bias"):
            parts = [self._weight(file, tensor, "", name, tensor.shape) for file, tensor in found]
            if len(parts) == 1:
                return parts[0]
            source = joined_biases(name, [part.source for part in parts], alternating=self._row.alternating)
            return GgufWeight(name, source)
        stacks = [
            [self._weight(*one, "", name, one[1].shape[1:], expert) for expert in range(self._height(*one))]
            for one in found
        ]
        if len({len(stack) for stack in stacks}) > 1:
            raise CheckpointError("of other experts than those beside it", file=found[0][0].path, tensor=owns[0])
        sources = [[expert.source for expert in stack] for stack in stacks]
        obstacle = next((expert.obstacle for stack in stacks for expert in stack if expert.obstacle), "")
        source = joined_stack(name, sources, family_of(self.config), self.config, turned=self._row.turned)
        return GgufWeight(name, source, obstacle)

    def _part(self, name: str) -> tuple[SourceFile, GgufTensor]:
        if name not in self._model.tensors:
            raise CheckpointError("is missing: this is no whole model", file=self._model.first, tensor=name)
        return self._model.tensors[name]

    def _in_block(self, name: str) -> tuple[int, str, str, str] | None:
        """(number of the block, name in it, module, leaf) of a tensor of a block that the model has."""
        found = _IN_BLOCK.fullmatch(name)
        if found is None or int(found[1]) >= self.config["num_hidden_layers"]:
            return None
        return int(found[1]), found[2], found[3], found[4]

    def _named(self, file: SourceFile, tensor: GgufTensor) -> tuple[str, str]:
        """(llama.cpp's name of the module, the name of the weight), "{}" in it for the number of an expert."""
        names, outside = self._row.block, self._row.outside
        if found := self._in_block(tensor.name):
            block, own, module, leaf = found
            if own in names:
                return module, f"{self._row.blocks}.{block}.{names[own]}"
            if module in names:
                return module, f"{self._row.blocks}.{block}.{names[module]}.{leaf}"
        elif (other := _OUT_OF_BLOCK.fullmatch(tensor.name)) and other[1] in outside:
            return other[1], f"{outside[other[1]]}.{other[2]}"
        what = f"no part of {self._row.name} as it is known here, so the model would not be the same without it"
        raise CheckpointError(what, file=file.path, tensor=tensor.name)

    def _weight(
        self,
        file: SourceFile,
        tensor: GgufTensor,
        module: str,
        name: str,
        shape: tuple[int, ...],
        expert: int | None = None,
    ) -> GgufWeight:
        count = tensor.shape[0] if expert is not None else 1
        nbytes = tensor.nbytes // max(count, 1)
        start = tensor.start + (expert or 0) * nbytes
        shape = (1, *shape) if module == "ffn_gate_inp_shexp" and len(shape) == 1 else shape
        heads = self._heads(file, tensor, module) if module in self._row.permuted else 0
        thirds = self._thirds(file, tensor) if module in self._row.by_part else 0
        less = 1.0 if self._row.plus_one and name.endswith("norm.weight") else 0.0
        kept = _kept_dtype(file, tensor, less, small=module in _ROUTERS or _is_small(tensor))
        own = tensor.name if expert is None else f"{tensor.name}[{expert}]"
        stored = Stored(file, Tensor(own, _dtype(tensor.type.name, heads or thirds, less), shape, start, nbytes))
        if stored.tensor.dtype == kept:
            return GgufWeight(name, Plain(stored))
        factor = self._multiplier(file, tensor, expert or 0, count)
        source = Ggml(stored, tensor.type, kept, heads, less, factor, thirds)
        known = tensor.type.name in DECODERS
        return GgufWeight(name, source, "" if known else f"{tensor.type.name} is not decoded here")

    def _heads(self, file: SourceFile, tensor: GgufTensor, module: str) -> int:
        heads = int(self.config["num_attention_heads" if module == "attn_q" else "num_key_value_heads"])
        width = int(self.config["head_dim"])
        if width % 2 or tensor.shape[:1] != (heads * width,):
            shape = printable(list(tensor.shape))
            what = f"of shape {shape}, which is not that of {counted(heads, 'head')} of {width} values in pairs"
            raise CheckpointError(what, file=file.path, tensor=tensor.name)
        return heads

    def _thirds(self, file: SourceFile, tensor: GgufTensor) -> int:
        heads = int(self.config["num_attention_heads"])
        if tensor.shape[:1] != (3 * heads * int(self.config["head_dim"]),):
            what = (
                f"of shape {printable(list(tensor.shape))}, which is not that of {counted(heads, 'head')} three times"
            )
            raise CheckpointError(what, file=file.path, tensor=tensor.name)
        return heads

    def _multiplier(self, file: SourceFile, tensor: GgufTensor, place: int, count: int) -> Stored | None:
        name = tensor.name.removesuffix(".weight") + _MULTIPLIER
        found = self._model.tensors.get(name)
        if found is None:
            return None
        owner, scale = found
        if tensor.type.name != "NVFP4" or scale.type.name != "F32" or scale.shape not in ((count,), ()):
            what = f"{tensor.type.name} {printable(list(tensor.shape))} beside {printable(name)}, which does not fit it"
            raise CheckpointError(what, file=file.path, tensor=tensor.name)
        return Stored(owner, Tensor(name, "F32", (1,), scale.start + 4 * place, 4))

    def _rope_factors(self) -> Any:
        if _ROPE not in self._model.tensors:
            return None
        file, tensor = self._model.tensors[_ROPE]
        if tensor.type.name != "F32" or not 0 < tensor.nbytes <= _LONGEST_VECTOR:
            raise CheckpointError("malformed: needs a few numbers in F32", file=file.path, tensor=_ROPE)
        factors = np.frombuffer(file.read(tensor.start, tensor.nbytes), "<f4")
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise CheckpointError(
                "malformed: frequencies are divided by positive numbers", file=file.path, tensor=_ROPE
            )
        return factors


def _dtype(name: str, heads: int, less: float) -> str:
    """What people are told of the numbers; a dtype that tensors can be copied in only where they are as they should."""
    return f"{name} in pairs" if heads and name in WEIGHT_DTYPES else f"{name} plus {less:g}" if less else name


def _is_small(tensor: GgufTensor) -> bool:
    """True for vectors, and what is one for every head or expert."""
    return len(tensor.shape) == 1 or tensor.name.endswith((".bias", "_norm.weight"))


def _kept_dtype(file: SourceFile, tensor: GgufTensor, less: float, *, small: bool) -> str:
    """The dtype in which a kept weight loses nothing, of those that hold its type; BF16 for blocks of codes.

    llama.cpp stores vectors, biases and routers in F32 whatever they were: numbers of BF16 only become BF16 again.
    """
    name = tensor.type.name
    looked_at = small and tensor.nbytes <= _LONGEST_VECTOR
    if name != "F32" or not looked_at:
        return name if name in WEIGHT_DTYPES else "BF16"
    values = np.frombuffer(file.read(tensor.start, tensor.nbytes), "<f4") - np.float32(less)
    return "F32" if (values.view(np.uint32) & 0xFFFF).any() else "BF16"
