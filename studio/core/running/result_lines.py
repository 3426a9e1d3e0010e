"""ResultLines: measured results as lines of text, and back for a checkpoint whose tensors are still the same."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cached_property
from hashlib import blake2b
from typing import Any

from kernels import FORMATS, METHODS
from studio.core.counts import Counts
from studio.core.model import Layer, Model
from studio.core.planning.plan import Choice, choose_format
from studio.core.results import LayerResult, Statistics, result_of

Known = tuple[Choice, tuple[str, ...], LayerResult]
"""A choice, the layers that share its tensor scale, and what was measured."""

_STATISTICS = tuple(one.name for one in fields(Statistics) if one.name not in ("quantiles", "histogram"))
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class ResultLines:
    """The results of one checkpoint as lines: JSON, without what the checkpoint itself says of a layer.

    A line holds a digest of where the bytes of the layer and of those that share its tensor scale come from: file size
    and modification time, and the tensor's place, dtype and shape. The file's path is no part of it, so that results
    stay with a folder that is moved.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    @cached_property
    def fingerprint(self) -> str:
        """Names, sizes and modification times of all files, as a digest."""
        files = sorted((file.path.name, file.fingerprint.size, file.fingerprint.version) for file in self._model.files)
        return _digest(repr(files))

    @cached_property
    def _contents(self) -> dict[str, str]:
        return {layer.name: self._content(layer) for layer in self._model.layers}

    def _content(self, layer: Layer) -> str:
        file, tensor = layer.stored.file.fingerprint, layer.tensor
        place = (file.size, file.version, tensor.name, tensor.dtype, tensor.shape, tensor.start)
        beside = self.fingerprint if layer.nbytes != tensor.nbytes else ""  # scales may lie in any file
        first = layer.matrices[0] if layer.matrices else None
        order = (len(layer.matrices), first.row_step, first.column_step) if first else ()
        return _digest(repr((place, beside, layer.source.meaning, layer.shape, order)))

    def _content_with(self, name: str, peers: Sequence[str]) -> str:
        alone = self._contents[name]
        return _digest(" ".join([alone, *(self._contents[peer] for peer in peers)])) if peers else alone

    def line(self, choice: Choice, peers: Sequence[str], result: LayerResult) -> str:
        """What was measured for `choice`, whose tensor scale is shared with the layers called `peers`."""
        assert choice.recipe is not None
        known = result.statistics
        said: dict[str, Any] = {
            "layer": result.name,
            "content": self._content_with(result.name, peers),
            "format": choice.format,
            "exponent": choice.recipe.exponent,
            "method": choice.method,
            "guide": _guided_by(choice),
            "peers": list(peers),
            "errors": [result.sum_squares, result.sum_error, result.max_error],
            "vanished": [result.vanished, result.rows, result.vanished_rows],
            "tensor_scales": list(result.tensor_scales),
            "scale_counts": result.scale_counts.to_json(),
        }
        if known is not None:
            said["weights"] = {key: getattr(known, key) for key in _STATISTICS}
            said["weights"] |= {"quantiles": list(known.quantiles), "histogram": known.histogram.to_json()}
        return _encode(said)

    def known(self, line: str | bytes) -> Known | None:
        """What a line says; None when its layer is gone or has other bytes now. Raises ValueError for damage."""
        try:
            said = json.loads(line)
            name, peers = said["layer"], tuple(said["peers"])
            if not self._is_same(name, peers, said["content"]):
                return None
            choice = self._choice(name, said["format"], said["exponent"], said.get("method", "max"))
            known = choice.recipe is not None and _guided_by(choice) == said.get("guide", "")
            return (choice, peers, _result(choice, said)) if known else None
        except (KeyError, TypeError, AttributeError, IndexError, MemoryError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a result: {error}") from None

    def holds(self, line: str | bytes) -> bool:
        """True for a line of a layer that still has the same bytes, whatever is known of its inputs now."""
        try:
            said = json.loads(line)
            return self._is_same(said["layer"], tuple(said["peers"]), said["content"])
        except (ValueError, KeyError, TypeError, RecursionError, MemoryError):
            return False

    def _is_same(self, name: str, peers: tuple[str, ...], content: str) -> bool:
        there = all(one in self._contents for one in (name, *peers))
        return there and self._content_with(name, peers) == content

    def _choice(self, name: str, format_name: str, exponent: str, method: str) -> Choice:
        if format_name not in FORMATS or exponent not in ("ceil", "floor") or method not in METHODS:
            raise ValueError(f"not a recipe: {format_name}, {exponent}, {method}")
        return choose_format(self._model.by_name[name], format_name, exponent, method)


def _guided_by(choice: Choice) -> str:
    return choice.guide.meaning if choice.guide else ""


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _result(choice: Choice, said: dict[str, Any]) -> LayerResult:
    weights = said.get("weights")
    squares, error, largest = _numbers(said["errors"], float)
    vanished, rows, vanished_rows = _numbers(said["vanished"], int)
    return result_of(
        choice,
        sum_squares=squares,
        sum_error=error,
        max_error=largest,
        vanished=vanished,
        rows=rows,
        vanished_rows=vanished_rows,
        tensor_scales=tuple(_numbers(said["tensor_scales"], float)),
        scale_counts=Counts.from_json(said["scale_counts"]),
        statistics=_statistics(weights) if weights is not None else None,
    )


def _statistics(said: dict[str, Any]) -> Statistics:
    plain = {key: said[key] for key in _STATISTICS}
    return Statistics(**plain, quantiles=tuple(said["quantiles"]), histogram=Counts.from_json(said["histogram"]))


def _numbers(values: Sequence[Any], kind: Callable[[Any], Any]) -> list[Any]:
    return [kind(value) for value in values]
