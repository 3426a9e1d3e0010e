"""Placeholder: stands where a view is not available, and says why."""

from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QVBoxLayout, QWidget

from studio.gui.text import label
from studio.gui.theme import Theme


class Placeholder(QWidget):
    """Takes what a view takes and shows one sentence.

    Signals:
        layers_selected(list), layer_activated(str), detail_wanted(str): never sent.
    """

    layers_selected = Signal(list)
    layer_activated = Signal(str)
    detail_wanted = Signal(str)

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        rows = QVBoxLayout(self)
        shown = label(text, "muted", wrap=True)
        shown.setAlignment(Qt.AlignmentFlag.AlignCenter)
        rows.addWidget(shown)
        self.plots: list[Any] = []

    def set_theme(self, theme: Theme) -> None:
        """Nothing to draw."""

    def show_results(self, results: list[Any]) -> None:
        """Nothing to show them in."""

    def show_detail(self, detail: Any) -> None:
        """Nothing to show it in."""

    def set_selection(self, names: list[str]) -> None:
        """Nothing to select."""

    def busy(self, text: str) -> None:
        """Nothing to wait for."""
