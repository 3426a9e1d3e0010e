"""Statistics in the window: used, shown, kept, refused, dropped, and gathered."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.keeping import recall
from studio.gui.layers.method_words import GAIN
from studio.gui.layers.statistics_chip import StatisticsChip
from studio.gui.layers.store import DONE
from studio.gui.shell.studio import Studio
from tests.core.checkpoints import checkpoint, llama
from tests.core.statistics_files import statistics_of
from tests.gui.conftest import PATIENCE
from tests.gui.keeping.test_sessions import open_again, press, told

IN_USE, REFUSED = "Statistics demo.statistics", "The statistics can not be used"


@pytest.fixture
def file(studio: Studio, tmp_path: Path) -> Path:
    assert studio.document.model is not None
    return statistics_of(studio.document.model, tmp_path / "demo.statistics.safetensors")


def use(studio: Studio, qtbot: QtBot, path: Path | None) -> None:
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.checkpoints.use_statistics(path)


def chip(studio: Studio) -> StatisticsChip:
    return studio.commands.window.findChild(StatisticsChip)


def test_statistics_are_used_shown_and_part_of_the_command(studio: Studio, file: Path, qtbot: QtBot) -> None:
    assert chip(studio).text() == "No statistics ▾"
    assert GAIN in studio.plan_bar.method.toolTip()
    studio.document.set_format(studio.document.store.names[:3], "keep")
    use(studio, qtbot, file)
    store = studio.document.store
    assert set(store.method_names) == {"hessian", ""}
    assert chip(studio).text() == f"Statistics: {file.name} ▾"
    assert f"Statistics in use: {file.name}" in studio.plan_bar.method.toolTip()
    about = studio.document.method_lines(store.method_names.index("hessian"))
    assert f"Inputs are known from statistics {file.name}." in about
    assert f"--statistics {file}" in (studio.editing.command() or "")
    assert studio.document.undo.canUndo()
    assert told(studio, IN_USE)
    use(studio, qtbot, None)
    assert studio.document.statistics is None
    assert "importance" in studio.document.store.method_names
    assert studio.document.undo.canUndo()


def test_results_with_other_statistics_are_other_results(
    studio: Studio, file: Path, qtbot: QtBot, wait: Callable[[], None]
) -> None:
    studio.plan_bar.method_wanted.emit("importance")
    studio.commands.perform("quantize")
    wait()
    before = studio.document.outcome()
    use(studio, qtbot, file)
    assert len(studio.document.left()) == len([layer for layer in before.layers if layer.quantized])
    studio.commands.perform("quantize")
    wait()
    after = {layer.name: layer for layer in studio.document.outcome().layers}
    assert {layer.guide for layer in after.values() if layer.quantized} == {"statistics"}
    use(studio, qtbot, None)
    assert [layer.rel_err for layer in studio.document.outcome().layers] == [one.rel_err for one in before.layers]
    assert any(one.rel_err != after[one.name].rel_err for one in before.layers if one.quantized)


def test_statistics_and_what_was_measured_with_them_are_there_the_next_time(
    studio: Studio, file: Path, qtbot: QtBot, wait: Callable[[], None]
) -> None:
    use(studio, qtbot, file)
    studio.commands.perform("quantize")
    wait()
    done = int((studio.document.store.state == DONE).sum())
    open_again(studio, qtbot)
    assert studio.document.statistics == file
    assert int((studio.document.store.state == DONE).sum()) == done > 0


def test_results_of_before_outlive_the_use_of_statistics(
    studio: Studio, file: Path, qtbot: QtBot, wait: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.commands.perform("quantize")
    wait()
    done = int((studio.document.store.state == DONE).sum())
    use(studio, qtbot, file)
    monkeypatch.setattr(recall, "STEP", -1)
    open_again(studio, qtbot)
    studio.document.cache = core.ResultCache()
    use(studio, qtbot, None)
    assert int((studio.document.store.state == DONE).sum()) == done > 0


def test_a_file_that_is_gone_is_told_and_all_else_is_there(studio: Studio, file: Path, qtbot: QtBot) -> None:
    use(studio, qtbot, file)
    studio.plan_bar.format_wanted.emit("nvfp4-2t")
    studio.commands.perform("close")
    file.unlink()
    open_again(studio, qtbot, core.demo_checkpoint())
    assert studio.document.statistics is None
    assert studio.document.state.plan.format == "nvfp4-2t"
    assert file.name in told(studio, REFUSED)[-1].text


def test_statistics_of_another_model_are_refused_and_those_of_before_stay(
    studio: Studio, file: Path, tmp_path: Path, qtbot: QtBot
) -> None:
    with core.open_model(checkpoint(tmp_path / "other", llama(1))) as other:
        wrong = statistics_of(other, tmp_path / "other.statistics.safetensors")
    use(studio, qtbot, file)
    use(studio, qtbot, wrong)
    assert studio.document.statistics == file
    assert "statistics of another model" in told(studio, REFUSED)[-1].text


def test_layers_that_statistics_do_not_know_are_told(studio: Studio, tmp_path: Path, qtbot: QtBot) -> None:
    assert studio.document.model is not None
    path = statistics_of(studio.document.model, tmp_path / "part.statistics.safetensors", without="down_proj")
    use(studio, qtbot, path)
    assert "know nothing of 4 layers" in told(studio, "Statistics with gaps")[-1].text
    store = studio.document.store
    assert {m for n, m in zip(store.names, store.method_names, strict=True) if "down_proj" in n} == {"search"}


def test_a_file_that_is_dropped_is_used(studio: Studio, file: Path, qtbot: QtBot) -> None:
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.open_paths([file])
    assert studio.document.statistics == file


def test_a_file_without_its_checkpoint_is_not_taken_for_one(studio: Studio, file: Path) -> None:
    studio.commands.perform("close")
    studio.commands.open_paths([file])
    assert studio.document.model is None
    assert told(studio, "Statistics are used with a checkpoint")


def test_starting_afresh_keeps_the_statistics(studio: Studio, file: Path, qtbot: QtBot) -> None:
    use(studio, qtbot, file)
    studio.commands.perform("afresh")
    assert studio.document.statistics == file
    assert "hessian" in studio.document.store.method_names


# gathering


def gathered(path: Path) -> core.Calibrated:
    return core.Calibrated(path, 10_000, 4096, 28, ("a", "b"), (), "mlx-lm 0", 3.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, file: Path) -> list[core.Calibration]:
    """Calibrating as if a model ran; what was asked for."""
    asked: list[core.Calibration] = []

    def calibrate(job: core.Calibration) -> Iterator[Any]:
        asked.append(job)
        yield core.Progress("calibrate", 0, "")
        yield core.Started("calibrate", 4096, 0)
        yield core.Progress("calibrate", 2048, "block 1")
        yield gathered(file)

    monkeypatch.setattr(core, "calibrate", calibrate)
    return asked


def ask(studio: Studio) -> Any:
    studio.commands.perform("calibrate")
    assert studio.calibrating.dialog is not None
    return studio.calibrating.dialog


def test_statistics_are_gathered_and_offered(
    studio: Studio, file: Path, fake: list[core.Calibration], tmp_path: Path, qtbot: QtBot, wait: Callable[[], None]
) -> None:
    dialog = ask(studio)
    dialog.out.setText(str(tmp_path / "new.safetensors"))
    dialog.windows.setValue(8)
    dialog.start.click()
    wait()
    assert (fake[0].windows, fake[0].length, fake[0].texts) == (8, 512, (core.calibration_text(),))
    assert fake[0].out == tmp_path / "new.safetensors"
    card = told(studio, "Statistics")[-1]
    assert "28 matrices, 4,096 tokens of text" in card.text
    assert card.hint == "2 matrices of experts saw no token: more text reaches more."
    assert studio.commands.window.activity.figures.text().startswith("4,096 tokens read")
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        press(card, "Use them")
    assert studio.document.statistics == file


def test_the_dialog_says_what_is_in_the_way(studio: Studio, file: Path, tmp_path: Path) -> None:
    dialog, blank = ask(studio), tmp_path / "blank.txt"
    blank.touch()
    dialog.out.setText(str(tmp_path / "new.safetensors"))
    assert dialog.start.isEnabled()
    for field, text, why in (
        (dialog.text, str(tmp_path / "none.txt"), "There is no such text."),
        (dialog.text, str(tmp_path), "The text is a folder: choose a file."),
        (dialog.text, os.devnull, "There is no such text."),
        (dialog.text, str(blank), "The text is empty."),
        (dialog.out, str(file), "There is a file of this name already."),
        (dialog.out, "", "No file is named for the statistics."),
    ):
        dialog.text.setText("")
        field.setText(text)
        assert dialog.why.text() == why
        assert not dialog.start.isEnabled()
    dialog.out.setText(str(file))
    dialog.overwrite.setChecked(True)
    assert dialog.start.isEnabled()
    dialog.reject()


def test_where_nothing_runs_models_the_card_says_what_to_install(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wait: Callable[[], None]
) -> None:
    def calibrate(_job: core.Calibration) -> Iterator[Any]:
        yield core.Progress("calibrate", 0, "")
        raise core.BackendError("running a model needs mlx-lm", hint="pip install 'nvfp4-studio[lm]'")

    monkeypatch.setattr(core, "calibrate", calibrate)
    dialog = ask(studio)
    dialog.out.setText(str(tmp_path / "new.safetensors"))
    dialog.start.click()
    wait()
    card = told(studio, "Calibrating failed")[-1]
    assert card.text == "running a model needs mlx-lm"
    assert "pip install 'nvfp4-studio[lm]'" in card.hint


def test_calibrating_is_cancelled_and_can_not_pause(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, qtbot: QtBot, wait: Callable[[], None]
) -> None:
    closed: list[bool] = []

    def calibrate(_job: core.Calibration) -> Iterator[Any]:
        try:
            yield core.Started("calibrate", 100, 0)
            while True:
                yield core.Progress("calibrate", 1, "block 0")
        finally:
            closed.append(True)

    monkeypatch.setattr(core, "calibrate", calibrate)
    dialog = ask(studio)
    dialog.out.setText(str(tmp_path / "new.safetensors"))
    dialog.start.click()
    qtbot.waitUntil(lambda: studio.runs.active and "block 0" in studio.commands.window.activity.detail.text())
    studio.changed.emit()
    assert not studio.commands.window.actions_of["pause"].isEnabled()
    assert not studio.commands.window.activity.pause.isVisible()
    studio.commands.perform("stop")
    wait()
    assert closed == [True]
    assert not told(studio, "Statistics new")
