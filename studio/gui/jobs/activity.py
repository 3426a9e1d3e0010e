"""Activity: the run that is going on, in bytes, with its rate and the time left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from studio.gui.jobs.estimate import Estimate
from studio.gui.shell.appearance import themed_icon
from studio.gui.shell.text import Elided, button, label, set_tone
from studio.gui.shell.theme import LIGHT, Theme

if TYPE_CHECKING:  # the strip is shown before the program has loaded what computes
    from studio import core
    from studio.gui.jobs.worker_list import WorkerList


class ProgressLine(QWidget):
    """How far a run is. `QProgressBar` paints at once with everything that waits to be painted; this one waits too."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(8)
        self.setAccessibleName("Progress")
        self._share = 0.0
        self._ink = self._ground = QColor()

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._ink, self._ground = QColor(theme.accent), QColor(theme.raised)
        self.update()

    def show_share(self, share: float) -> None:
        """Show `share`, 0 to 1."""
        self._share = share
        self.setAccessibleDescription(f"{share:.0%}")
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the line."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        for ink, width in ((self._ground, self.width()), (self._ink, round(self.width() * self._share))):
            painter.setBrush(ink)
            painter.drawRoundedRect(0, 0, width, self.height(), 4, 4)


class Activity(QWidget):
    """A strip at the lower edge: what runs, how far it is, how long it takes, and what to do about it.

    Signals:
        pause_wanted(), stop_wanted(): a button was pressed.
        worst_wanted(): show the layers above the warning line.
    """

    pause_wanted = Signal()
    stop_wanted = Signal()
    worst_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Activity")
        self.title, self.figures = label("", "bold"), label()
        self.detail = Elided()
        self.bar = ProgressLine()
        self._what = ""
        self._theme = LIGHT
        self.workers = button("", self._list_workers, "flat", "What each of them does")
        self._known: Sequence[core.WorkerRate] = ()
        self.list: WorkerList | None = None
        self.above = button("", self.worst_wanted.emit, "flat", "Select them")
        self.pause = button("Pause", self.pause_wanted.emit)
        self.stop = button("Cancel", self.stop_wanted.emit)
        self._arrange()
        self.hide()

    def _arrange(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(12)
        for part in (self.title, self.detail, self.figures, self.workers, self.above, self.pause, self.stop):
            top.addWidget(part, 1 if part is self.detail else 0)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(10, 6, 10, 8)
        rows.setSpacing(5)
        rows.addLayout(top)
        rows.addWidget(self.bar)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours. One height in every state: otherwise all plots are painted again."""
        self.setFixedHeight(2 * theme.font_px + 36)
        self._theme = theme
        self.bar.set_theme(theme)
        for made, name in ((self.pause, "pause"), (self.stop, "stop")):
            made.setIcon(themed_icon(name, theme))
            made.setIconSize(QSize(16, 16))

    def show_ready(self, title: str, detail: str) -> None:
        """Nothing runs: say what could."""
        self.end(title, "")
        self.detail.set_text(detail)
        self.show_above(0)
        self.show()

    def begin(self, title: str, *, pausable: bool = True) -> None:
        """A run starts."""
        self._what = title
        set_tone(self.title, "")
        self.detail.set_text("")
        self.figures.setText("")
        self.bar.show_share(0.0)
        self.bar.show()
        self.show_above(0)
        self.show_workers(())
        self.show_paused(False)
        self._show_buttons(True)
        self.pause.setVisible(pausable)
        self.show()

    def show_progress(self, estimate: Estimate, detail: str, size: str, rate: str) -> None:
        """How far the run is; called at most ten times a second."""
        self.bar.show_share(estimate.share)
        parts = (f"{estimate.share:.0%}", size, rate, estimate.left_text)
        self.figures.setText("  ·  ".join(part for part in parts if part))
        self.detail.set_text(detail)

    def show_workers(self, workers: "Sequence[core.WorkerRate]") -> None:
        """How many workers there are, and, where the list is open, what each does."""
        self._known = workers
        self.workers.setText("1 worker" if len(workers) == 1 else f"{len(workers):,} workers")
        self.workers.setVisible(bool(workers))
        if self.list is not None:
            self.list.show_workers(workers)

    def _list_workers(self) -> None:
        from studio.gui.jobs.worker_list import WorkerList

        if self.list is None:
            self.list = WorkerList(self.window())
            self.list.destroyed.connect(self._forget_list)
            self.list.show_workers(self._known)
        self.list.show()

    def _forget_list(self) -> None:
        self.list = None

    def show_above(self, count: int) -> None:
        """How many layers are above the warning line."""
        self.above.setText(f"▲ {count:,} above the line")
        self.above.setVisible(count > 0)

    def show_paused(self, paused: bool) -> None:
        """The run waits, or goes on."""
        self.title.setText(f"{self._what}, paused" if paused else self._what)
        self.pause.setText("Resume" if paused else "Pause")
        self.pause.setIcon(themed_icon("quantize" if paused else "pause", self._theme))

    def show_stopping(self) -> None:
        """The user asked to stop: say so at once."""
        self.title.setText("Stopping …")
        self.stop.setEnabled(False)
        self.pause.setEnabled(False)

    def end(self, title: str, tone: str, figures: str = "") -> None:
        """The run is over; the strip stays to say how it ended."""
        self.show_workers(())
        self.title.setText(title)
        set_tone(self.title, tone)
        self.detail.set_text("")
        self.figures.setText(figures)
        self._show_buttons(False)
        self.bar.hide()

    def _show_buttons(self, shown: bool) -> None:
        for made in (self.pause, self.stop):
            made.setVisible(shown)
            made.setEnabled(shown)
