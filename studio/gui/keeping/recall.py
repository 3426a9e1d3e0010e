"""Recall: open a checkpoint and find what is kept of it, on the background thread."""

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from studio import core
from studio.gui.keeping.shelf import RESULTS, RESULTS_SCHEMA, WORK, Entry, Shelf
from studio.gui.keeping.work import NO_RULES, Encoder, NewerError, Work, decode
from studio.gui.layers.choices import BY_PLAN, CODES, METHOD_CODES, Edits, Names, PlanState
from studio.gui.layers.document import Ready, make_ready
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of
from studio.gui.shell.places import Place
from studio.gui.shell.specs import keys_of
from studio.gui.shell.text import sentence

Known = tuple[core.Choice, tuple[str, ...], core.LayerResult]
DEFAULT_PRESET = "linear"
ELSEWHERE = "another window has this checkpoint open and keeps its own work on it"
STEP = 1000
"""Lines read between two places to stop."""


@dataclass
class Found:
    """A checkpoint and what is kept of it.

    `work` holds for the model, `asked` is what was handed in for it. `held` is the entry that this window had before.
    `problem` says why nothing can be kept, `recalled` whether anything was. `ready` is what is shown first.
    """

    model: core.Model
    groups: core.ScaleGroups
    lines: core.ResultLines
    encoder: Encoder
    work: Work
    asked: Work | None = None
    held: Entry | None = None
    entry: Entry | None = None
    problem: str = ""
    recalled: bool = False
    exported: core.Exported | None = None
    known: list[Known] = field(default_factory=list)
    results: core.ResultCache = field(default_factory=core.ResultCache)
    notes: list[Message] = field(default_factory=list)
    ready: Ready | None = None

    def close(self) -> None:
        """Let go of the files, and of the entry unless it was held before: nobody wants this."""
        if self.entry is not None and self.entry is not self.held:
            self.entry.release()
        self.model.close()


Steps = Generator[Found | None, None, None]


def opening(
    path: Place, shelf: Shelf | None, held: Entry | None, work: Work | None, statistics: Path | None = None
) -> Steps:
    """Open a checkpoint; yields None where it may be stopped, and at last what is found.

    `work` is what was done in this window when the same is read again, `held` the entry that this window writes,
    `statistics` a file to use instead of the one used before. Raises CheckpointError, and PlanError when `work` does
    not fit any more.
    """
    model = yield from _opened(path)
    names = [layer.name for layer in model.layers]
    lines, encoder = core.ResultLines(model), Encoder(names)
    found = Found(model, core.ScaleGroups(model), lines, encoder, work or fresh_work(), work, held)
    try:
        yield None
        if (exported := core.exported(model)) is not None:
            _show_as_exported(found, exported)
        else:
            yield from _recall(found, shelf, held, statistics)
        if work is not None or found.work.now.rules is NO_RULES:
            found.work = found.work.resolved(model)
        core.prepare_estimates()
        found.ready = make_ready(found.model, found.work.now, found.exported)
    except BaseException:  # stopped, too
        found.close()
        raise
    yield found


def _opened(path: Place) -> Generator[None, None, core.Model]:
    for model in core.opening(path):
        if model is not None:
            return model
        yield None
    raise AssertionError("an opening without an end")


def _show_as_exported(found: Found, exported: core.Exported) -> None:
    """The formats that an export holds, and the errors that its manifest states; nothing of it is kept elsewhere."""
    names = Names([choice.layer.name for choice in exported.choices])
    chosen = [
        (CODES[one.format], METHOD_CODES[one.method]) if one.recipe else (BY_PLAN, BY_PLAN) for one in exported.choices
    ]
    codes, methods = np.array(chosen, np.int8).reshape(-1, 2).T
    plan = core.Plan((), title="As it was exported", exponent=exported.exponent)
    found.exported, found.asked = exported, None
    found.work = Work((PlanState(plan, NO_RULES, Edits(names, codes, methods)),))
    results = {result.name: result for result in exported.results}
    for index, choice in enumerate(exported.choices):
        if choice.recipe:
            found.results.add(choice, found.groups.peers(index, exported.choices), results[choice.layer.name])


def _recall(found: Found, shelf: Shelf | None, held: Entry | None, statistics: Path | None) -> Iterator[None]:
    if shelf is not None:
        _find_entry(found, shelf, held)
    entry = found.entry
    if entry is not None and found.asked is None:
        _recall_work(found, entry)
    elif entry is not None and entry is not held and entry.is_held:
        found.notes += replaced(entry, b"")
    yield None
    yield from _use_statistics(found, statistics)
    if entry is not None:
        yield from _recall_results(found, entry, tidy=entry.is_held and entry is not held)
        found.recalled = found.recalled or bool(found.known)


def _use_statistics(found: Found, wanted: Path | None) -> Iterator[None]:
    """Let statistics tell of the inputs of layers: those wanted, or where they can not be read those used before."""
    before, found.work = found.work.statistics, replace(found.work, statistics="")
    for path in filter(None, (wanted, Path(before) if before else None)):
        try:
            statistics = core.open_statistics(path, found.model)
            yield None
            gaps = list(core.gaps(found.model, statistics))
            found.model = core.with_statistics(found.model, statistics)
        except core.StudioError as error:
            found.notes.append(replace(message_of(error, NOT_USED, OTHERWISE), tone="warning"))
            continue
        found.lines = core.ResultLines(found.model)
        found.work = replace(found.work, statistics=str(path.absolute()))
        if path == wanted:
            found.notes.append(_in_use(path, found.work.now.plan.method))
        found.notes += [Message("warning", "Statistics with gaps", sentence(gap)) for gap in gaps]
        return


