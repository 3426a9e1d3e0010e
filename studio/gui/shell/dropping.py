"""Dropping: what a thing is taken for when it is dropped on the window, and a sheet that says so while it hovers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QMimeData, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from studio.gui.shell.places import Place, is_address, shown_name
from studio.gui.shell.theme import LIGHT, Theme

Use = Literal["checkpoint", "plan", "statistics", "address"]
PARTS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
"""Files of a checkpoint that stand for their folder, as its index does."""
WORDS: dict[Use, str] = {
    "checkpoint": "Open",
    "plan": "Follow the plan",
    "statistics": "Use the statistics",
    "address": "Look what is at",
}
MARGIN, CORNER, COVER = 14, 14, 225
"""Pixels around the sheet and of its corners, and how much it covers of what is below, of 255."""


def use_of(place: Place) -> Use:
    """What a file, folder or address is taken for, by its name alone."""
    if is_address(place):
        return "address"
    name = Path(place).name.lower()
    if name.endswith((".statistics.safetensors", ".dat")) or "imatrix" in name:
        return "statistics"
    return "plan" if name.endswith(".json") and not _is_part(name) else "checkpoint"


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that a path stands for: the folder of a file that is no whole one by itself."""
    return path.parent if _is_part(path.name.lower()) else path


def _is_part(name: str) -> bool:
    return name in PARTS or name.endswith(".index.json")


def dropped_places(data: QMimeData) -> list[Place]:
    """Files and folders of this machine in what is dragged; else the one address in it, of a link or a text."""
    local: list[Place] = [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()]
    if local:
        return local
    text = data.urls()[0].toString() if data.urls() else data.text().strip()
    return [text] if is_address(text) and len(text.split()) == 1 else []


def promise(places: Sequence[Place]) -> str:
    """What dropping these will do."""
    place = places[0]
    name = shown_name(place if isinstance(place, str) else checkpoint_of(place))
    return f"{WORDS[use_of(place)]} {name}"


class DropSheet(QWidget):
    """Lies over its parent while something is dragged above it."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._below = parent
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._theme = LIGHT
        self.text = ""
        self.hide()

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._theme = theme
        self.update()

    def promise(self, text: str) -> None:
        """Lie over everything and say what will be done; go when there is nothing to say."""
        self.text = text
        self.setAccessibleName(text)
        self.setGeometry(self._below.rect())
        self.setVisible(bool(text))
        self.raise_()

    def paintEvent(self, event: QPaintEvent) -> None:
        """A veil, a dashed frame as that of the welcome page, and the words in its middle."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        veil = QColor(self._theme.window)
        veil.setAlpha(COVER)
        painter.fillRect(self.rect(), veil)
        room = QRectF(self.rect()).adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN)
        painter.setPen(QPen(QColor(self._theme.accent), 2, Qt.PenStyle.DashLine))
        painter.drawRoundedRect(room, CORNER, CORNER)
        font = painter.font()
        font.setPixelSize(round(self._theme.font_px * 2.1))
        font.setWeight(font.Weight.Light)
        painter.setFont(font)
        painter.setPen(QColor(self._theme.text))
        across = int(room.width()) - 4 * MARGIN
        shown = painter.fontMetrics().elidedText(self.text, Qt.TextElideMode.ElideMiddle, across)
        painter.drawText(room, int(Qt.AlignmentFlag.AlignCenter), shown)
