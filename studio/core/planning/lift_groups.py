"""Groups of tensors between which powers of two may move: what reads what, and why some of it is left alone."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from studio.core.architectures.family import pattern
from studio.core.architectures.flows import Flow, flow_of
from studio.core.architectures.generic import BLOCK
from studio.core.model import Layer, Model
from studio.core.names import printable

_DTYPES = ("BF16", "F32")
_BLOCK = re.compile(BLOCK)
_PARTS = ("vision", "audio", "projector", "draft")
_OUTSIDE = (*_PARTS, "embedding", "head")
_HALF = ("float16", "half", "fp16")
_TOO_FEW = "too few exponents for activations that are multiplied, too"
_BUFFERS = r".*rotary_emb\.inv_freq"


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix, with its biases, and the one that reads its outputs."""

    giver: Layer
    biases: tuple[Layer, ...]
    reader: Layer


@dataclass(frozen=True, slots=True)
class Group:
    """A norm (weight and bias), all matrices that read it, and the products that begin with one of these."""

    norm: tuple[Layer, ...]
    readers: tuple[Layer, ...]
    products: tuple[Product, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All tensors that a lift may change."""
        given = chain.from_iterable((*product.biases, product.reader) for product in self.products)
        return (*self.norm, *self.readers, *given)


def lift_groups(model: Model) -> tuple[tuple[Group, ...], dict[str, str]]:
    """What may be lifted together, and the reason for every other matrix of the model: layer name -> why not."""
    flow = flow_of(model.config)
    why = _refusal(model, flow)
    if why or flow is None:
        return (), {layer.name: why for layer in model.layers if layer.matrices}
    groups: list[Group] = []
    refused: dict[str, str] = {}
    clipped = any(_says(model, flow.clipped))
    heads = [layer for layer in model.layers if layer.role == "head" and layer.matrices]
    parts = [(inside.values(), _block_groups(flow, inside, clipped=clipped)) for inside in _blocks(model)]
    for layers, found in [*parts, (heads, _head_group(flow, model, heads))]:
        try:
            groups += list(found)
        except _RefusedError as error:
            refused |= {layer.name: str(error) for layer in layers}
    reached = {layer.name for group in groups for layer in group.layers}
    for layer in model.layers:
        if layer.matrices and layer.name not in reached:
            refused.setdefault(layer.name, "neither a norm alone nor a matrix alone gives what it reads")
    return tuple(groups), refused


class _RefusedError(Exception):
    """Why nothing here can be lifted."""


def _refusal(model: Model, flow: Flow | None) -> str:
    """Why nothing of a model can be lifted, "" when something may be."""
    if flow is None:
        return "what its tensors read is not known for this architecture"
    if any(str(said).removeprefix("torch.") in _HALF for said in _says(model, "dtype torch_dtype")):
        return f"config.json says float16, which has {_TOO_FEW}"
    return flow.refused


def _says(model: Model, keys: str) -> Iterator[Any]:
    """What any section of config.json says under one of the keys, when it is not nothing."""
    sections = [model.config, *(value for value in model.config.values() if isinstance(value, dict))]
    return (section[key] for section in sections for key in keys.split() if section.get(key))


def _blocks(model: Model) -> list[dict[str, Layer]]:
    """The decoder blocks: name within the block -> layer."""
    found: dict[str, dict[str, Layer]] = defaultdict(dict)
    for layer in model.layers:
        if layer.role not in _PARTS and (start := _BLOCK.search(layer.name)):
            found[layer.name[: start.end()]][layer.name[start.end() :]] = layer
    return list(found.values())


def _block_groups(flow: Flow, inside: Mapping[str, Layer], *, clipped: bool) -> Iterator[Group]:
    """The groups of a block. Raises _RefusedError when it holds a tensor that the row does not know, or lacks one."""
    owner = {name: norm for name in inside for norm, readers in flow.norms if pattern(readers).fullmatch(name)}
    _check_known(flow, inside, owner)
    products = {} if clipped else dict(_products(flow, inside))
    for norm, _ in flow.norms:
        if readers := [name for name, its in owner.items() if its == norm]:
            yield _group(_with_bias(_only(norm, inside, readers[0]), inside), readers, products, inside)


def _check_known(flow: Flow, inside: Mapping[str, Layer], owner: Mapping[str, str]) -> None:
    read = {reader for _, reader in _pairs(flow, inside)}
    known = pattern("|".join(filter(None, (*(norm for norm, _ in flow.norms), flow.beside, _BUFFERS))))
    for name in inside:
        base = name if known.fullmatch(name) else name.removesuffix(".bias")
        if not (base in owner or base in read or known.fullmatch(base)):
            raise _RefusedError(f"its block holds {printable(name)}, of which it is not known what it reads")


def _pairs(flow: Flow, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(matrix, the name of what reads it) for the products of a row."""
    for name in names:
        for source, template in flow.products:
            if found := pattern(source).fullmatch(name):
                yield name, found.expand(template)


def _products(flow: Flow, inside: Mapping[str, Layer]) -> Iterator[tuple[str, Product]]:
    for name, reader in _pairs(flow, inside):
        if reader in inside:
            giver, *biases = _with_bias(name, inside)
            yield name, Product(giver, tuple(biases), inside[reader])


def _with_bias(name: str, inside: Mapping[str, Layer]) -> tuple[Layer, ...]:
    return tuple(inside[key] for key in (name, f"{name}.bias") if key in inside)


def _only(norm: str, inside: Iterable[str], reader: str) -> str:
    """The name of the norm in front of a reader, which its block must hold."""
    found = [name for name in inside if pattern(norm).fullmatch(name)]
    if len(found) != 1:
        plain = norm.replace("\\", "")
        raise _RefusedError(f"its block has no {plain} of its own in front of {printable(reader)}")
    return found[0]


def _group(
    norm: tuple[Layer, ...], readers: Iterable[str], products: Mapping[str, Product], inside: Mapping[str, Layer]
) -> Group:
    given = tuple(products[name] for name in readers if name in products)
    group = Group(norm, tuple(inside[name] for name in readers), given)
    for layer in group.layers:
        if layer.dtype == "F16" or layer.kept_dtype == "F16":
            raise _RefusedError(f"{printable(layer.name)} is in float16, which has {_TOO_FEW}")
        if layer.dtype not in _DTYPES or layer.kept_dtype not in _DTYPES:
            raise _RefusedError(f"{printable(layer.name)} is in {layer.dtype}, which can not be multiplied")
    return group


def _head_group(flow: Flow, model: Model, heads: list[Layer]) -> Iterator[Group]:
    """The last norm and the head, when it is known that nothing else reads what that norm gives."""
    if not heads:
        return
    if model.is_tied:
        raise _RefusedError("it is the embedding, too")
    if any(layer.role == "draft" for layer in model.layers):
        raise _RefusedError("the modules that draft tokens read the same norm")
    outside = {layer.name: layer for layer in model.layers if not _BLOCK.search(layer.name)}
    norms = [name for name in outside if name.rpartition(".")[2] == flow.final and outside[name].role == "norm"]
    others = (layer for layer in outside.values() if layer.matrices and layer.role not in _OUTSIDE)
    if len(heads) > 1 or len(norms) != 1 or any(others):
        raise _RefusedError("it is not known what else reads the last norm")
    yield _group(_with_bias(norms[0], outside), [heads[0].name], {}, outside)
