"""The page Quality with a small model that is run by a runtime, in a process of its own."""

import os
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.jobs.wanted import Wanted
from studio.gui.pages.quality import QualityPage
from studio.gui.shell.studio import Studio
from tests.gui.conftest import PATIENCE
from tests.gui.keeping.test_sessions import open_again
from tests.lm.models import LENGTH, WINDOWS, write_llama, write_text

for needed in ("torch", "transformers", "mlx_lm"):
    pytest.importorskip(needed, reason="the extra `runtimes` brings it")


@pytest.fixture
def llama(studio: Studio, tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """A small llama, open; evaluations use a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "llama"
    write_llama(folder)
    open_again(studio, qtbot, folder)
    return studio


@pytest.mark.proof
def test_a_model_is_evaluated_and_tried(llama: Studio, tmp_path: Path, qtbot: QtBot) -> None:
    page = llama.workspace.shown["quality"]
    assert isinstance(page, QualityPage)
    llama.workspace.show_page("quality")
    reading = core.Reading((write_text(tmp_path),), WINDOWS, LENGTH)
    llama.evaluating.evaluate(Wanted(reading, (), ("max",)))
    qtbot.waitUntil(lambda: not llama.runs.active, timeout=PATIENCE * PATIENCE)
    assert page.view.source.perplexity.value > 1
    plan, rounded = page.view.rows
    assert (plan.name, rounded.name, rounded.method) == ("The plan", "nvfp4-3t max", "max")
    assert 0 < plan.kl.value < rounded.kl.value
    assert f"{WINDOWS} × {LENGTH} tokens of text.txt" in page.view.summary.text()
    page.tabs.setCurrentIndex(1)
    page.try_it.length.setValue(4)
    page.try_it.prompt.setText("Sentence number")
    page.try_it.go.click()
    qtbot.waitUntil(lambda: not llama.runs.active, timeout=PATIENCE * PATIENCE)
    assert page.try_it.source.text.toPlainText()
    assert page.try_it.model.text.toPlainText()
    assert len(list(tmp_path.glob("**/scratch-*"))) == 1, "both models stay loaded"
    llama.commands.perform("close")
    qtbot.waitUntil(lambda: not list(tmp_path.glob("**/scratch-*")), timeout=PATIENCE)
    assert not _children_in(tmp_path)


def _children_in(folder: Path) -> list[str]:
    """Command lines of processes that run a model of `folder`."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if os.fspath(folder) in line and "studio.lm" in line]
