"""Records: what is known of a finished shard, a file beside it; its lines, in order, are those of the manifest."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from sys import intern
from typing import Any

from studio.core.counts import Counts
from studio.core.errors import CheckpointError, UnreadableError
from studio.core.exporting.layer_lines import LayerLines, layer_line, with_layers
from studio.core.exporting.readback import StoredMatrix
from studio.core.exporting.shards import Item, Shard
from studio.core.layouts.placement import Placement, stored_nbytes
from studio.core.names import printable
from studio.core.results import LayerResult, Statistics, finite
from studio.core.typed import typed

_DEFAULTS = {field.name: field.default for field in fields(LayerResult)}
_USUAL = {"reason": ""} | {name: value for name, value in _DEFAULTS.items() if value is not MISSING}
"""What a line leaves out of a result."""

RECORD = ".safetensors.json"
"""How the names of records end: that of their shard, and ".json"."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a record knows of a layer: its result, and in which shard its matrices, or its kept bytes, lie where."""

    shard: str
    result: LayerResult
    matrices: tuple[StoredMatrix, ...]
    kept: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A finished shard: its size in bytes, its SHA-256, and the file that tells its layers."""

    shard: str
    nbytes: int
    sha256: str
    lines: LayerLines

    @property
    def path(self) -> Path:
        """The file."""
        return self.lines.path

    def results(self) -> Iterator[LayerResult]:
        """The results of its layers, in order. Raises CheckpointError when the record is damaged."""
        return (entry.result for entry in entries(self.lines))


def write_record(shard: Shard, digest: str, results: Mapping[str, LayerResult]) -> Iterator[bytes]:
    """The record of a shard whose bytes have this SHA-256."""
    head = {"shard": shard.name, "nbytes": shard.nbytes, "sha256": digest}
    return with_layers(head, (layer_line(_layer(shard.name, item, results)) for item in shard.items))


def read_record(path: Path) -> Record | None:
    """The record in a file; None when there is none, or it is damaged. Raises UnreadableError."""
    try:
        lines = LayerLines(path)
        shard, nbytes, digest = (lines.head[key] for key in ("shard", "nbytes", "sha256"))
    except UnreadableError:
        raise
    except (CheckpointError, KeyError):
        return None
    whole = shard == path.name.removesuffix(".json") and type(nbytes) is int and isinstance(digest, str)
    return Record(shard, nbytes, digest, lines) if whole else None


def _layer(shard: str, item: Item, results: Mapping[str, LayerResult]) -> dict[str, Any]:
    """All but what follows from the rest: a part is whole unless it has an offset, names begin with the layer's."""
    layer = item.choice.layer
    matrices = [
        {
            **_named(m.name, layer.name),
            **({} if (m.rows, m.columns) == layer.shape else {"rows": m.rows, "columns": m.columns}),
            "parts": [_part_json(part, m.name) for part in parts],
        }
        for m, parts in item.matrices
    ]
    where = {"matrices": matrices, "kept": [_part_json(part, layer.name) for part in item.kept]}
    told = {
        **result_to_json(results[layer.name]),
        "shard": shard,
        **{key: value for key, value in where.items() if value},
    }
    statistics = told.pop(STATISTICS, None)
    return told | ({STATISTICS: statistics} if statistics else {})


def _named(name: str, prefix: str) -> dict[str, str]:
    """A name by what it adds to `prefix`, where it begins with that."""
    if not name.startswith(prefix):
        return {"name": name}
    return {"tail": name.removeprefix(prefix)} if name != prefix else {}


def _part_json(part: Placement, prefix: str) -> dict[str, Any]:
    where = {"nbytes": part.nbytes, "offset": part.offset} if part.nbytes != part.whole else {}
    named = _named(part.name, prefix)
    return {"content": part.content, **named, "dtype": part.dtype, "shape": part.shape, **where}


def result_to_json(result: LayerResult) -> dict[str, Any]:
    """A result without fields of their default value, and with its relative error, if that is known."""
    told = {name: getattr(result, name) for name in _DEFAULTS}
    data = {name: value for name, value in told.items() if value != _DEFAULTS[name]}
    data |= {"scale_counts": result.scale_counts.to_json()} if result.scale_counts else {}
    data |= {"rel_err": result.rel_err} if result.measured else {}
    if known := result.statistics:
        of_weights = {name: finite(getattr(known, name)) for name in Statistics.__dataclass_fields__}
        data[STATISTICS] = {**of_weights, "histogram": known.histogram.to_json()}
    return {key: finite(value) for key, value in data.items() if value or key != "reason"}


STATISTICS = "statistics"
_MARK = b',"%s":' % STATISTICS.encode()


def without_statistics(line: bytes) -> bytes:
    """The line of a layer without the distribution of its weights, which comes last."""
    start, found, _ = line.rpartition(_MARK)  # no text in it can hold the mark: its quotes would be escaped
    return start + b"}" if found else line


def entries(lines: LayerLines, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
    """What a record or a manifest tells of each layer, or of some. Raises CheckpointError when it is malformed."""
    for layer in lines.layers(start, stop):
        try:
            yield _entry(layer)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"malformed manifest: {type(error).__name__} {printable(error)}"
            raise CheckpointError(what, file=lines.path) from None


def _entry(layer: Mapping[str, Any]) -> Entry:
    result = result_from_json(layer)
    matrices = tuple(_matrix(found, result) for found in layer.get("matrices", ()))
    kept = tuple(_part(found, result.name) for found in layer.get("kept", ()))
    return Entry(str(layer["shard"]), result, matrices, kept)


def _matrix(data: Mapping[str, Any], result: LayerResult) -> StoredMatrix:
    name = _name(data, result.name)
    rows, columns = (data["rows"], data["columns"]) if "rows" in data else result.shape
    parts = tuple(_part(part, name) for part in data["parts"])
    return typed(StoredMatrix(name, rows, columns, result.format, parts))


def _name(data: Mapping[str, Any], prefix: str) -> str:
    return data["name"] if "name" in data else prefix + data.get("tail", "")  # type: ignore[no-any-return]


def _part(data: Mapping[str, Any], prefix: str) -> Placement:
    shape = tuple(data["shape"])
    nbytes = data["nbytes"] if "nbytes" in data else stored_nbytes(data["dtype"], shape)
    return typed(Placement(data["content"], _name(data, prefix), data["dtype"], shape, nbytes, data.get("offset", 0)))


def result_from_json(layer: Mapping[str, Any]) -> LayerResult:
    """The result that `result_to_json` described; for others KeyError, TypeError, ValueError or AttributeError."""
    data = {name: layer[name] if name in layer else _USUAL[name] for name in _DEFAULTS}
    data |= {key: tuple(data[key]) for key in ("shape", "tensor_scales", "input_scales")}
    data |= {key: intern(data[key]) for key in ("role", "dtype", "format", "method", "guide")}
    data["scale_counts"] = _counts(data["scale_counts"])
    if known := data["statistics"]:
        told: dict[str, Any] = {key: math.nan if value is None else value for key, value in known.items()}
        told |= {"quantiles": tuple(known["quantiles"]), "histogram": _counts(known["histogram"])}
        data["statistics"] = Statistics(**told)
    return typed(LayerResult(**data), signed=("lift",))


def _counts(data: Any) -> Counts:
    """Counts as they are written, or one by one, as schema 1 has them."""
    if isinstance(data, Counts):
        return data
    return Counts(data) if isinstance(data, list) else Counts.from_json(data)
