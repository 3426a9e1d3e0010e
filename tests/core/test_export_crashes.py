"""Each system call of an export fails in turn: one error, nothing half visible, the next run ends in the same bytes."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio import core
from studio.core.exporting.contents import JOURNAL
from tests.core.checkpoints import checkpoint, llama, snapshot

CALLS = ("open", "close", "ftruncate", "pwrite", "preadv", "fsync", "rename", "mkdir", "unlink")
TEMPLATES = "additional_chat_templates"
FAULTS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}


class Calls:
    """Counts the calls whose paths start with `root`, and lets the one of a given number fail with an error."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path, number: int = 0, fault: int = 0) -> None:
        self.seen: list[tuple[str, str]] = []
        self._root, self._number, self._fault = str(root), number, fault
        self._paths: dict[int, str] = {}
        for name in CALLS:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real):  # type: ignore[no-untyped-def]
        def call(first, *rest, **named):  # type: ignore[no-untyped-def]
            place = self._paths.get(first, "") if isinstance(first, int) else os.fspath(first)
            if not place.startswith(self._root):
                return real(first, *rest, **named)
            self.seen.append((name, place))
            hit = len(self.seen) == self._number
            if hit:
                self._before(name)
            if name == "close":  # before its number is free for another thread
                del self._paths[first]
            found = real(first, *rest, **named)
            if name == "open":
                self._paths[found] = place
            if hit:
                self._fail()
            return found

        return call

    def _before(self, name: str) -> None:
        """What happens instead of the call; a file is closed even where that fails."""
        if name != "close":
            self._fail()

    def _fail(self) -> None:
        raise OSError(self._fault, os.strerror(self._fault))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crashes")


@pytest.fixture(scope="module")
def model(place: Path) -> Iterator[core.Model]:
    folder = checkpoint(place / "model", llama(1), shards=2)
    (folder / TEMPLATES).mkdir()
    (folder / TEMPLATES / "tool.jinja").write_text("{{ tools }}")
    with core.open_model(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def engine(model: core.Model) -> Iterator[core.Engine]:
    with core.start(core.Machine(threads=1), model) as started:
        yield started


def export(engine: core.Engine, model: core.Model, target: Path) -> list[core.Event]:
    plan = core.preset("linear")
    job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], target, shard_nbytes=40_000)
    return list(core.export(engine, job))


@pytest.fixture(scope="module")
def clean(engine: core.Engine, model: core.Model, place: Path) -> dict[str, str]:
    export(engine, model, place / "clean")
    return snapshot(place / "clean")


@pytest.fixture(scope="module")
def calls(engine: core.Engine, model: core.Model, place: Path) -> list[tuple[str, str]]:
    target = place / "counted" / "out"
    target.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        counted = Calls(patch, target)
        export(engine, model, target)
    return counted.seen


@pytest.mark.sampled(2)
@pytest.mark.parametrize("fault", FAULTS)
def test_whichever_call_fails_there_is_one_error_and_the_next_run_ends_in_the_same_bytes(
    engine: core.Engine,
    model: core.Model,
    place: Path,
    clean: dict[str, str],
    calls: list[tuple[str, str]],
    fault: str,
) -> None:
    assert {name for name, _ in calls} == set(CALLS)
    target = place / fault / "out"
    target.parent.mkdir()
    for number, (name, where) in list(enumerate(calls, 1))[list(FAULTS).index(fault) :: len(FAULTS)]:
        said = f"{fault} at call {number}, {name} of {Path(where).name}"
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, target, number, FAULTS[fault])
            error = None
            try:
                export(engine, model, target)
            except core.ExportError as found:
                error = found
            assert name == "close" or target.exists() if error is None else "out" in str(error), said
        if target.exists():
            for name in (JOURNAL, *(path.name for path in target.glob("*.safetensors.json"))):
                (target / name).unlink(missing_ok=True)  # they go last, and harm nothing where they can not
            assert snapshot(target) == clean, said
        else:
            assert (target.parent / "out.partial").is_dir() or number < 5, said
            export(engine, model, target)
            assert snapshot(target) == clean, said
        assert [path.name for path in target.parent.iterdir()] == ["out"], said
        shutil.rmtree(target)


def test_every_file_is_written_aside_flushed_renamed_and_the_folder_flushed(calls: list[tuple[str, str]]) -> None:
    folder = next(where for name, where in calls if name == "mkdir")
    renamed = [where for name, where in calls if name == "rename"]
    assert renamed[-1] == folder, "the last rename is the one that makes the target visible"
    assert Path(renamed[-2]).name == "config.json.tmp", "the config comes last"
    assert all(where.endswith(".tmp") for where in renamed[:-1])
    for place, (name, where) in enumerate(calls):
        if name == "rename" and where != folder:
            before = [call for call, path in calls[:place] if path == where and call != "preadv"]
            last_written = len(before) - 1 - before[::-1].index("pwrite")
            assert "fsync" in before[last_written:], where
            own = str(Path(where).parent)
            assert calls[place + 1 : place + 3] == [("open", own), ("fsync", own)], where
    names = {Path(where).name for name, where in calls if name == "open" and where != folder}
    assert all(name.endswith((".tmp", "out", TEMPLATES)) for name in names if not name.startswith("model-"))
