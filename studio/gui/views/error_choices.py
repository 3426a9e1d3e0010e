"""What can be chosen of the error plot: marks, order, colours and kind in boxes above it, its axis in the menu."""

from collections.abc import Callable, Sequence

from PySide6.QtCore import Signal
from PySide6.QtGui import QActionGroup, QStandardItemModel
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QMenu, QWidget

from studio.gui.views.experts import WORST
from studio.gui.views.sections import ORDERS

MARKS = (("auto", "Automatic"), ("dots", "Dots"), ("bars", "Bars"), ("boxes", "Boxes"), ("experts", "Experts"))
SCALES = (("auto", "automatic"), ("zero", "from zero"), ("log", "logarithmic"))


class ErrorChoices(QWidget):
    """Marks, order and colours; for a map of experts, their kind instead of order and colours.

    Signals:
        changed(): the user chose something else.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(4)
        self.marks_box = self._choice("Marks", [text for _, text in MARKS])
        self.order_box = self._choice("Order", ("By block", "By kind", "Worst first"))
        self.color_box = self._choice("Colours", ("Colour: kind", "Colour: format"))
        self.kind_box = self._choice("Kind of the experts", (WORST,))

    def _choice(self, name: str, texts: Sequence[str]) -> QComboBox:
        box = QComboBox()
        box.addItems(list(texts))
        box.setAccessibleName(name)
        box.setToolTip(name)
        box.currentIndexChanged.connect(lambda _: self.changed.emit())
        self._row.addWidget(box)
        return box

    @property
    def marks(self) -> str:
        """The first of a pair of `MARKS`."""
        return MARKS[self.marks_box.currentIndex()][0]

    @property
    def order(self) -> str:
        """One of `ORDERS`."""
        return ORDERS[self.order_box.currentIndex()]

    @property
    def color_by(self) -> str:
        """What colours tell: "kind" or "format"."""
        return ("kind", "format")[self.color_box.currentIndex()]

    @property
    def kind(self) -> str:
        """Which layers of the experts: a kind, or `WORST`."""
        return self.kind_box.currentText()

    def set_marks(self, marks: str) -> None:
        """Choose what is drawn."""
        self.marks_box.setCurrentIndex([name for name, _ in MARKS].index(marks))

    def offer(self, experts: Sequence[str], *, mapped: bool) -> None:
        """Offer what makes sense: a map only where there are kinds of experts; while it is shown, these kinds."""
        model = self.marks_box.model()
        if isinstance(model, QStandardItemModel):
            model.item(len(MARKS) - 1).setEnabled(bool(experts))
        if [WORST, *experts] != [self.kind_box.itemText(i) for i in range(self.kind_box.count())]:
            self._fill_kinds([WORST, *experts])
        self.kind_box.setVisible(mapped)
        for box in (self.order_box, self.color_box):
            box.setVisible(not mapped)

    def _fill_kinds(self, texts: Sequence[str]) -> None:
        before = self.kind
        self.kind_box.blockSignals(True)
        self.kind_box.clear()
        self.kind_box.addItems(list(texts))
        self.kind_box.setCurrentIndex(max(self.kind_box.findText(before), 0))
        self.kind_box.blockSignals(False)


def add_scales(menu: QMenu, chosen: Callable[[str], object]) -> None:
    """Offer the axes of errors, each the first of a pair of `SCALES`, the first of which holds."""
    menu.addSeparator()
    group = QActionGroup(menu)
    for scale, text in SCALES:
        action = group.addAction(f"Error axis: {text}")
        action.setCheckable(True)
        action.setChecked(scale == SCALES[0][0])
        action.triggered.connect(lambda _=False, scale=scale: chosen(scale))
        menu.addAction(action)
