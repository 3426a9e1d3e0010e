"""Overview: the plots over all layers, in as many groups as there is room for."""

from itertools import pairwise
from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QSplitter, QTabWidget, QWidget

from studio.gui.views import Views

Sizes = list[list[int]]

WIDE, TALL = 48, 33
"""Text heights across and down, from which on there is room for more plots beside and above each other."""
_PLOTS = (
    ("RegimeView", "Scale regimes"),
    ("HistogramView", "Outliers"),
    ("TailView", "Tail"),
    ("ScatterView", "Error × outliers"),
)


class Overview(QWidget):
    """The plots: where there is room, errors above and two groups below; where there is little, one group of tabs."""

    def __init__(self, made: Views, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._error: Any = made["ErrorView"]
        self._plots: list[tuple[Any, str]] = [(made[name], title) for name, title in _PLOTS]
        self.first, self.second = QTabWidget(), QTabWidget()
        for tabs in (self.first, self.second):
            tabs.setDocumentMode(True)
            tabs.setMinimumHeight(140)
            shrinkable(tabs)
            tabs.setAccessibleName("Plots")
        self.below = QSplitter(Qt.Orientation.Horizontal)
        self.below.addWidget(self.first)
        self.below.addWidget(self.second)
        self.whole = QSplitter(Qt.Orientation.Vertical)
        self.whole.addWidget(self.below)
        self.whole.setChildrenCollapsible(False)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.whole)
        self._arranging = QTimer(self, singleShot=True, interval=0)
        self._arranging.timeout.connect(self.arrange)
        self._shape: tuple[bool, bool] | None = None
        self._sizes: dict[str, Sizes] = {}  # of the panes of each shape that was seen
        self._arrange(wide=False, tall=True)

    def panes(self) -> dict[str, Sizes]:
        """Sizes of the panes for each shape that was seen: one above the other, and side by side."""
        if self._shape is not None:
            self._sizes[_called(self._shape)] = [self.whole.sizes(), self.below.sizes()]
        return dict(self._sizes)

    def restore_panes(self, sizes: dict[str, Sizes]) -> None:
        """Take over what `panes` gave."""
        self._sizes = dict(sizes)
        self._set_sizes()

    def reset_layout(self) -> None:
        """Panes as they were at first."""
        self._sizes.clear()
        self._set_sizes()

    def _set_sizes(self) -> None:
        kept = self._sizes.get(_called(self._shape)) if self._shape is not None else None
        if kept is not None:
            self.whole.setSizes(kept[0])
            self.below.setSizes(kept[1])
            return
        if self.whole.count() > 1:
            self.whole.setSizes([450, 550])
        self.below.setSizes([560, 440])  # two plots in one view, and one in each of the others

    def _arrange(self, *, wide: bool, tall: bool) -> None:
        if (wide, tall) == self._shape:
            return
        self.panes()
        self._shape = wide, tall
        shown = self.first.currentWidget()
        if tall:
            self.whole.insertWidget(0, self._error)
            self._error.show()
        else:
            self.first.insertTab(0, self._error, "Error by layer")
        for number, (view, title) in enumerate(self._plots):
            (self.second if wide and number else self.first).addTab(view, title)
        self.second.setVisible(wide)
        groups = [part for tabs in (self.first, self.second) for part in (tabs, tabs.tabBar())]
        for before, after in pairwise([*self._error.choices.findChildren(QComboBox), self._error.more, *groups]):
            QWidget.setTabOrder(before, after)
        self.first.setCurrentIndex(max(self.first.indexOf(shown), 0) if shown is not None and tall else 0)
        self._set_sizes()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Two groups of plots where it is wide, the errors above them where it is tall."""
        super().resizeEvent(event)
        self._arranging.start()  # not now: Qt resizes while it styles, and plots must not change places meanwhile

    def arrange(self) -> None:
        """As many groups as there is room for."""
        height = self.fontMetrics().height()
        self._arrange(wide=self.width() >= WIDE * height, tall=self.height() >= TALL * height)


def _called(shape: tuple[bool, bool]) -> str:
    return " ".join(word for word, holds in zip(("wide", "tall"), shape, strict=True) if holds) or "small"


def shrinkable(tabs: QTabWidget) -> None:
    """Shorten the titles of tabs where there is little room, rather than hide some."""
    tabs.setUsesScrollButtons(False)
    tabs.setElideMode(Qt.TextElideMode.ElideRight)
