"""repair: write a copy of a folder in which all that is certain is mended, and examine it before it appears."""

from collections.abc import Generator, Iterator
from pathlib import Path

from studio.core.errors import CheckpointError, ExportError
from studio.core.events import Event, Examined, Progress, Repaired, Started
from studio.core.exporting.staging import Staging
from studio.core.exporting.target import check_space, check_target
from studio.core.findings.doctor import doctor
from studio.core.findings.finding import Examination
from studio.core.findings.folder import open_broken, refusal_of
from studio.core.findings.kinds import Observed
from studio.core.findings.repairs.copying import Copying, write
from studio.core.findings.repairs.draft import Draft
from studio.core.findings.repairs.requantizing import nbytes_of, quantize_again
from studio.core.findings.repairs.table import Mended, mend, told
from studio.core.model import Model
from studio.core.running.engine import Engine

_SCRATCH = "requantized"
_ON_OPENING = ("told-on-opening", "refused")


def repair(engine: Engine, path: Path, target: Path, *, against: Model | None = None) -> Iterator[Event]:
    """Examine a folder and write a repaired copy to `target`; the last event is `Repaired`.

    Nothing is written when nothing can be mended for certain. The copy appears whole and examined again, or not at all;
    the folder is not touched. What a repair did not mend after all is not among the repairs that are told. `against` is
    the checkpoint that it was made from, which some repairs need.

    Raises CheckpointError when there is nothing at `path` or it can not be copied, ExportError for a target that can
    not be written and for a copy that would be no better.
    """
    if not path.is_dir():
        raise CheckpointError("only folders are repaired", file=path, hint="give the folder that holds the file")
    place = _free(target, path)
    before = yield from _examined(path, against)
    folder = open_broken(path)
    try:
        draft = Draft(folder, before, against)
        mended = mend(draft)
        if mended:
            yield from _written(engine, draft, mended, place)
        else:
            yield Repaired(None, (), before, before)
    finally:
        folder.close()


def _free(target: Path, path: Path) -> Path:
    """The absolute path of a target; raises ExportError for one where something is, or that is `path` itself."""
    try:
        return check_target(target, path, overwrite=False)[0]
    except ExportError as error:
        error.hint = "choose a new folder beside it"
        raise


def _examined(path: Path, against: Model | None) -> Generator[Event, None, Examination]:
    for event in doctor(path, against=against):
        if isinstance(event, Examined):
            return event.examination
        yield event
    raise AssertionError("an examination without an end")


def _written(engine: Engine, draft: Draft, mended: Mended, target: Path) -> Iterator[Event]:
    copying = Copying(draft)
    files = copying.files()
    check_space(target, sum(file.nbytes for file in files) + nbytes_of(draft))
    staging = Staging(target)
    try:
        identity = {"folder to repair": str(draft.folder.path.resolve())}
        staging.begin(identity, restart=False)
        staging.begin(identity, restart=True)
        scratch = staging.temporary(_SCRATCH)
        if draft.choices:
            yield Started("quantize", sum(2 * choice.layer.tensor.nbytes for choice in draft.choices), 0)
            yield from quantize_again(engine, draft, scratch)
            files = copying.files()
        yield Started("repair", sum(file.nbytes for file in files), 0, target)
        done = 0
        for name, count in write(draft, files, staging):
            done += count
            yield Progress("repair", done, name)
        scratch.unlink(missing_ok=True)
        draft.folder.close()
        after = yield from _examined(staging.path, draft.source)
        mended = _gone(mended, after)
        _check(draft.found, after, mended, target)
        _free(target, draft.folder.path)
        staging.publish(overwrite=False)
        yield Repaired(target, told(mended), draft.found, _opened(after, target), tuple(copying.left_out))
    finally:
        staging.give_up()
        staging.close()


def _opened(after: Examination, target: Path) -> Examination:
    """What was found before the copy had its name, with what opening it under that name says."""
    observed = Observed()
    kept = (one for kind, seen in after.observed.items() if kind not in _ON_OPENING for one in seen)
    for one in (*refusal_of(target), *kept):
        observed.add(one)
    return observed.examination()


def _gone(mended: Mended, after: Examination) -> Mended:
    """What was mended and is not seen any more."""
    still = {(one.kind, one.where) for observations in after.observed.values() for one in observations}
    left = {kind: tuple(one for one in seen if (kind, one.where) not in still) for kind, seen in mended.items()}
    return {kind: seen for kind, seen in left.items() if seen}


def _check(before: Examination, after: Examination, mended: Mended, target: Path) -> None:
    """Refuse a copy in which nothing is mended, or that has an error which the folder has not."""
    hint = "nothing was written; report this with what doctor says of the folder"
    if not mended:
        raise ExportError("the repaired copy shows all that it should have mended", file=target, hint=hint)
    for one in after.findings:
        if one.severity == "error" and one.kind not in before.observed:
            what = f"the repaired copy would have an error of its own: {one.kind}: {one.what} ({one.places})"
            raise ExportError(what, file=target, hint=hint)
