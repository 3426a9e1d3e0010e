"""The window stays quick with 10,000 layers; generous bounds, in processor time of the GUI thread."""

import time
from collections.abc import Callable
from pathlib import Path

from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio.gui.layers.columns import KEYS
from studio.gui.shell.studio import Studio
from tests.benchmarks.window_cases import fill_results, wide_checkpoint
from tests.gui.conftest import PATIENCE


def processor_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        began = time.thread_time()
        work()
        QApplication.processEvents()
        times.append(time.thread_time() - began)
    return 1000 * sorted(times)[2]


def test_ten_thousand_layers_do_not_slow_the_table(studio: Studio, qtbot: QtBot, tmp_path: Path) -> None:
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.open_path(wide_checkpoint(tmp_path / "wide", 10_000))
    fill_results(studio)
    qtbot.wait(300)
    table, field = studio.workspace.layers.table, studio.workspace.filter_bar.field
    words = iter(["down", "down_proj", "err>0.1", "block:8-15", ""])
    assert processor_ms(lambda: table.sort_by(KEYS.index("err"))) < 100
    assert processor_ms(lambda: field.setText(next(words))) < 100
    assert processor_ms(lambda: studio.commands.perform("fold_all")) < 120
    assert processor_ms(studio.workspace.summary.refresh) < 60
