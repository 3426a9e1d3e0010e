"""The manifest of an export: what made it, from what, by which plan, and the digest and error of every tensor."""

import builtins
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import kernels
from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError
from studio.core.exporting.contents import MANIFEST, PROGRAM
from studio.core.exporting.readback import StoredMatrix
from studio.core.exporting.shards import Item, Shard
from studio.core.layouts import LAYOUTS, Layout
from studio.core.layouts.documents import json_document
from studio.core.layouts.placement import Placement
from studio.core.names import printable
from studio.core.planning.plan import Plan
from studio.core.results import LayerResult

Record = TypeVar("Record", Placement, StoredMatrix, LayerResult)

SCHEMA = 1


def manifest(
    plan: Plan,
    layout: Layout,
    source: Mapping[str, Any],
    shards: Sequence[Shard],
    tensors: Mapping[str, Mapping[str, str]],
    results: Mapping[str, LayerResult],
) -> Iterator[bytes]:
    """The manifest as JSON, a line per layer; equal runs give equal bytes. `tensors`: SHA-256 by shard and name."""
    whole = json_document(
        {
            "schema": SCHEMA,
            "program": {"name": PROGRAM, "version": kernels.__version__},
            "layout": layout.name,
            "conventions": {
                "tensor_scale": layout.scale_convention,
                "codes": "two E2M1 codes per byte, the even element in the low nibble; 8-bit codes one per byte",
                "scales": "one E4M3 byte per 16 (NVFP4), one E8M0 byte per 32 (MX), row-major, not swizzled",
                "decode": "weight = code x (block scale x g), float32; affine: code x scale + bias",
            },
            "source": dict(source),
            "plan": plan.to_json(),
            "tensors": tensors,
            "layers": [],
        }
    )
    head, _, tail = whole.rpartition(b"]")
    yield head
    mark = "\n    "
    for shard in shards:
        for item in shard.items:
            layer = json.dumps(_layer(shard, item, results), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            yield (mark + layer).encode()
            mark = ",\n    "
    yield b"\n  ]" + tail


def _layer(shard: Shard, item: Item, results: Mapping[str, LayerResult]) -> dict[str, Any]:
    matrices = [
        {
            "name": matrix.name,
            "rows": matrix.rows,
            "columns": matrix.columns,
            "parts": [_without_defaults(part) for part in parts],
        }
        for matrix, parts in item.matrices
    ]
    result = results[item.choice.layer.name].to_json()
    result.pop("statistics")
    kept = [_without_defaults(part) for part in item.kept]
    return {**result, "shard": shard.name, "matrices": matrices, "kept": kept}


def _without_defaults(part: Placement) -> dict[str, Any]:
    data = asdict(part)
    return data if data["offset"] else {key: value for key, value in data.items() if key != "offset"}


class Manifest:
    """A manifest read from an export; attributes are checked as far as verification needs them."""

    def __init__(self, folder: Path) -> None:
        path = folder / MANIFEST
        if not path.exists():
            what = f"holds no {MANIFEST}: it was not exported by NVFP4 Studio, or the export is not complete"
            raise CheckpointError(what, file=folder)
        data = read_object(path, limit=1 << 30)
        if data.get("schema") != SCHEMA:
            raise CheckpointError(f"schema {data.get('schema')}, this version reads schema {SCHEMA}", file=path)
        try:
            self.layout = LAYOUTS[data["layout"]]
            self.source: dict[str, Any] = data["source"]
            self.tensors: dict[str, dict[str, str]] = data["tensors"]
            self.layers: list[dict[str, Any]] = data["layers"]
            self.matrices = {layer["name"]: _matrices(layer) for layer in self.layers}
            self.kept = {layer["name"]: tuple(map(_part, layer["kept"])) for layer in self.layers}
            self.results = {layer["name"]: _result(layer) for layer in self.layers}
            self.shard_of = {layer["name"]: str(layer["shard"]) for layer in self.layers}
            self.stored_in = {shard: frozenset(names) for shard, names in self.tensors.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"malformed manifest: {type(error).__name__} {error}", file=path) from None


def _matrices(layer: dict[str, Any]) -> list[StoredMatrix]:
    return [
        _typed(StoredMatrix(m["name"], m["rows"], m["columns"], layer["format"], tuple(map(_part, m["parts"]))))
        for m in layer["matrices"]
    ]


def _part(data: dict[str, Any]) -> Placement:
    return _typed(Placement(**{**data, "shape": tuple(data["shape"])}))


def _result(layer: dict[str, Any]) -> LayerResult:
    return _typed(LayerResult.from_json({**layer, "statistics": None}))


def _typed(record: Record) -> Record:
    """`record` of a dataclass; raises TypeError for a field that is not of its declared type, or below zero."""
    for name, kind in get_type_hints(type(record)).items():
        value = getattr(record, name)
        if not _fits(value, kind):
            raise TypeError(f"{name} is {printable(value)}")
    return record


def _fits(value: Any, kind: Any) -> bool:
    match get_origin(kind):
        case builtins.tuple:
            return all(_fits(item, get_args(kind)[0]) for item in value)
        case typing.Literal:
            return value in get_args(kind)
        case types.UnionType:
            return any(_fits(value, choice) for choice in get_args(kind))
    if kind in (int, float):
        return type(value) in (int, kind) and value >= 0
    return isinstance(value, kind)
