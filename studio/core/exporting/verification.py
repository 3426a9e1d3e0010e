"""verify: an export is whole, decodes, and says the truth about its errors; what others wrote decodes at least."""

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Protocol

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.files import SourceFile, read_small
from studio.core.containers.links import in_snapshot
from studio.core.containers.safetensors import Header, read_header
from studio.core.errors import CheckpointError
from studio.core.events import Event, Finished, LayerDone, Progress, Started, Warned
from studio.core.exporting.checks import Check, check_layers, check_parts
from studio.core.exporting.contents import LARGEST_SUMS, MANIFEST, SUMS, check_finished, left_over, read_sums
from studio.core.exporting.foreign import compare_with_another, opened_foreign, verify_foreign
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.readback import hashing, sha256
from studio.core.exporting.records import Entry
from studio.core.model import Layer, Model
from studio.core.names import printable
from studio.core.outcome import Outcome
from studio.core.planning.lifting import unbalanced
from studio.core.running.engine import Engine
from studio.core.running.packed_results import SlimResults
from studio.core.running.spread import Part, PartDone, Spread, in_order
from studio.core.running.tasks import Tasks
from studio.core.stores.store_path import is_remote

_LOADED = ("config.json", ".safetensors", ".safetensors.index.json")
"""How the names of files end that a runtime takes from a folder, listed or not."""


def verify(engine: Engine, place: Path, source: Model | None = None, spread: Spread | None = None) -> Iterator[Event]:
    """Verify an export of ours: every byte by its digest, every weight by decoding it, errors against `source`.

    Where the export was made from another checkpoint of the same model (one that it was converted from), its weights
    are compared with those of `source`. A checkpoint of others is verified as far as that goes, see
    `foreign.verify_foreign`. `spread`, if there is one, has opened the same, and does it. Raises CheckpointError naming
    the file or tensor at fault.
    """
    there = in_snapshot(place)
    check_finished(there)
    verified = _verify_ours if is_ours(there) else verify_foreign
    return verified(engine, there, source, spread)


class ToVerify(Protocol):
    """What a process has opened to verify it."""

    @property
    def source(self) -> Model | None:
        """The checkpoint to compare with."""
        ...

    @property
    def contents(self) -> Sequence[SourceFile]:
        """The files that are verified."""
        ...


def opened_to_verify(place: Path, source: Model | None) -> ToVerify:
    """What tasks of `verify` work on. Raises CheckpointError."""
    there = in_snapshot(place)
    return _opened(there, source) if is_ours(there) else opened_foreign(there, source)


def is_ours(place: Path) -> bool:
    """True for a folder that says that it is an export of ours: it, or its snapshot, has our manifest, or lists it."""
    there = in_snapshot(place)
    if (there / MANIFEST).exists():
        return True
    try:
        return MANIFEST in read_sums(there / SUMS, read_small(there / SUMS, LARGEST_SUMS))
    except CheckpointError:
        return False


def _verify_ours(engine: Engine, folder: Path, source: Model | None, spread: Spread | None) -> Iterator[Event]:
    export = _opened(folder, source)
    try:
        size = _checked_size(export)
        yield from map(Warned, strangers(folder, export.expected))
        yield Started("verify", sum(file.size for file in export.contents) + size.work, size.layers, folder)
        results = SlimResults()
        found = _elsewhere(export, size, spread, results) if spread else _here(engine, export, results)
        yield from (event for event in found if not (export.other and isinstance(event, LayerDone)))
    finally:
        export.close()
    if export.other:
        yield from compare_with_another(engine, folder, export.other)
    else:
        yield Finished(Outcome(results, str(folder)))


def _here(engine: Engine, export: "_Export", results: SlimResults) -> Iterator[Event]:
    done = 0
    with Tasks(engine.pool) as tasks:
        hashes = [(name, tasks.submit(sha256, file)) for name, file in export.files.items()]
        for name, future in hashes:
            _check_digest(export.files[name], future.result(), export.expected[name])
            done += export.files[name].size
            yield Progress("verify", done, name)
    for shard, header, entries in export.by_shard():
        checks = [export.check(entry) for entry in entries]
        found = check_layers(engine, export.files[shard], header, export.manifest.layout, checks)
        for (layer, nbytes), check in zip(found, checks, strict=True):
            done += nbytes
            yield Progress("verify", done, layer)
            yield _told(check, results)


def _told(check: Check, results: SlimResults) -> LayerDone:
    results.append(check.result)
    return LayerDone(check.result)


