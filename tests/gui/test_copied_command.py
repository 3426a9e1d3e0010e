"""The command line that the window copies does what the window would do."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtGui import QGuiApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.cli.arguments import parser
from studio.cli.asked import plan_of
from studio.gui.shell.studio import Studio
from tests.gui.conftest import PATIENCE


@pytest.mark.parametrize("saved", [False, True])
def test_a_copied_command_does_the_same(
    studio: Studio, qtbot: QtBot, tmp_path: Path, names: Callable[[str], list[str]], saved: bool
) -> None:
    studio.plan_bar.preset_wanted.emit("mlp")
    studio.plan_bar.format_wanted.emit("mxfp4")
    studio.document.set_format(names("layers.1.mlp"), "keep")
    studio.document.set_format(names("layers.2.mlp.down"), "mxfp8")
    studio.commands.settings["threads"] = 1
    if saved:
        studio.document.set_format(names("layers.0."), "nvfp4-2t")
        studio.editing.write_plan(tmp_path / "a plan.json")
        studio.editing.read_plan(tmp_path / "a plan.json")
        studio.document.set_format(names("layers.3.mlp.up"), "keep")
    target = tmp_path / "it's here"
    target.mkdir()
    (target / "nvfp4_studio.json").write_text('{"program": {"name": "nvfp4-studio"}}')
    studio.commands.perform("export")
    dialog = studio.exporting.dialog
    assert dialog is not None
    dialog.set_target(target)
    qtbot.waitUntil(lambda: dialog.replace.isVisible(), timeout=PATIENCE)
    dialog.replace.setChecked(True)
    dialog.shards.setCurrentText("2 GB")
    dialog.layouts["mlx"].setChecked(True)
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    dialog.command.click()
    program, *words = shlex.split(QGuiApplication.clipboard().text())
    options = parser().parse_args(words)
    model, job = studio.document.model, dialog.job
    assert job is not None
    assert model is not None
    assert program == "nvfp4-studio"
    assert (options.command, options.source, options.target) == ("quantize", model.path, target)
    asked = core.resolve(plan_of(options), model)
    assert [choice.recipe for choice in asked] == [choice.recipe for choice in job.choices]
    assert (options.layout, options.shard_size, options.overwrite) == ("mlx", 2 * 10**9, True)
    assert (options.restart, options.threads) == (False, 1)
    dialog.reject()


def test_a_plan_that_only_has_the_name_of_a_preset_is_no_preset(studio: Studio) -> None:
    rules = (core.Rule(names=("*down_proj",)),)
    studio.document.set_plan(core.Plan(rules, name="linear"), "another")
    assert studio.editing.command() is None
