"""Summary: the checkpoint in one line, and how its bytes divide over formats."""

import math

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from studio import core
from studio.gui.layers.columns import count_text
from studio.gui.layers.document import Document
from studio.gui.layers.store import Figures
from studio.gui.shell.text import Elided, label, tip
from studio.gui.shell.theme import LIGHT, Theme

ROOM_FOR_FIT = 66
"""Text heights across, from which on the size of memory is shown."""
MEMORY_SIZES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)


class Summary(QWidget):
    """Name, weights, bytes before and after, bits per weight and error of the checkpoint that is open."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self.name = label("", "title")
        self.about = Elided(mode=Qt.TextElideMode.ElideRight)
        self.sizes, self.bits, self.error = label("", "bold"), label(), label("", "bold")
        self.fits = label("", "muted")
        top = QHBoxLayout()
        top.setSpacing(16)
        for part in (self.name, self.about, self.sizes, self.bits, self.error, self.fits):
            top.addWidget(part, 1 if part is self.about else 0)
        self.strip = FormatStrip()
        rows = QVBoxLayout(self)
        rows.setContentsMargins(10, 8, 10, 6)
        rows.setSpacing(6)
        rows.addLayout(top)
        rows.addWidget(self.strip)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self.strip.set_theme(theme)

    def refresh(self) -> None:
        """Show the figures of now."""
        model = self._document.model
        if model is None:
            return
        figures = self._document.store.figures()
        self.name.setText(core.printable(model.name, 40))
        self.about.set_text(_about(model, figures))
        share = round(figures.nbytes_out / figures.nbytes_in - 1, 2) + 0.0 if figures.nbytes_in else 0
        before, after = core.size_text(figures.nbytes_in), core.size_text(figures.nbytes_out)
        self.sizes.setText(f"{before} → {after} ({share:{'+' if share else ''}.0%})".replace("-", "−"))
        self.bits.setText(f"{figures.bits:.2f} bits/weight")
        self.error.setText("" if math.isnan(figures.rel_err) else f"error {figures.rel_err:.4f}")
        self.error.setToolTip("Relative error over all weights measured so far, together.")
        self._show_fit(figures)
        self.strip.show_shares(self._document.store.shares())

    def _show_fit(self, figures: Figures) -> None:
        room = next((size for size in MEMORY_SIZES if figures.nbytes_out * 1.2 <= size * 1e9), None)
        self.fits.setText(f"fits in {room} GB" if room else "")
        self.fits.setToolTip("Memory for the weights, with a fifth for the rest of a runtime.")
        self.fits.setVisible(bool(room) and self.width() > ROOM_FOR_FIT * self.fontMetrics().height())


def _about(model: core.Model, figures: Figures) -> str:
    size = count_text(figures.count)
    parts = [
        f"{size} weights",
        core.counted(len(model.layers), "layer"),
        core.counted(model.block_count, "block"),
    ]
    return " · ".join(part for part in (*parts, core.printable(model.architecture, 60)) if part)


class FormatStrip(QWidget):
    """The bytes of the checkpoint as one bar, a piece per format, each with its name."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Bytes by format")
        self._theme = LIGHT
        self._shares: dict[str, int] = {}

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._theme = theme
        self.updateGeometry()
        self.update()

    def show_shares(self, shares: dict[str, int]) -> None:
        """Show bytes per format."""
        self._shares = shares
        total = sum(shares.values()) or 1
        said = ", ".join(f"{_word(name)} {nbytes / total:.0%}" for name, nbytes in shares.items())
        self.setAccessibleDescription(said)
        self.setToolTip(tip(said))
        self.update()

    def sizeHint(self) -> QSize:
        """One line high."""
        return QSize(200, self._theme.font_px + 8)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the pieces."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        total = sum(self._shares.values()) or 1
        left, width, height = 0.0, float(self.width()), float(self.height())
        for name, nbytes in self._shares.items():
            piece = QRectF(left, 0, width * nbytes / total, height)
            left += piece.width()
            self._draw_piece(painter, piece, name, nbytes / total)

    def _draw_piece(self, painter: QPainter, piece: QRectF, name: str, share: float) -> None:
        theme = self._theme
        kept = name == core.KEEP
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(theme.raised if kept else theme.format_color(name)))
        painter.drawRoundedRect(piece.adjusted(0, 0, -2, 0), 4, 4)
        text = f"{_word(name)} {share:.0%}"
        inner = piece.adjusted(7, 0, -7, 0)
        if self.fontMetrics().horizontalAdvance(text) <= inner.width():
            painter.setPen(QColor(theme.text if kept else theme.surface))
            painter.drawText(inner, int(Qt.AlignmentFlag.AlignVCenter), text)


def _word(name: str) -> str:
    return "kept" if name == core.KEEP else name