def _elsewhere(export: "_Export", size: "_Size", spread: Spread, results: SlimResults) -> Iterator[Event]:
    """The same by `spread`; of all that is wrong, it tells what is told here.

    All digests come first, as here. What is behind a URL is read only once, and what is wrong with layers told late.
    """
    files = [CheckFile(name, size.shards.get(name, _Share())) for name in export.files]
    if is_remote(export.folder):
        yield from _checked_elsewhere(export, spread, files, 0)
    else:
        hashed = [replace(file, layers=False) for file in files]
        yield from _checked_elsewhere(export, spread, hashed, 0)
        layers = [replace(file, hashed=False) for file in files if file.share.stop > file.share.start]
        yield from _checked_elsewhere(export, spread, layers, sum(file.size for file in export.contents))
    for _, _, entries in export.by_shard():
        yield from (_told(export.check(entry), results) for entry in entries)


def _checked_elsewhere(export: "_Export", spread: Spread, tasks: list["CheckFile"], before: int) -> Iterator[Event]:
    """Have files checked. Raises the first that is wrong with them, digests before layers; counts on from `before`."""
    parts = [Part(task.name, task.work(export.files[task.name]), task) for task in tasks]
    faults: list[CheckpointError] = []
    for event in in_order(spread.run("verify", parts)):
        if isinstance(event, PartDone):
            faults += _faults(export, tasks[event.index], *event.found)
        else:
            yield replace(event, done=before + event.done) if isinstance(event, Progress) else event
    if faults:
        raise faults[0]


def _faults(
    export: "_Export", task: "CheckFile", digest: str, fault: CheckpointError | None
) -> Iterator[CheckpointError]:
    """What is wrong with layers, raised where nothing else can be told first."""
    if task.hashed and digest:
        _check_digest(export.files[task.name], digest, export.expected[task.name])
    if fault and not (task.hashed and digest):
        raise fault
    if fault:
        yield fault


@dataclass(frozen=True, slots=True)
class _Share:
    """The layers of one shard: their place in the manifest, and the bytes that checking them reads."""

    start: int = 0
    stop: int = 0
    work: int = 0


@dataclass(frozen=True, slots=True)
class CheckFile:
    """Gives the SHA-256 of a file of an export, "" if it is not `hashed`, and why its layers or itself are wrong."""

    name: str
    share: _Share
    hashed: bool = True
    layers: bool = True

    def work(self, file: SourceFile) -> int:
        """Bytes that it reads."""
        return file.size * self.hashed + self.share.work * self.layers

    def steps(self, engine: Engine, opened: "_Export") -> Generator[Event, None, tuple[str, CheckpointError | None]]:
        """See `studio.core.running.spread.Task`."""
        file, digest, known = opened.files[self.name], "", hashlib.sha256()
        try:
            if self.hashed:
                for done in hashing(file, known):
                    yield Progress("verify", done, self.name)
                digest = known.hexdigest()
            if self.layers and self.share.stop > self.share.start:
                yield from self._layers(engine, opened, file)
        except CheckpointError as error:
            return digest, error
        return digest, None

    def _layers(self, engine: Engine, opened: "_Export", file: SourceFile) -> Iterator[Event]:
        manifest, done = opened.manifest, file.size * self.hashed
        checks = [opened.check(entry) for entry in manifest.entries(self.share.start, self.share.stop)]
        for name, nbytes in check_layers(engine, file, read_header(file), manifest.layout, checks):
            done += nbytes
            yield Progress("verify", done, name)


def _opened(folder: Path, source: Model | None) -> "_Export":
    expected = expected_digests(folder)
    with SourceFile(folder / MANIFEST) as file:
        _check_digest(file, sha256(file), expected[MANIFEST])
    files = {name: SourceFile(folder / name) for name in sorted(expected)}
    manifest = Manifest(folder)
    if source is None or _made_from(source, manifest, folder):
        return _Export(folder, manifest, files, source, expected)
    return _Export(folder, manifest, files, None, expected, source)


@dataclass(frozen=True, slots=True)
class _Export:
    """An export to verify; its layers are read shard by shard, so that memory does not grow with their number.

    source: the checkpoint that it was made from; other: one that it is compared with, though it was not.
    """

    folder: Path
    manifest: Manifest
    files: Mapping[str, SourceFile]
    source: Model | None
    expected: Mapping[str, str]
    other: Model | None = None

    @property
    def contents(self) -> Sequence[SourceFile]:
        """See `ToVerify.contents`."""
        return list(self.files.values())

    def close(self) -> None:
        """Close the files."""
        for file in self.contents:
            file.close()

    def by_shard(self) -> Iterator[tuple[str, Header, Iterator[Entry]]]:
        """Name, header and layers of every shard. Raises CheckpointError for a shard that SHA256SUMS does not list."""
        for shard, entries in groupby(self.manifest.entries(), key=attrgetter("shard")):
            if shard not in self.files:
                raise CheckpointError(
                    f"does not list {printable(shard)}, which the manifest names", file=self.folder / SUMS
                )
            yield shard, read_header(self.files[shard]), entries

    def check(self, entry: Entry) -> Check:
        """What is to be verified of a layer."""
        layer = self.source.by_name[entry.result.name] if self.source else None
        layer = _as_written(layer, entry) if layer else None
        return Check(entry.result, entry.matrices, entry.kept, layer)


