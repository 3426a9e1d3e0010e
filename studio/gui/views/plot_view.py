"""PlotView: a view of one plot; DistributionView: one of how weights are distributed."""

from PySide6.QtCore import QPointF, QRectF
from PySide6.QtWidgets import QVBoxLayout, QWidget

from studio.gui.views.distributions import Distributions
from studio.gui.views.plot import Plot
from studio.gui.views.view import View


class PlotView(View):
    """A view that is one plot. A subclass overrides `new_plot`, `redraw`, `tip_at` and what the mouse does.

    Signals: see `View`.
    """

    plot: Plot

    def make_plots(self) -> None:
        """One plot, which tells what the pointer is on."""
        self.plot = self.new_plot()
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plot)
        box = self.plot.box
        box.picked.connect(self.picked)
        box.opened.connect(self.opened)
        box.banded.connect(self.banded)
        self.plot.hovered.connect(lambda point: self.say(self.tip_at(point)))
        self.plot.left.connect(lambda: self.say([]))

    def theme_changed(self) -> None:
        """Draw with `theme`."""
        self.plot.set_theme(self.theme)
        self.redraw()

    # What a subclass says

    def new_plot(self) -> Plot:
        """The plot."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw everything again."""
        raise NotImplementedError

    def tip_at(self, point: QPointF) -> list[str]:
        """Lines about what is at a place of the plot."""
        raise NotImplementedError

    def picked(self, point: QPointF, add: bool) -> None:
        """A click on a place of the plot; `add` to what is selected."""

    def opened(self, point: QPointF) -> None:
        """A double click."""

    def banded(self, rect: QRectF, add: bool) -> None:
        """A rubber band was drawn."""


class DistributionView(PlotView):
    """A view of how many weights have which size. Signals: see `View`."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.distributions = Distributions()

    def results_changed(self) -> None:
        """Draw again, unless nothing changed."""
        if self.distributions.update(self.results):
            self.redraw()
