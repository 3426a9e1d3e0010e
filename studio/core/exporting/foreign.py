"""verify for checkpoints of others: digests where there are any, every weight decoded, and compared with a source."""

import hashlib
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.files import SourceFile, read_small
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.events import Event, Finished, LayerDone, Progress, Started, Warned
from studio.core.exporting.contents import LARGEST_SUMS, MANIFEST, SUMS, read_sums
from studio.core.exporting.gguf_digest import ZEROS, stated
from studio.core.exporting.readback import hashing
from studio.core.exporting.records import RECORD
from studio.core.model import Layer, Model
from studio.core.names import printable, some_of
from studio.core.opening.checkpoint import open_model
from studio.core.opening.exports import is_exported, unlifted
from studio.core.outcome import Outcome
from studio.core.planning.plan import KEEP
from studio.core.results import FAR, LayerResult
from studio.core.running.differences import Counterparts, Couple, Difference, differences, itself
from studio.core.running.engine import Engine
from studio.core.running.proving import Counts, Question, answers
from studio.core.running.reading import Slab, read_slab
from studio.core.running.spread import Part, PartDone, Spread, cut, in_order

_MISSING = "missing"


def verify_foreign(
    engine: Engine, path: Path, source: Model | None = None, spread: Spread | None = None
) -> Iterator[Event]:
    """Decode all of a checkpoint in any layout, compare it with `source`, check the digests in SHA256SUMS.

    By `spread`, if there is one, which has opened the same. Raises CheckpointError naming the file or tensor at fault:
    a digest that differs, codes that can not be read or decode to no number, a shape that is not that of the source,
    no weight of it at all.
    """
    _check_complete(path)
    with opened_foreign(path, source) as there:
        told = there.told
        yield from _compared(engine, there, spread, told)


def compare_with_another(engine: Engine, path: Path, source: Model) -> Iterator[Event]:
    """Compare an export of ours, of which all else was verified, with a checkpoint that it was not made from."""
    with opened_foreign(path, unlifted(source)) as there:
        told = f"every byte as in {SUMS}; made from another checkpoint than {printable(source.name)}"
        yield from _compared(engine, replace(there, sums=()), None, told)


def _compared(engine: Engine, there: "Foreign", spread: Spread | None, told: str) -> Iterator[Event]:
    yield from map(Warned, there.model.warnings)
    yield Started("verify", sum(one.file.size for one in there.sums) + there.work, len(there.pairs), there.path)
    results, odd = [], _Oddities()
    for found in _elsewhere(there, spread) if spread else _here(engine, there):
        if not isinstance(found, Difference):
            yield found
            continue
        _check_finite(there.path, found)
        odd.note(found)
        if found.couple.parts:
            results.append(_result(found))
            yield LayerDone(results[-1])
    yield from map(Warned, odd.sentences([layer.name for layer in there.alone] if there.source else []))
    yield Finished(Outcome(results, str(there.path), backend=engine.backend.title, cautions=(told,)))