NOT_USED = "The statistics can not be used"
OTHERWISE = "Open them where they are now, or gather them again (Run, Calibrate)."


def _in_use(path: Path, method: str) -> Message:
    needs = core.method_of(method).needs
    hint = "" if needs else f"The plan's method is {method}, which does not look at them: choose hessian."
    return Message("good", f"Statistics {core.printable(path.name, 60)} are in use", "Undo and results stay.", hint)


def replaced(entry: Entry, own: bytes) -> list[Message]:
    """Put aside work that the one at hand, which was written last as `own`, takes the place of; and say so."""
    if entry.read_work() in (None, own):
        return []
    text = f"What was done to this checkpoint elsewhere stays as {entry.set_aside(WORK)}."
    return [Message("info", "The plan of this window takes the place of one kept before", text)]


def fresh_work() -> Work:
    """Nothing done yet."""
    return Work((PlanState(core.preset(DEFAULT_PRESET), NO_RULES, Edits(Names(()))),))


def _find_entry(found: Found, shelf: Shelf, held: Entry | None) -> None:
    path, fingerprint = found.model.path, found.lines.fingerprint
    try:
        entry = shelf.entry(path, fingerprint)
        found.entry = held if held is not None and held.folder == entry.folder else entry
        if not found.entry.hold():
            found.problem = ELSEWHERE
            return
        found.entry.identify(path.absolute(), fingerprint)
        shelf.trim(found.entry)
    except OSError as error:
        found.problem = f"{shelf.folder}: {error.strerror or error}"


def _recall_work(found: Found, entry: Entry) -> None:
    try:
        data = entry.read_work()
        if data is not None:
            found.work = decode(data).resolved(found.model)
            found.recalled = True
    except NewerError as error:
        found.notes.append(_unread(entry, WORK, "was written by a later version", f"It is {error}.", _LATER))
    except core.PlanError as error:
        found.notes.append(_unread(entry, WORK, "does not fit the checkpoint any more", f"{error}.", _DAMAGED))
    except ValueError as error:
        found.notes.append(_unread(entry, WORK, "is damaged", f"{error}.", _DAMAGED))
    except OSError as error:
        found.problem = f"{entry.folder / WORK}: {error.strerror or error}"


_LATER = "Open the checkpoint with that version to go on, or choose again here."
_DAMAGED = f"The plan is the standard one. Load a saved plan ({keys_of('load_plan')}), or choose again."


def _unread(entry: Entry, name: str, what: str, why: str, hint: str) -> Message:
    """Put a file aside, and say so."""
    try:
        where = f"It stays as {entry.set_aside(name)}." if entry.is_held else f"It is {entry.folder / name}."
    except OSError as error:
        where = f"{entry.folder / name} can not be put aside: {error.strerror}."
    title = f"The {'plan' if name == WORK else 'list of results'} kept for this checkpoint {what}"
    return Message("warning", title, f"{why} {where}", hint)


def _recall_results(found: Found, entry: Entry, *, tidy: bool) -> Iterator[None]:
    """Take over the results that still hold; put damaged ones aside, and write the file anew when most is waste."""
    kept: dict[object, bytes] = {}
    damaged = total = 0
    try:
        for total, raw in enumerate(entry.lines()):
            line = raw.rstrip(b"\n")
            if total % STEP == STEP - 1:
                yield None
            if total == 0 and (schema := _schema(line)):
                if schema > RESULTS_SCHEMA:
                    why = f"It is schema {schema}, this version reads {RESULTS_SCHEMA}."
                    found.notes.append(_unread(entry, RESULTS, "was written by a later version", why, _MEASURE))
                    return
                continue
            try:
                known = found.lines.known(line)
            except ValueError:
                damaged += raw.endswith(b"\n") and bool(line)  # a line without an end was cut short by a crash
                continue
            if known is not None:
                kept[known[0].layer.name, known[0].recipe, known[1]] = line
                found.known.append(known)
                found.results.add(*known)
            elif found.lines.holds(line):  # measured with other statistics, which may be used again
                kept[line] = line
        if damaged and tidy:
            why = f"{damaged:,} of {total:,} lines can not be read; the others are in use."
            found.notes.append(_unread(entry, RESULTS, "is damaged", why, _MEASURE))
        if tidy and (damaged or total > 2 * len(kept) + STEP):
            entry.rewrite_lines(list(kept.values()))
    except OSError as error:
        found.problem = f"{entry.folder / RESULTS}: {error.strerror or error}"


_MEASURE = f"Quantize ({keys_of('quantize')}) measures again what is missing."


def _schema(line: bytes) -> int:
    """The schema that a head says, 0 for any other line."""
    try:
        said = json.loads(line)
        return int(said["schema"]) if set(said) == {"schema"} else 0
    except (ValueError, TypeError, KeyError):
        return 0
