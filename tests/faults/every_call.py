"""Every call: an export is stopped at each call to the system that it makes; the next run ends in the same bytes.

Three ways: the call fails with EIO, with ENOSPC, or the process is killed right there, before it or after it.

Usage: python -m tests.faults.every_call
"""

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from studio import core
from tests.core.checkpoints import checkpoint, llama, snapshot
from tests.core.test_export_crashes import TEMPLATES, Calls

KILLED = 9


class Kill(Calls):
    """Ends the process at the call of a given number, before it is made or after it."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path, number: int, *, after: bool) -> None:
        self._after = after
        super().__init__(patch, root, number)

    def _before(self, name: str) -> None:
        if not self._after:
            os._exit(KILLED)

    def _fail(self) -> None:
        os._exit(KILLED)


def export(source: Path, target: Path) -> None:
    """Export in shards of 40 kB, on one thread."""
    plan = core.preset("linear")
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], target, shard_nbytes=40_000)
        for _ in core.export(engine, job):
            pass


def failing(source: Path, target: Path, number: int, fault: int) -> None:
    """An export whose call of this number fails."""
    with pytest.MonkeyPatch.context() as patch:
        Calls(patch, target, number, fault)
        with suppress(core.ExportError):
            export(source, target)


def killed(source: Path, target: Path, number: int, *, after: bool) -> bool:
    """An export in a process of its own, which ends at the call of this number; True when it came to that."""
    child = os.fork()
    if child == 0:
        with pytest.MonkeyPatch.context() as patch:
            Kill(patch, target, number, after=after)
            export(source, target)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED


def check(source: Path, target: Path, whole: dict[str, str], said: str) -> None:
    """Export once more where that is needed; raises RuntimeError for other bytes, or for something left over."""
    if not target.exists():
        export(source, target)
    for path in (target / "journal.json", *target.glob("*.safetensors.json")):
        path.unlink(missing_ok=True)  # they go last, and harm nothing
    if snapshot(target) != whole or [path.name for path in target.parent.iterdir()] != [target.name]:
        raise RuntimeError(f"other bytes, or something left: {said}")
    shutil.rmtree(target)


def main() -> None:
    """Print how many calls there are, and what was tried at each."""
    with tempfile.TemporaryDirectory() as place:
        source, target = checkpoint(Path(place) / "model", llama(1), shards=2), Path(place) / "exports" / "out"
        (source / TEMPLATES).mkdir()
        (source / TEMPLATES / "tool.jinja").write_text("{{ tools }}")
        target.parent.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            calls = Calls(patch, target)
            export(source, target)
        whole = snapshot(target)
        shutil.rmtree(target)
        kills = 0
        for number, (name, where) in enumerate(calls.seen, 1):
            said = f"call {number}, {name} of {Path(where).name}"
            for fault in (errno.EIO, errno.ENOSPC):
                failing(source, target, number, fault)
                check(source, target, whole, f"{errno.errorcode[fault]} at {said}")
            for after in (False, True):
                kills += killed(source, target, number, after=after)
                check(source, target, whole, f"killed {'after' if after else 'before'} {said}")
        kinds = ", ".join(sorted({name for name, _ in calls.seen}))
        tried = f"{len(calls.seen)} calls ({kinds})"
        print(f"{tried}: EIO and ENOSPC at each, {kills} kills before or after one; the same bytes every time")


if __name__ == "__main__":
    main()
