"""Workers of the window: the same results and bytes, what each does, settings that name them, commands that say so."""

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import pytest
from PySide6.QtWidgets import QLineEdit
from pytestqt.qtbot import QtBot

from studio import core
from studio.cli.arguments import parser
from studio.gui.jobs import tasks
from studio.gui.jobs.worker_list import HEADS, cells
from studio.gui.shell.settings_dialog import SettingsDialog
from studio.gui.shell.studio import Studio
from tests.core.checkpoints import snapshot
from tests.gui.test_exported import prepared

pytest.importorskip("distributed")
LONG = 300_000
TWO = (
    core.WorkerRate("host:41", "model-00001-of-00002.safetensors", 3_000_000, 1_500_000.0, 0.2),
    core.WorkerRate("host:42", "", 5_000_000, 0.0, 3.0),
)


@pytest.mark.proof
def test_quantize_and_export_by_a_worker_give_the_same(
    studio: Studio, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "workforce", core.crew)  # it does all, whether or not that pays
    document, runs, strip = studio.document, studio.runs, studio.commands.window.activity
    studio.commands.settings["workers"] = 1
    studio.commands.perform("quantize")
    qtbot.waitUntil(strip.stop.isVisible, timeout=LONG)
    assert not strip.pause.isVisible(), "workers go on while the window waits"
    qtbot.waitUntil(lambda: not runs.active, timeout=LONG)
    with core.open_model(core.demo_checkpoint()) as model, core.start(core.Machine(), model) as engine:
        events = core.measure(engine, model, core.resolve(core.preset("linear"), model))
        outcome = next(event.outcome for event in events if isinstance(event, core.Finished))
    assert [document.store.rel_err[document.store.index[r.name]] for r in outcome.quantized] == [
        result.rel_err for result in outcome.quantized
    ]
    runs.export(prepared(studio, tmp_path / "spread"))
    qtbot.waitUntil(lambda: not runs.active, timeout=LONG)
    studio.commands.settings["workers"] = 0
    runs.export(prepared(studio, tmp_path / "alone"))
    qtbot.waitUntil(lambda: not runs.active, timeout=LONG)
    assert snapshot(tmp_path / "spread") == snapshot(tmp_path / "alone")


def test_a_scheduler_that_is_silent_keeps_nobody_who_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, gone = Event(), Event()

    @contextmanager
    def silent(_address: str) -> Iterator[str]:
        answers.wait()
        yield "crew"
        gone.set()

    monkeypatch.setattr(core, "workforce", silent)
    with ExitStack() as stack:
        steps = tasks.Workers("tls://far:8786").join(stack)
        assert str(next(steps)) == "Reaching the scheduler at tls://far:8786 …"
        assert next(steps) is None
        steps.close()
    answers.set()
    gone.wait()


def test_the_strip_counts_workers_and_lists_what_each_does(studio: Studio, qtbot: QtBot) -> None:
    strip = studio.commands.window.activity
    strip.begin("Quantizing")
    assert not strip.workers.isVisible()
    strip.show_workers(TWO)
    assert strip.workers.text() == "2 workers"
    strip.workers.click()
    listed = strip.list
    assert listed is not None
    rows = [[listed.table.item(row, column).text() for column in range(len(HEADS))] for row in range(2)]
    assert rows == [
        ["host:41", "model-00001-of-00002.safetensors", "3 MB", "1.5 MB/s", "now"],
        ["host:42", "", "5 MB", "waits", ""],
    ]
    strip.show_workers(TWO[:1])
    assert listed.table.rowCount() == 1
    strip.end("Quantized", "good")
    assert not strip.workers.isVisible()
    listed.close()
    qtbot.waitUntil(lambda: strip.list is None)


def test_silence_is_told() -> None:
    assert cells(core.WorkerRate("host:1", "a part", 0, 0.0, 61.4))[-1] == "61 s ago"


@pytest.mark.parametrize(
    ("workers", "cluster", "words"),
    [(3, "", ["--workers", "3"]), (3, " tls://host:8786 ", ["--cluster", "tls://host:8786"]), (0, "", [])],
)
def test_settings_name_them_and_copied_commands_say_so(
    studio: Studio, workers: int, cluster: str, words: list[str]
) -> None:
    dialog = SettingsDialog(studio.commands.settings, studio.commands.window)
    dialog.fields["workers"].setValue(workers)  # type: ignore[attr-defined]
    line = dialog.fields["cluster"]
    assert isinstance(line, QLineEdit)
    line.setText(cluster)
    line.textEdited.emit(cluster)
    command = studio.editing.command()
    assert command is not None
    options = parser().parse_args(shlex.split(command)[1:])
    assert (options.workers, options.cluster) == (0 if cluster else workers, cluster.strip())
    assert " ".join(words) in command
    assert (studio.runs.workers.count, studio.runs.workers.cluster) == (workers, cluster.strip())
    studio.commands.settings.reset()
    assert line.text() == ""
    dialog.deleteLater()