@dataclass(slots=True)
class _Size:
    layers: int = 0
    work: int = 0
    lifts: dict[str, int] = field(default_factory=dict)
    shards: dict[str, _Share] = field(default_factory=dict)


def _checked_size(export: _Export) -> _Size:
    """How much there is to verify; all that can be told without reading weights is checked first."""
    size = _Size()
    seen: set[str] = set()
    for shard, header, entries in export.by_shard():
        if shard in seen:
            raise CheckpointError("malformed manifest: the layers of a shard are apart", file=export.folder / MANIFEST)
        seen.add(shard)
        left = set(header.tensors)
        known = set[str]()
        first, before = size.layers, size.work
        for entry in entries:
            check = _checked(export, entry, header)
            known.update(part.name for part in check.parts)
            size.layers += 1
            size.work += check.work
            size.lifts |= {entry.result.name: entry.result.lift} if entry.result.lift else {}
        size.shards[shard] = _Share(first, size.layers, size.work - before)
        if odd := sorted(left - known):
            what = "is not in both the shard and the manifest"
            raise CheckpointError(what, file=export.folder / shard, tensor=odd[0])
    if missing := sorted(set(export.manifest.shards) ^ seen):
        what = f"malformed manifest: {printable(missing[0])} holds no layer, or is not listed"
        raise CheckpointError(what, file=export.folder / MANIFEST)
    if export.source and (name := unbalanced(export.source, size.lifts)):
        what = "is multiplied by a power of two that no other tensor undoes"
        raise CheckpointError(what, file=export.folder / MANIFEST, tensor=name)
    return size


def _checked(export: _Export, entry: Entry, header: Header) -> Check:
    """The check of a layer of which everything fits so far. Raises CheckpointError."""
    check = export.check(entry)
    check_parts(check, header, export.folder / entry.shard)
    return check


def expected_digests(folder: Path) -> dict[str, str]:
    """SHA-256 by the name of each file of an export. Raises CheckpointError where that can not be told."""
    path = folder / SUMS
    if not path.exists():
        what = f"holds no {SUMS}, which every export has: it was removed, or the export is not complete"
        raise CheckpointError(what, file=folder)
    expected = read_sums(path, read_small(path, LARGEST_SUMS))
    if MANIFEST not in expected:
        raise CheckpointError(f"damaged: does not list {MANIFEST}", file=path)
    return expected


def _check_digest(file: SourceFile, digest: str, expected: str) -> None:
    if digest != expected:
        raise CheckpointError(f"damaged: its SHA-256 is not the one in {SUMS}", file=file.path)


def strangers(folder: Path, expected: Mapping[str, str]) -> list[str]:
    """A sentence per file that is not ours. Raises CheckpointError for one that a runtime would load."""
    ours = {parent for name in expected for parent in Path(name).parents}
    found = [path.relative_to(folder) for place in sorted(ours) for path in sorted((folder / place).iterdir())]
    listed = {*expected, SUMS, *left_over(folder)}
    others = [path for path in found if path not in ours and path.as_posix() not in listed]
    for path in others:
        if path.name.endswith(_LOADED):
            raise CheckpointError(f"is not listed in {SUMS}, but would be loaded", file=folder / path)
    return [f"{printable(path.as_posix())}: not part of the export" for path in others]


def _as_written(layer: Layer, entry: Entry) -> Layer:
    """A layer of the source as the export has it: multiplied, and where it is decoded in the dtype chosen."""
    dtype = entry.kept[0].dtype if entry.kept and layer.widened else ""
    kept_as = dtype if dtype in WEIGHT_DTYPES else ""
    return replace(layer, lift=entry.result.lift - layer.stored_lift, kept_as=kept_as)


def _made_from(source: Model, manifest: Manifest, folder: Path) -> bool:
    """False where the export was made from the same layers in other codes. Raises CheckpointError for another model."""
    for entry in manifest.entries():
        name = entry.result.name
        layer = source.by_name.get(name)
        if layer is None:
            what = f"was not made from {printable(source.name)}: that has no layer {printable(name)}"
            raise CheckpointError(what, file=folder)
        if entry.result.shape != layer.shape:
            raise CheckpointError(f"was made from a source with another shape of {printable(name)}", file=folder)
        if not _fits(_as_written(layer, entry), entry):
            return False
    return True


def _fits(layer: Layer, entry: Entry) -> bool:
    there = [(matrix.name, matrix.rows, matrix.columns) for matrix in entry.matrices]
    here = [(matrix.name, matrix.rows, matrix.columns) for matrix in layer.matrices]
    kept = sum(part.nbytes for part in entry.kept)
    same = entry.result.dtype == layer.tensor.dtype
    return same and there == (here if there else []) and kept == (0 if there else layer.kept_nbytes)
