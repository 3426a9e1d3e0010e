"""The page Doctor: the open checkpoint or any folder is examined, findings are shown, a repaired copy is written."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.core.findings.finding import Severity
from studio.gui.jobs import tasks
from studio.gui.pages.doctor import NEEDS_SOURCE, NOTHING_CERTAIN, NOTHING_KNOWN, DoctorPage
from studio.gui.pages.findings_table import described, verdict
from studio.gui.shell.commands import Commands
from studio.gui.shell.studio import Studio
from tests.core.findings.building import draft
from tests.core.findings.defects import byte, set_part, third
from tests.gui.conftest import PATIENCE
from tests.gui.keeping.test_sessions import open_again


@pytest.fixture
def page(studio: Studio) -> DoctorPage:
    """The page of the demo checkpoint, in front."""
    studio.commands.perform("doctor")
    found = studio.workspace.shown["doctor"]
    assert isinstance(found, DoctorPage)
    return found


def kinds(page: DoctorPage) -> list[str]:
    """The kinds of what is shown, row by row."""
    return [one.kind for one in page.table.findings.found]


def text_at(page: DoctorPage, row: int, column: int) -> str:
    """What a cell shows."""
    return str(page.table.findings.index(row, column).data())


def test_the_open_checkpoint_is_examined(studio: Studio, page: DoctorPage, wait: Callable[[], None]) -> None:
    assert page.repair.toolTip() == NOTHING_KNOWN
    page.examine.click()
    assert not page.stop.isHidden()
    assert page.examine.isHidden()
    wait()
    assert kinds(page) == ["rope-nested"]
    assert text_at(page, 0, 0) == "● Note"
    assert "rope_theta is 10000" in page.detail.toPlainText()
    assert page.said.text() == "Nothing wrong was found; 1 note."
    assert page.title.text() == "demo-llama"
    assert page.stop.isHidden()
    assert studio.commands.window.activity.title.text() == "Examined"


def test_findings_are_shown_worst_first_with_all_that_is_known(
    studio: Studio, page: DoctorPage, wait: Callable[[], None], tmp_path: Path
) -> None:
    made = draft("modelopt")
    set_part("scales", byte(0x7F))(made)
    made.files.clear()
    studio.examining.examine(made.write(tmp_path / "m"))
    wait()
    assert kinds(page) == ["scales-nan", "tokenizer-missing", "coverage"]
    assert [text_at(page, row, 0) for row in range(3)] == ["✕ Error", "▲ Warning", "● Note"]
    assert text_at(page, 0, 3) == "vllm, transformers, mlx-lm"
    assert page.detail.toPlainText() == described(page.table.findings.found[0])
    for part in ("Block scales that are no number", "Where: model.layers.1", "Evidence: 40 of 4,096", "What helps:"):
        assert part in page.detail.toPlainText()
    assert page.said.text() == "1 error, 1 warning, 1 note."
    page.table.selectRow(1)
    assert "tokenizer" in page.detail.toPlainText()
    assert page.repair.toolTip() == NEEDS_SOURCE
    assert not page.repair.isEnabled()


@pytest.mark.parametrize(
    ("what", "shown"),
    [("block scales", "Block scales"), ("config.json says", "config.json says"), ("NVFP4 of", "NVFP4 of")],
)
def test_names_of_files_and_programs_keep_their_letters(what: str, shown: str) -> None:
    found = core.Finding("kind", "note", what, (), 0, "", (), "")
    assert described(found) == f"{shown}  (kind)"


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ((), ("Nothing was found.", "good")),
        ((("coverage", "note"),), ("Nothing wrong was found; 1 note.", "good")),
        ((("gguf", "note"),), ("It was opened, and not examined; 1 note.", "")),
        ((("gguf", "note"), ("digest", "error"), ("digest", "error")), ("2 errors, 1 note.", "error")),
    ],
)
def test_the_verdict_is_good_only_where_all_was_examined(
    seen: Sequence[tuple[str, Severity]], told: tuple[str, str]
) -> None:
    assert verdict([core.Finding(kind, severity, "", (), 0, "", (), "") for kind, severity in seen]) == told


def test_a_repaired_copy_is_written_and_shown(
    studio: Studio, page: DoctorPage, wait: Callable[[], None], tmp_path: Path
) -> None:
    made = draft("modelopt")
    set_part("third", third(0))(made)
    made.section()["ignore"].clear()
    folder, source = made.write(tmp_path / "m"), draft("plain").write(tmp_path / "source")
    studio.examining.examine(folder)
    wait()
    subject = studio.examining._subject
    assert subject is not None
    assert page.repair.isEnabled()
    studio.examining._examine(type(subject)(folder, source))
    wait()
    assert page.title.text() == "m, compared with source"
    studio.examining.repair(type(subject)(folder, source), tmp_path / "out")
    wait()
    assert kinds(page) == ["coverage"]
    assert page.title.text() == "out, compared with source"
    assert page.repair.toolTip() == NOTHING_CERTAIN
    message = studio.commands.window.messages.items[-1]
    assert (message.tone, message.title) == ("good", "out is repaired")
    assert "weights quantized again from the source: 1 place (tensor-scale-unusable)" in message.text
    assert [title for title, _ in message.fixes] == ["Open it", "Show the folder"]


def test_a_copy_that_can_not_be_written_says_why_and_what_was_found_stays(
    studio: Studio, page: DoctorPage, wait: Callable[[], None], tmp_path: Path
) -> None:
    made = draft("modelopt")
    made.section()["ignore"].clear()
    folder = made.write(tmp_path / "m")
    studio.examining.examine(folder)
    wait()
    before = kinds(page)
    assert studio.examining._subject is not None
    studio.examining.repair(studio.examining._subject, folder)
    wait()
    assert kinds(page) == before
    assert page.said.text() == "Repairing failed; the message says why."
    assert "same folder" in studio.commands.window.messages.items[-1].text


def test_esc_stops_it_and_what_was_found_stays(
    studio: Studio, page: DoctorPage, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = core.Finding("digest", "error", "files are not those", ("a\u202e",), 1, "b", (), "c")

    def endless(*_: object) -> Iterator[Any]:
        yield core.Started("examine", 100, 0)
        yield core.FindingMade(made)
        while True:
            yield core.Progress("examine", 1, "layer")

    monkeypatch.setattr(tasks, "examining", endless)
    page.examine.click()
    qtbot.waitUntil(lambda: kinds(page) == ["digest"], timeout=PATIENCE)
    page.setFocus()
    qtbot.keyClick(page, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: not studio.runs.active, timeout=PATIENCE)
    assert kinds(page) == ["digest"]
    assert page.said.text() == "Stopped: this is what was found so far."
    assert not page.repair.isEnabled()


def test_another_checkpoint_begins_with_an_empty_page(
    studio: Studio, page: DoctorPage, wait: Callable[[], None], tmp_path: Path, qtbot: QtBot
) -> None:
    page.examine.click()
    wait()
    open_again(studio, qtbot, draft("plain").write(tmp_path / "m"))
    assert kinds(page) == []
    assert page.detail.toPlainText() == ""
    page.examine.click()
    wait()
    assert page.title.text() == "m"


def test_from_another_folder_there_is_a_way_back_to_the_open_checkpoint(
    studio: Studio, page: DoctorPage, wait: Callable[[], None], tmp_path: Path
) -> None:
    page.examine.click()
    wait()
    assert page.own.isHidden()
    studio.examining.examine(draft("plain").write(tmp_path / "m"))
    wait()
    assert page.said.text() == "Nothing was found."
    assert not page.own.isHidden()
    page.own.click()
    wait()
    assert page.title.text() == "demo-llama"
    assert page.own.isHidden()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder that can not be opened."""
    folder = draft("modelopt", shards=3).write(tmp_path / "broken")
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(content))
    return folder


def test_what_can_not_be_opened_can_be_examined_in_a_window_of_its_own(
    commands: Commands, broken: Path, wait: Callable[[], None], qtbot: QtBot, tmp_path: Path
) -> None:
    studio = commands.studio
    assert studio is not None
    studio.open(broken)
    qtbot.waitUntil(lambda: not studio.opening.reason, timeout=PATIENCE)
    (fix,) = commands.window.messages.items[-1].fixes
    assert fix[0] == "Examine it"
    fix[1]()
    dialog = studio.examining.dialog
    assert dialog is not None
    wait()
    page = dialog.findChild(DoctorPage)
    assert isinstance(page, DoctorPage)
    assert {"refused", "tensor-moved"} <= set(kinds(page))
    assert page.repair.isEnabled()
    assert studio.examining._subject is not None
    studio.examining.repair(studio.examining._subject, tmp_path / "mended")
    wait()
    assert kinds(page) == ["told-on-opening", "coverage"] or kinds(page) == ["coverage"]
    dialog.close()
    QApplication.processEvents()
    assert studio.examining.dialog is None
    shutil.rmtree(tmp_path / "mended")