@dataclass(frozen=True, slots=True)
class Sum:
    """A file and the SHA-256 that SHA256SUMS, or where it is its `own` the file itself, says of it."""

    file: SourceFile
    expected: str
    own: bool = False

    @property
    def instead(self) -> tuple[int, bytes] | None:
        """See `hashing`."""
        return ZEROS if self.own else None

    def check(self, digest: str) -> None:
        """Raises CheckpointError for another digest."""
        if digest != self.expected:
            which = "the one that it states" if self.own else f"the one in {SUMS}"
            raise CheckpointError(f"damaged: its SHA-256 is not {which}", file=self.file.path)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A checkpoint of others to verify: what is compared with its source, the layers that are none of that, digests."""

    path: Path
    model: Model
    source: Model | None
    couples: Sequence[Couple]
    alone: Sequence[Layer]
    sums: Sequence["Sum"]

    @property
    def told(self) -> str:
        """What of it was compared with digests."""
        if any(one.own for one in self.sums):
            return "every byte as it says of itself"
        return f"{counted(len(self.sums), 'file')} as in {SUMS}" if self.sums else "no digests beside it"

    @property
    def pairs(self) -> Sequence[Couple]:
        """All layers, those that are compared first."""
        return [*self.couples, *map(itself, self.alone)]

    @property
    def work(self) -> int:
        """Bytes of both that decoding reads."""
        return sum(map(_work, self.pairs))

    @property
    def contents(self) -> Sequence[SourceFile]:
        """The files that are verified."""
        return [*self.model.files, *(one.file for one in self.sums)]

    def __enter__(self) -> "Foreign":
        return self

    def __exit__(self, *_: object) -> None:
        self.model.close()


def opened_foreign(path: Path, source: Model | None) -> Foreign:
    """What tasks of `verify_foreign` work on. Raises CheckpointError."""
    model = unlifted(open_model(path))
    try:
        _check_decodable(model, path)
        return Foreign(path, model, source, *_couples(path, model, source), _sums(path, model))
    except CheckpointError:
        model.close()
        raise


def _check_decodable(model: Model, path: Path) -> None:
    if model.quantized_by and not is_exported(model):
        raise CheckpointError(f"can not be decoded: {model.quantized_by}", file=path)


def _work(couple: Couple) -> int:
    return couple.nbytes + couple.layer.nbytes


def _here(engine: Engine, there: Foreign) -> Iterator[Event | Difference]:
    done = 0
    for one in there.sums:
        digest = hashlib.sha256()
        for read in hashing(one.file, digest, one.instead):
            yield Progress("verify", done + read, one.file.path.name)
        one.check(digest.hexdigest())
        done += one.file.size
    for found in chain(differences(engine, there.couples), _decoded(engine, there.alone)):
        done += _work(found.couple)
        yield Progress("verify", done, found.layer.name)
        yield found


def _elsewhere(there: Foreign, spread: Spread) -> Iterator[Event | Difference]:
    """The same by `spread`, in the same order."""
    pairs, sums = there.pairs, there.sums
    ranges = list(cut(list(map(_work, pairs)), spread.size))
    parts = [Part(one.file.path.name, one.file.size, HashFile(index)) for index, one in enumerate(sums)]
    parts += [_part(pairs, found) for found in ranges]
    for event in in_order(spread.run("verify", parts)):
        if not isinstance(event, PartDone):
            yield event
            continue
        found, fault = event.found
        if event.index >= len(sums):
            couples = (pairs[index] for index in ranges[event.index - len(sums)])
            yield from (Difference(couple, *numbers) for couple, numbers in zip(couples, found, strict=False))
        if fault:
            raise fault
        if event.index < len(sums):
            sums[event.index].check(found)


def _part(pairs: Sequence[Couple], indexes: range) -> Part:
    work = sum(_work(pairs[index]) for index in indexes)
    return Part(f"the part from {pairs[indexes.start].layer.name} on", work, Compare(indexes))


Numbers = tuple[int, int, float, float, int, int, int]
"""A `Difference` but for its couple."""


@dataclass(frozen=True, slots=True)
class HashFile:
    """Gives the SHA-256 of the file of this index, or why it can not be read."""

    index: int

    def steps(self, _engine: Engine, opened: Foreign) -> Generator[Event, None, tuple[str, CheckpointError | None]]:
        """See `studio.core.running.spread.Task`."""
        one, known = opened.sums[self.index], hashlib.sha256()
        try:
            for done in hashing(one.file, known, one.instead):
                yield Progress("verify", done, one.file.path.name)
        except CheckpointError as error:
            return "", error
        return known.hexdigest(), None


@dataclass(frozen=True, slots=True)
class Compare:
    """Gives what layers of these indexes differ in, up to the first that can not be read, and why that can not."""

    indexes: range

    def steps(
        self, engine: Engine, opened: Foreign
    ) -> Generator[Event, None, tuple[list[Numbers], CheckpointError | None]]:
        """See `studio.core.running.spread.Task`."""
        count, done, results = len(opened.couples), 0, list[Numbers]()
        couples = opened.couples[self.indexes.start : self.indexes.stop]
        alone = opened.alone[max(self.indexes.start - count, 0) : max(self.indexes.stop - count, 0)]
        try:
            for found in chain(differences(engine, couples), _decoded(engine, alone)):
                results.append(_numbers(found))
                done += _work(found.couple)
                yield Progress("verify", done, found.layer.name)
        except CheckpointError as error:
            return results, error
        return results, None


def _numbers(found: Difference) -> Numbers:
    counts = found.weights, found.equal, found.error, found.squares
    return *counts, found.nonfinite, found.nonfinite_there, found.unlike


def _check_complete(path: Path) -> None:
    if unfinished := next(path.glob(f"*{RECORD}"), None) if path.is_dir() else None:
        what = f"holds {printable(unfinished.name)} and no {MANIFEST}: an export that is not complete"
        raise CheckpointError(what, file=path, hint="run the command that was stopped again")


def _sums(path: Path, model: Model) -> list[Sum]:
    """The files that SHA256SUMS lists, or GGUF files that state a digest of themselves."""
    listed = model.folder / SUMS
    own = [
        Sum(file, digest, own=True) for file in model.files if model.container == "gguf" and (digest := stated(file))
    ]
    if own:
        return own
    if not path.is_dir() or not listed.is_file():
        return []
    expected = read_sums(listed, read_small(listed, LARGEST_SUMS).replace(b" *", b"  "))
    return [Sum(SourceFile(model.folder / name), digest) for name, digest in sorted(expected.items())]


def _couples(path: Path, model: Model, source: Model | None) -> tuple[list[Couple], list[Layer]]:
    """The layers of the source with their counterparts, and the layers of the checkpoint that are none.

    Raises CheckpointError for a shape that is not that of the source, and for a checkpoint of another model.
    """
    if source is None:
        return [], list(model.layers)
    places = Counterparts(model)
    couples = [places.of(layer) for layer in source.layers]
    for couple in couples:
        if couple.obstacle not in ("", _MISSING):
            what = f"{couple.obstacle.replace(' here', f' in {printable(source.name)}')}"
            raise CheckpointError(what, file=path, tensor=couple.layer.name)
    found = [couple for couple in couples if couple.parts]
    if not found:
        raise CheckpointError(f"holds no weight of {printable(source.name)}", file=path)
    used = {part.other.name for couple in found for part in couple.parts}
    return couples, [layer for layer in model.layers if layer.name not in used]


def _decoded(engine: Engine, layers: Sequence[Layer]) -> Iterator[Difference]:
    """The layers, decoded and compared with nothing; what is no weight is not looked at."""
    numeric = [layer.dtype in WEIGHT_DTYPES for layer in layers]
    asked = (layer for layer, numbers in zip(layers, numeric, strict=True) if numbers)
    found = answers(engine, [Question(layer, layer.whole, _nonfinite) for layer in asked])
    for layer, numbers in zip(layers, numeric, strict=True):
        counts = next(found)[1] if numbers else np.zeros(0)
        yield Difference(itself(layer), nonfinite_there=int(counts.sum()))


def _nonfinite(engine: Engine, slab: Slab) -> Counts:
    weights = read_slab(slab, engine.scratch)
    return np.array([weights.size - np.isfinite(weights).sum()], np.float64)


def _check_finite(path: Path, found: Difference) -> None:
    """Raise CheckpointError for codes that stand for no number."""
    if found.nonfinite_there and not found.couple.is_plain:
        what = f"decodes to {counted(found.nonfinite_there, 'value')} that are not finite"
        raise CheckpointError(what, file=path, tensor=found.layer.name)


@dataclass(slots=True)
class _Oddities:
    """What someone should look at: names of layers by what is odd about them."""

    missing: list[str] = field(default_factory=list)
    far: list[str] = field(default_factory=list)
    nonfinite: list[str] = field(default_factory=list)

    def note(self, found: Difference) -> None:
        odd = (bool(found.couple.obstacle), found.rel_err > FAR, found.nonfinite_there > 0)
        for names, there in zip((self.missing, self.far, self.nonfinite), odd, strict=True):
            names += [found.layer.name] if there else []

    def sentences(self, alone: list[str]) -> list[str]:
        """A sentence per kind; `alone`: the layers that the source has not."""
        told = (
            (self.nonfinite, "with NaN or Inf among plain weights"),
            (self.missing, "of the source missing"),
            (alone, "that the source has not"),
            (self.far, f"with a relative error above {FAR}, hardly the weights of the source"),
        )
        return [f"{counted(len(names), 'layer')} {what}: {some_of(names)}" for names, what in told if names]


def _result(found: Difference) -> LayerResult:
    layer, couple = found.layer, found.couple
    return LayerResult(
        name=layer.name,
        role=layer.role,
        block=layer.block,
        dtype=layer.tensor.dtype,
        shape=layer.shape,
        format=KEEP if couple.is_plain else couple.stored_as,
        reason=couple.stored_as if couple.is_plain else "",
        count=layer.count,
        nbytes_in=layer.nbytes,
        nbytes_out=couple.nbytes,
        sum_squares=found.squares,
        sum_error=math.inf if found.unlike else found.error,
    )
