"""The shelf: files are whole or as before, entries follow their checkpoint, and the folder has a limit."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.gui.keeping.files import append, write_whole
from studio.gui.keeping.shelf import IDENTITY, Shelf


def fail(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half(write: Callable[[int, memoryview], int]) -> Callable[[int, memoryview], int]:
    """Writes that are cut short once, and fail the next time: what a full disk does."""
    calls: list[int] = []

    def cut(descriptor: int, data: memoryview) -> int:
        calls.append(1)
        return write(descriptor, data[: len(data) // 2]) if len(calls) == 1 else fail()

    return cut


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    write_whole(whole, b"before")
    append(grown, b"one\n")
    for path, write in ((whole, write_whole), (grown, append)):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, half(os.write) if call == "write" else fail)
            with pytest.raises(OSError, match="No space left"):
                write(path, b"after\n")
    assert whole.read_bytes() == b"before"
    assert grown.read_bytes() == b"one\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grown", "whole"]


def test_a_line_that_a_crash_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append(path, b"one\ntw")
    append(path, b"three\n")
    assert path.read_bytes() == b"one\ntw\nthree\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def kept(shelf: Shelf, path: Path, fingerprint: str, work: bytes = b"work") -> None:
    entry = shelf.entry(path, fingerprint)
    assert entry.hold()
    entry.identify(path.absolute(), fingerprint)
    entry.write_work(work)
    entry.release()


def test_work_follows_a_folder_that_is_moved(tmp_path: Path, model: Path) -> None:
    shelf = Shelf(tmp_path / "data")
    kept(shelf, model, "a")
    moved = model.rename(tmp_path / "elsewhere")
    found = shelf.entry(moved, "a")
    assert found.read_work() == b"work"
    found.identify(moved, "a")
    assert shelf.entry(model, "a").read_work() is None


def test_a_copy_of_a_folder_has_work_of_its_own(tmp_path: Path, model: Path) -> None:
    shelf = Shelf(tmp_path / "data")
    kept(shelf, model, "a")
    assert shelf.entry(tmp_path / "copy", "a").read_work() is None


def test_other_files_at_the_same_path_do_not_lose_the_work(tmp_path: Path, model: Path) -> None:
    shelf = Shelf(tmp_path / "data")
    kept(shelf, model, "a")
    assert shelf.entry(model, "b").read_work() == b"work"


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "data", limit=25_000)
    for number in range(4):
        kept(shelf, tmp_path / f"{number}", f"{number}", bytes(10_000))
        os.utime(shelf.entry(tmp_path / f"{number}", "").folder / IDENTITY, (number, number))
    shelf.trim(shelf.entry(tmp_path / "0", "0"))
    left = [number for number in range(4) if shelf.entry(tmp_path / f"{number}", f"{number}").read_work()]
    assert left == [0, 3]


def test_one_window_writes_and_the_other_is_told(tmp_path: Path, model: Path) -> None:
    shelf = Shelf(tmp_path / "data")
    first, second = shelf.entry(model, "a"), shelf.entry(model, "a")
    assert first.hold()
    assert not second.hold()
    first.release()
    assert second.hold()
    second.release()


def test_forgetting_spares_what_a_window_holds(tmp_path: Path, model: Path) -> None:
    shelf = Shelf(tmp_path / "data")
    kept(shelf, model, "a")
    kept(shelf, tmp_path / "other", "b")
    held = shelf.entry(model, "a")
    held.hold()
    assert shelf.forget() == 1
    assert shelf.size()[0] == 1
    held.release()
    assert shelf.forget() == 0
    assert shelf.size() == (0, 0)
