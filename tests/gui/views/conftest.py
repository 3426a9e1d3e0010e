"""Views on the screen, alone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from studio.gui import views
from studio.gui.shell.theme import LIGHT


@pytest.fixture
def show(qtbot: QtBot) -> Iterator[Callable[[str], Any]]:
    """Shows a view by its name, empty."""
    shown: list[Any] = []

    def make(name: str) -> Any:
        view = getattr(views, name)()
        qtbot.addWidget(view)
        view.resize(700, 420)
        view.set_theme(LIGHT)
        view.show()
        qtbot.waitExposed(view)
        shown.append(view)
        return view

    yield make
    for view in shown:
        view.close()
