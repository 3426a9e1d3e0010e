"""Activity: the run that is going on, in bytes, with its rate and the time left."""

import time
from dataclasses import dataclass, field

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from studio.gui.shell.appearance import themed_icon
from studio.gui.shell.text import Elided, button, label, set_tone
from studio.gui.shell.theme import LIGHT, Theme

STEADY_SECONDS = 10.0
SHOWN_AFTER_SECONDS, SHOWN_AFTER_SHARE = 2.0, 0.03
SHORTEST_SPAN = 0.05
LARGEST_STEP = 0.2


@dataclass
class Estimate:
    """Rate and time left of a run of `total` bytes: an average over the last seconds that never jumps."""

    total: int
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    rate: float = 0.0
    left: float | None = None
    waited: float = 0.0
    _last: float = 0.0
    _counted: int = 0
    _held: float | None = None

    def __post_init__(self) -> None:
        self._last = self.started

    def update(self, done: int, now: float) -> None:
        """`done` bytes are worked through at the moment `now`."""
        span = now - self._last
        if span < SHORTEST_SPAN or self._held is not None:
            self.done = max(self.done, done)
            return
        fresh = (done - self._counted) / span
        weight = min(span / STEADY_SECONDS, 1.0) if self.rate else 1.0
        self.rate += weight * (fresh - self.rate)
        self.done = self._counted = done
        self._last = now
        self._estimate(now, span)

    def _estimate(self, now: float, span: float) -> None:
        long_enough = (
            now - self.started - self.waited > SHOWN_AFTER_SECONDS or self.done > SHOWN_AFTER_SHARE * self.total
        )
        if self.rate <= 0 or not long_enough:
            return
        wanted = (self.total - self.done) / self.rate
        if self.left is None:
            self.left = wanted
            return
        expected = max(self.left - span, 0.0)
        room = LARGEST_STEP * max(expected, 1.0)
        self.left = min(max(wanted, expected - room), expected + room)

    def hold(self, now: float) -> None:
        """The run waits: time does not count."""
        if self._held is None:
            self._held = now

    def go_on(self, now: float) -> None:
        """The run goes on: time counts again."""
        if self._held is not None:
            waited, self._held = now - self._held, None
            self.waited += waited
            self._last += waited

    @property
    def share(self) -> float:
        """Part that is done, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    whole = int(seconds + 0.5)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
    return f"{whole // 60}:{whole % 60:02}"


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
        self.above = button("", self.worst_wanted.emit, "flat", "Select them")
        self.pause = button("Pause", self.pause_wanted.emit)
        self.stop = button("Cancel", self.stop_wanted.emit)
        self._arrange()
        self.hide()

    def _arrange(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(12)
        for part in (self.title, self.detail, self.figures, self.above, self.pause, self.stop):
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
        self.show_paused(False)
        self._show_buttons(True)
        self.pause.setVisible(pausable)
        self.show()

    def show_progress(self, estimate: Estimate, detail: str, size: str, rate: str) -> None:
        """How far the run is; called at most ten times a second."""
        self.bar.show_share(estimate.share)
        left = f"{duration(estimate.left)} left" if estimate.left is not None else ""
        self.figures.setText("  ·  ".join(part for part in (f"{estimate.share:.0%}", size, rate, left) if part))
        self.detail.set_text(detail)

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
