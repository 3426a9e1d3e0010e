"""Who looks elsewhere is told when long work ends; nobody is bothered otherwise."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.gui.shell import notices
from studio.gui.shell.desktop import Bell
from studio.gui.shell.notices import Notices
from studio.gui.shell.studio import Studio

Wait = Callable[[], None]


class FakeBell:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def ring(self, title: str, text: str) -> None:
        self.said.append((title, text))

    def hush(self) -> None:
        self.said.clear()


@pytest.fixture
def bell(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBell]:
    """Hears what is said of runs of any length while nobody looks."""
    monkeypatch.setattr(notices, "LONG_SECONDS", 0.0)
    made = FakeBell()
    made.notices = Notices(studio.runs, studio.commands.settings, made, studio, lambda: False)
    yield made
    made.notices.deleteLater()


def test_the_end_of_a_long_run_is_told_with_what_was_done(studio: Studio, bell: FakeBell, wait: Wait) -> None:
    studio.commands.perform("quantize")
    wait()
    ((title, text),) = bell.said
    assert title == "Quantized 28 layers"
    assert "read in" in text


def test_a_run_that_failed_says_so_and_what_to_do(studio: Studio, bell: FakeBell, tmp_path: Path, wait: Wait) -> None:
    (tmp_path / "empty").mkdir()
    studio.runs.verify(tmp_path / "empty")
    wait()
    ((title, text),) = bell.said
    assert title.startswith("Verifying failed after 0:0")
    assert text.startswith("Do not use this export")


def test_a_run_of_less_than_a_minute_is_not_told(
    studio: Studio, bell: FakeBell, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "LONG_SECONDS", 60.0)
    studio.commands.perform("quantize")
    wait()
    assert bell.said == []


def test_who_looks_at_the_window_is_not_told(studio: Studio, bell: FakeBell, wait: Wait) -> None:
    bell.notices._seen = lambda: True
    studio.commands.perform("quantize")
    wait()
    assert bell.said == []


def test_who_does_not_want_to_be_told_is_not(studio: Studio, bell: FakeBell, wait: Wait) -> None:
    studio.commands.settings["notices"] = False
    studio.commands.perform("quantize")
    wait()
    assert bell.said == []


def test_nothing_rings_without_a_screen(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[object] = []
    monkeypatch.setattr("studio.gui.shell.desktop.QApplication.alert", rung.append)
    bell = Bell(studio.commands.window)
    bell.ring("Quantized", "28 layers")
    assert rung == []
    monkeypatch.setattr("studio.gui.shell.desktop.QGuiApplication.platformName", lambda: "xcb")
    bell.ring("Quantized", "28 layers")
    assert rung == [studio.commands.window]
