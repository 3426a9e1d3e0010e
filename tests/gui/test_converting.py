"""Converting in the window: what is stored goes into another layout, proved first, verified after, and told."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from studio import core
from studio.cli.app import main
from studio.gui.jobs.convert_dialog import ConvertDialog
from studio.gui.shell.studio import Studio
from tests.core.checkpoints import snapshot
from tests.core.findings.building import draft
from tests.gui.conftest import PATIENCE
from tests.gui.test_window import shown_checks

Wait = Callable[[], None]


@pytest.fixture
def quantized(studio: Studio, tmp_path: Path, qtbot: QtBot) -> Studio:
    """A folder that ModelOpt wrote, opened."""
    return opened(studio, draft("modelopt").write(tmp_path / "m"), qtbot)


def opened(studio: Studio, folder: Path, qtbot: QtBot) -> Studio:
    def is_open() -> bool:
        return studio.document.model is not None and studio.document.model.path == folder

    studio.open(folder)
    qtbot.waitUntil(is_open, timeout=PATIENCE)
    return studio


def dialog_of(studio: Studio, target: Path, layout: str, qtbot: QtBot, action: str = "convert") -> ConvertDialog:
    studio.commands.perform(action)
    dialog = studio.converting.dialog
    assert dialog is not None
    dialog.set_target(target)
    dialog.layouts[layout].setChecked(True)
    qtbot.waitUntil(lambda: "✓" in shown_checks(dialog) or "✕" in shown_checks(dialog), timeout=PATIENCE)
    return dialog


def titles(studio: Studio) -> list[str]:
    return [message.title for message in studio.commands.window.messages.items]


def test_codes_go_into_another_layout_and_the_end_is_told(
    quantized: Studio, tmp_path: Path, qtbot: QtBot, wait: Wait
) -> None:
    assert "Quantized already: NVFP4, three tiers, ModelOpt" in titles(quantized)
    dialog = dialog_of(quantized, tmp_path / "out", "compressed-tensors", qtbot)
    assert "Layers: 21 codes kept" in shown_checks(dialog)
    assert dialog.export.text().startswith("Convert ")
    dialog.export.click()
    wait()
    assert "Converted and verified out" in titles(quantized)
    with core.open_model(tmp_path / "m") as source, core.start(core.Machine(threads=1), source) as engine:
        *_, ended = core.verify(engine, tmp_path / "out", source)
    assert isinstance(ended, core.Finished)
    assert max(result.rel_err for result in ended.outcome.layers) < 3e-7  # scales that have no divisor


def test_the_command_that_is_copied_writes_the_same(
    quantized: Studio, tmp_path: Path, qtbot: QtBot, wait: Wait
) -> None:
    dialog = dialog_of(quantized, tmp_path / "out", "compressed-tensors", qtbot)
    command = dialog.written_command()
    assert command is not None
    dialog.export.click()
    wait()
    whole = snapshot(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "first")
    assert main([*command.split()[1:], "--quiet"]) == 0
    assert snapshot(tmp_path / "out") == whole


def test_every_target_says_what_becomes_of_the_layers_or_why_it_can_not_be(quantized: Studio, qtbot: QtBot) -> None:
    quantized.commands.perform("convert")
    dialog = quantized.converting.dialog
    assert dialog is not None
    qtbot.waitUntil(lambda: "decoded" in dialog.reasons["plain"].text(), timeout=PATIENCE)
    assert dialog.reasons["compressed-tensors"].text().startswith("21 codes kept")
    assert "copied" in dialog.reasons["modelopt"].text()
    dialog.layouts["gguf"].setChecked(True)
    assert dialog.form.target.suffix == ".gguf"
    dialog.layouts["plain"].setChecked(True)
    assert dialog.form.target.suffix == ""
    dialog.reject()


def test_a_loss_is_told_with_its_size_and_goes_only_when_it_is_accepted(
    quantized: Studio, tmp_path: Path, qtbot: QtBot
) -> None:
    dialog = dialog_of(quantized, tmp_path / "out", "plain", qtbot)
    assert "can not be stored without a loss" in shown_checks(dialog)
    assert "Decoded weights in float32 hold them; Accept the loss rounds them." in shown_checks(dialog)
    assert not dialog.export.isEnabled()
    assert dialog._form.lossy.isVisible()
    dialog._form.lossy.setChecked(True)
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    assert "relative error" in shown_checks(dialog)
    assert dialog.form.options()["allow-lossy"] is True
    dialog._form.lossy.setChecked(False)
    dialog._form.dtype.setCurrentText("float32")
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    assert "proved to the bit" in shown_checks(dialog)
    assert not dialog._form.lossy.isVisible()
    dialog.reject()


def test_what_is_proved_is_not_proved_again_for_another_folder(
    quantized: Studio, tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialog = dialog_of(quantized, tmp_path / "out", "compressed-tensors", qtbot)
    monkeypatch.setattr(core, "transcode", None)
    dialog.set_target(tmp_path / "other")
    qtbot.waitUntil(lambda: dialog.job is not None, timeout=PATIENCE)
    assert dialog.job is not None
    assert dialog.job.target == tmp_path / "other"
    dialog.reject()


def test_an_export_of_ours_is_converted_by_export(studio: Studio, tmp_path: Path, qtbot: QtBot, wait: Wait) -> None:
    source = draft("plain").write(tmp_path / "plain")
    assert main(["quantize", str(source), str(tmp_path / "ours"), "--layout", "modelopt", "--quiet"]) == 0
    opened(studio, tmp_path / "ours", qtbot)
    dialog = dialog_of(studio, tmp_path / "out", "mlx", qtbot, "export")
    assert "Layers: 21 codes kept" in shown_checks(dialog)
    dialog.export.click()
    wait()
    assert "Converted and verified out" in titles(studio)


def test_quantizing_what_is_quantized_is_said_once_with_the_error_and_the_way_without(
    quantized: Studio, wait: Wait
) -> None:
    errors = []
    for format_name in ("mxfp4", "nvfp4-2t"):
        quantized.editing.set_plan_format(format_name)
        quantized.commands.perform("quantize")
        wait()
        errors.append(quantized.document.store.figures().rel_err)
    (told,) = [m for m in quantized.commands.window.messages.items if m.title.startswith("Quantized a second time")]
    assert f"relative error {errors[0]:.2g} against what is stored" in told.title
    assert "casts them to mxfp4 where that is exact" in told.text
    ((offer, convert),) = told.fixes
    assert offer == "Convert without loss…"
    convert()
    assert quantized.converting.dialog is not None
    quantized.converting.dialog.reject()


def test_the_dialog_of_exports_offers_to_convert_instead(quantized: Studio, qtbot: QtBot) -> None:
    quantized.commands.perform("export")
    dialog = quantized.exporting.dialog
    assert dialog is not None
    qtbot.waitUntil(lambda: "Quantized already" in shown_checks(dialog), timeout=PATIENCE)
    dialog.conversion_wanted.emit()
    assert quantized.converting.dialog is not None
    quantized.converting.dialog.reject()
    dialog.reject()
