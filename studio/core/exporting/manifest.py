"""The manifest of an export: what made it, from what, by which plan, digests of shards, errors of layers.

Schema 2. Schema 1 had the digests of tensors instead, and is still read.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kernels
from studio.core.errors import CheckpointError
from studio.core.exporting.contents import MANIFEST, PROGRAM
from studio.core.exporting.layer_lines import LayerLines, with_layers
from studio.core.exporting.records import Entry, Record, entries, without_statistics
from studio.core.layouts import FOLDERS, Layout
from studio.core.names import printable
from studio.core.planning.plan import Plan
from studio.core.results import LayerResult

SCHEMA = 2
_READ = (1, SCHEMA)


def manifest(plan: Plan, layout: Layout, source: Mapping[str, Any], records: Sequence[Record]) -> Iterator[bytes]:
    """The manifest as JSON, with the lines of the records; equal runs give equal bytes."""
    head = {
        "schema": SCHEMA,
        "program": {"name": PROGRAM, "version": kernels.__version__},
        "layout": layout.name,
        "conventions": {
            "tensor_scale": layout.scale_convention,
            "codes": "two E2M1 codes per byte, the even element in the low nibble; 8-bit codes one per byte",
            "scales": "one E4M3 byte per 16 (NVFP4), one E8M0 byte per 32 (MX), row-major, not swizzled",
            "decode": "weight = code x (block scale x g), float32; affine: code x scale + bias",
            "input_scale": "by the convention of the tensor scale, for the largest input of a layer; inputs in NVFP4",
            "layers": "the name of a matrix, or part, is that of its layer, or matrix, and its `tail`; "
            "rows and columns are those of the layer, a part is its whole tensor, unless it says otherwise; "
            "lift: what is stored is the layer times 2**lift, and other layers undo it; errors are those of the layer; "
            "scale_counts: how many blocks have each scale byte, from `first` on",
        },
        "source": dict(source),
        "plan": plan.to_json(),
        "shards": {record.shard: {"nbytes": record.nbytes, "sha256": record.sha256} for record in records},
    }
    return with_layers(head, (without_statistics(line) for record in records for line in record.lines.lines()))


class Manifest:
    """A manifest read from an export, as far as verification needs it; its layers are read anew when asked for."""

    def __init__(self, folder: Path) -> None:
        path = folder / MANIFEST
        if not path.exists():
            what = f"holds no {MANIFEST}: it was not exported by NVFP4 Studio, or the export is not complete"
            raise CheckpointError(what, file=folder)
        self._lines = LayerLines(path)
        data = self._lines.head
        if data.get("schema") not in _READ:
            what = f"schema {printable(data.get('schema'))}, this version reads schema {_READ[0]} and {_READ[1]}"
            raise CheckpointError(what, file=path)
        try:
            self.layout = FOLDERS[data["layout"]]
            self.plan: dict[str, Any] = dict(data["plan"])
            self.shards = tuple(str(shard) for shard, _ in data["tensors" if data["schema"] == 1 else "shards"].items())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"malformed manifest: {type(error).__name__} {error}", file=path) from None

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """What it tells of each layer, or of some, in order. Raises CheckpointError when it is malformed."""
        return entries(self._lines, start, stop)


def exported_results(folder: Path) -> list[LayerResult]:
    """The results in the manifest of an export, without statistics. Raises CheckpointError when there is none."""
    return [entry.result for entry in Manifest(folder).entries()]
