"""What the tensors of a GGUF model are in the words of transformers, by the row of its architecture."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from studio.core.architectures import family_of
from studio.core.architectures.gguf import GgufArchitecture
from studio.core.architectures.gguf_names import NEXT, NEXT_ONCE
from studio.core.architectures.gguf_rows import architectures_of, known_architectures
from studio.core.containers.files import SourceFile
from studio.core.containers.gguf import GgufTensor
from studio.core.containers.safetensors import Tensor
from studio.core.errors import CheckpointError
from studio.core.model import Stored
from studio.core.names import printable
from studio.core.opening.gguf_config import config_of
from studio.core.opening.gguf_facts import Facts
from studio.core.opening.gguf_files import GgufModel
from studio.core.opening.gguf_stacks import REJOINED, joined_biases, joined_stack
from studio.core.opening.gguf_weights import GgufWeight, Part, weight_of

_IN_BLOCK = re.compile(r"blk\.(\d{1,9})\.((.+?)(?:\.(weight|bias|scale))?)")
_OUT_OF_BLOCK = re.compile(r"(.+)\.(weight|bias)")
_ROPE, _LONG, _SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
_MULTIPLIER, _OF_INPUTS = ".scale", ".input_scale"


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
        lengths = (_LONG, _SHORT) if self._row.lengths and _LONG in shapes else ()
        factors = [self._rope_factors(name) for name in (*lengths, *([_ROPE] if _ROPE in shapes else []))]
        facts = Facts(
            self._row,
            model.pairs,
            shapes,
            factors[-1] if _ROPE in shapes else None,
            half,
            model.first,
            tuple(factors[: len(lengths)]),
        )
        self._constants = {_ROPE, *lengths}
        self.config = config_of(facts, warnings)
        self._behind = facts.behind

    def _architecture(self) -> GgufArchitecture:
        pairs, first = self._model.pairs, self._model.first
        kind, name = pairs.get("general.type", "model"), pairs.get("general.architecture")
        if kind != "model":
            raise CheckpointError(f"a GGUF file that holds no model, but: {printable(kind, 60)}", file=first)
        experts = bool(pairs.get(f"{name}.expert_count"))
        if row := next((row for row in architectures_of(name, experts) if self._has_marks(row)), None):
            return row
        what = f"of the architecture {printable(name, 60)}{' with experts' if experts else ''}"
        hint = f"start from the original checkpoint; GGUF is read of {', '.join(known_architectures())}"
        raise CheckpointError(f"{what}, whose names and changed values are not known here", file=first, hint=hint)

    def _has_marks(self, row: GgufArchitecture) -> bool:
        ends = tuple(f".{mark}" for mark in row.marks)
        return all(
            self._model.pairs.get(f"{row.name}.{mark}") is True
            or any(name.endswith(end) for name in self._model.tensors)
            for mark, end in zip(row.marks, ends, strict=True)
        )

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
        if (found := self._in_block(name)) and found[1] in self._row.block:
            return False
        return name in self._constants or (name.endswith((_MULTIPLIER, _OF_INPUTS)) and owner in self._model.tensors)

    def _weights(self, file: SourceFile, tensor: GgufTensor) -> Iterator[GgufWeight]:
        if (found := self._in_block(tensor.name)) and (whole := self._whole(found[1])):
            name, owns = whole
            if owns[0] == found[1]:
                yield self._joined(f"{self._row.blocks}.{found[0]}.{name}", found[0], owns)
            return
        module, name = self._named(file, tensor)
        if "{}" not in name:
            yield self._weight(file, tensor, module, name, tensor.shape)
            return
        for expert in range(self._height(file, tensor)):
            yield self._weight(file, tensor, module, name.format(expert), tensor.shape[1:], expert)

    def _whole(self, own: str) -> tuple[str, tuple[str, ...]] | None:
        """(A tensor of a block that llama.cpp has in parts, these), where `own` is one of them."""
        parts = {name: owns for name, (_, owns) in self._row.rejoined.items()}
        return next(((name, owns) for name, owns in {**self._row.joined, **parts}.items() if own in owns), None)

    def _height(self, file: SourceFile, tensor: GgufTensor) -> int:
        """How many experts a stack holds."""
        if len(tensor.shape) != 3 or not all(tensor.shape):
            raise CheckpointError("should be a stack of experts [experts, out, in]", file=file.path, tensor=tensor.name)
        return tensor.shape[0]

    def _joined(self, name: str, block: int, owns: Sequence[str]) -> GgufWeight:
        """A weight of transformers that llama.cpp has in several tensors, which are called `owns` in a block."""
        found = [self._part(f"blk.{block}.{own}") for own in owns]
        if word := next((word for word, parts in self._row.rejoined.values() if parts == tuple(owns)), ""):
            sources = [
                self._weight(*one, own.rpartition(".")[0], name, one[1].shape)
                for one, own in zip(found, owns, strict=True)
            ]
            obstacle = next((part.obstacle for part in sources if part.obstacle), "")
            return GgufWeight(name, REJOINED[word](name, [part.source for part in sources], self.config), obstacle)
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
        experts = [[expert.source for expert in stack] for stack in stacks]
        obstacle = next((expert.obstacle for stack in stacks for expert in stack if expert.obstacle), "")
        source = joined_stack(name, experts, family_of(self.config), self.config, turned=self._row.turned)
        return GgufWeight(name, source, obstacle)

    def _part(self, name: str) -> tuple[SourceFile, GgufTensor]:
        if name not in self._model.tensors:
            raise CheckpointError("is missing: this is no whole model", file=self._model.first, tensor=name)
        return self._model.tensors[name]

    def _in_block(self, name: str) -> tuple[int, str, str, str] | None:
        """(number of the block, name in it, module, leaf) of a tensor of a block that the model has."""
        found = _IN_BLOCK.fullmatch(name)
        if found is None or int(found[1]) >= self.config["num_hidden_layers"] + self._behind:
            return None
        return int(found[1]), found[2], found[3], found[4] or ""

    def _named(self, file: SourceFile, tensor: GgufTensor) -> tuple[str, str]:
        """(llama.cpp's name of the module, the name of the weight), "{}" in it for the number of an expert."""
        names, outside = self._row.block, self._row.outside
        if found := self._in_block(tensor.name):
            block, own, module, leaf = found
            place, further = self._place(block)
            if own in further or module in further:
                return module, further[own] if own in further else f"{further[module]}.{leaf}"
            if own in names:
                return module, f"{place}.{names[own]}"
            if module in names and leaf in ("weight", "bias"):
                return module, f"{place}.{names[module]}.{leaf}"
        elif (other := _OUT_OF_BLOCK.fullmatch(tensor.name)) and other[1] in outside:
            return other[1], f"{outside[other[1]]}.{other[2]}"
        what = f"no part of {self._row.name} as it is known here, so the model would not be the same without it"
        raise CheckpointError(what, file=file.path, tensor=tensor.name)

    def _place(self, block: int) -> tuple[str, Mapping[str, str]]:
        """Where transformers has a block, and what it calls modules that only blocks behind the others have."""
        over = block - int(self.config["num_hidden_layers"])
        if over < 0:
            return f"{self._row.blocks}.{block}", {}
        if self._row.behind == self._row.blocks:
            place = f"{self._row.blocks}.{block}"
            return place, {own: f"{place}.{name}" for own, name in NEXT.items()}
        return f"{self._row.behind}.layers.{over}", {
            own: f"{self._row.behind}.{name}" for own, name in NEXT_ONCE.items() if not over
        }

    def _weight(
        self,
        file: SourceFile,
        tensor: GgufTensor,
        module: str,
        name: str,
        shape: tuple[int, ...],
        expert: int | None = None,
    ) -> GgufWeight:
        part = Part(file, tensor, module, shape, expert)
        factor = self._multiplier(file, tensor, expert or 0, part.count)
        return weight_of(name, part, self._row, self.config, factor)

    def _multiplier(self, file: SourceFile, tensor: GgufTensor, place: int, count: int) -> Stored | None:
        name = tensor.name.removesuffix(".weight") + _MULTIPLIER
        found = self._model.tensors.get(name)
        if found is None:
            return None
        if not self._is_beside(name):
            if tensor.type.name == "NVFP4":
                what = f"NVFP4 whose tensor scales are multiplied with another part of the model, {printable(name)}"
                raise CheckpointError(what, file=file.path, tensor=tensor.name)
            return None
        owner, scale = found
        if tensor.type.name != "NVFP4" or scale.type.name != "F32" or scale.shape not in ((count,), ()):
            what = f"{tensor.type.name} {printable(list(tensor.shape))} beside {printable(name)}, which does not fit it"
            raise CheckpointError(what, file=file.path, tensor=tensor.name)
        return Stored(owner, Tensor(name, "F32", (1,), scale.start + 4 * place, 4))

    def _rope_factors(self, name: str) -> Any:
        """What frequencies are divided by."""
        file, tensor = self._part(name)
        part = Part(file, tensor, name, tensor.shape)
        factors = part.short()
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise part.refuse("malformed: frequencies are divided by positive numbers")
        return factors
