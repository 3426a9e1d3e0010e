"""Picture: a plot as others see it: title, model, plan, summary and legend above it, as an image or in a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QPoint, QRect, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QWidget

from studio.gui.shell.theme import Theme

SUFFIXES = (".png", ".svg", ".csv")
PIXELS = 2
"""Of an image, per point."""
_WRAPPED = int(Qt.TextFlag.TextWrapAnywhere | Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
_WORDS = int(Qt.TextFlag.TextWordWrap | Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands above a picture: a title, and lines below it."""

    title: str
    lines: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join([self.title, *self.lines])


@dataclass(frozen=True, slots=True)
class Picture:
    """A widget below its caption and its signs: legend, key of colours."""

    widget: QWidget
    caption: Caption
    signs: Sequence[QWidget]
    theme: Theme

    def image(self) -> QImage:
        """The picture as an image."""
        size = self.size()
        image = QImage(size * PIXELS, QImage.Format.Format_ARGB32)
        image.setDevicePixelRatio(PIXELS)
        self._paint(image)
        return image

    def write(self, path: Path) -> None:
        """Write it as PNG or SVG. Raises OSError when the file can not be written."""
        with path.open("wb"):
            pass
        if path.suffix == ".svg":
            drawing = QSvgGenerator()
            drawing.setFileName(str(path))
            drawing.setTitle(self.caption.text)
            drawing.setSize(self.size())
            drawing.setViewBox(QRect(QPoint(0, 0), self.size()))
            self._paint(drawing)
        elif not self.image().save(str(path)):
            raise OSError(f"{path.name}: the picture could not be written")

    def size(self) -> QSize:
        """In points: as wide as the widget."""
        above = self._margin + sum(place.height() for _, place, _ in self._texts())
        return QSize(self.widget.width(), above + sum(self._height(sign) for sign in self.signs) + self.widget.height())

    @property
    def _margin(self) -> int:
        return self.theme.font_px // 2

    def _height(self, sign: QWidget) -> int:
        return sign.height() + self._margin // 2

    def _texts(self) -> list[tuple[str, QRect, QFont]]:
        """Title and lines, each in as many rows as it needs, below each other."""
        found, y = [], self._margin
        for number, text in enumerate((self.caption.title, *self.caption.lines)):
            font = QFont(self.widget.font())
            font.setPixelSize(self.theme.font_px)
            font.setBold(number == 0)
            room = QRect(self._margin, y, max(self.widget.width() - 2 * self._margin, 40), 10_000)
            place = QFontMetrics(font).boundingRect(room, _wrap(text), text)
            place.setRect(room.x(), y, room.width(), place.height() + 3)
            found.append((text, place, font))
            y += place.height()
        return found

    def _paint(self, device: QImage | QSvgGenerator) -> None:
        painter = QPainter(device)
        try:
            painter.fillRect(QRect(QPoint(0, 0), self.size()), QColor(self.theme.surface))
            y = self._margin
            for number, (text, place, font) in enumerate(self._texts()):
                painter.setFont(font)
                painter.setPen(QColor(self.theme.muted if number else self.theme.text))
                painter.drawText(place, _wrap(text), text)
                y = place.bottom() + 1
            for sign in self.signs:
                sign.render(painter, QPoint(self._margin, y), renderFlags=_CONTENT)
                y += self._height(sign)
            self.widget.render(painter, QPoint(0, y), renderFlags=_CONTENT)
        finally:
            painter.end()


_CONTENT = QWidget.RenderFlag.DrawChildren
"""Without the ground of the window."""


def _wrap(text: str) -> int:
    """Long names without spaces are cut anywhere."""
    return _WORDS if " " in text else _WRAPPED
