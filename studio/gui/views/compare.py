"""CompareView: two formats, two plans or two exported folders, layer by layer, and the step from one to the other."""

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from studio import core
from studio.gui.views.dumbbells import SIDE_SHAPES, Dumbbells
from studio.gui.views.figure import Figure
from studio.gui.views.inspector_panels import side_colors
from studio.gui.views.labels import Entry, Line, tip
from studio.gui.views.method_box import MethodBox
from studio.gui.views.view import View

GAIN = 5.0
_WIDEST, _NARROWEST = 20, 70
EXPORTED = ("export:", "choose")
"""Sides that are as they were written, whatever the method."""


class CompareView(View):
    """Sides A and B, a sentence that sums them up, a dumbbell per layer, a button that takes B where it is worth it.

    Signals:
        sides_wanted(str, str): the keys of A and B; answer with `show_comparison`.
        apply_wanted(dict): layer name -> format/method of B, for layers that gain more than the threshold, or for all.
        and those of `View`.
    """

    sides_wanted = Signal(str, str)
    apply_wanted = Signal(dict)

    TITLE = "Compare"
    EMPTY = "Nothing is compared yet.\nChoose A and B above: formats, methods, plans, exports; then press Compare."

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.comparison: core.Comparison | None = None
        self._by_method = True
        self.pickers = QGridLayout()
        self.pickers.setSpacing(4)
        self.pickers.setColumnStretch(1, 1)
        self.controls.addLayout(self.pickers)
        (self.a_box, self.a_method), (self.b_box, self.b_method) = self._picker("A"), self._picker("B")
        self.swap_button = self._button("⇄", "Swap A and B (X)", self.swap)
        self.go_button = self._button("Compare", "Compare A and B; what is not known yet is quantized first", self.ask)
        self.go_button.setProperty("primary", True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def _picker(self, letter: str) -> tuple[QComboBox, MethodBox]:
        box, method = QComboBox(), MethodBox(letter)
        box.setAccessibleName(f"Side {letter}")
        box.setToolTip(f"Side {letter}")
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(_WIDEST)
        box.setMinimumWidth(_NARROWEST)
        box.activated.connect(lambda _: self.ask())
        box.currentTextChanged.connect(lambda text: box.setToolTip(tip([f"Side {letter}", text])))
        box.currentIndexChanged.connect(lambda _: self._enable(box, method))
        method.activated.connect(lambda _: self.ask())
        row = "AB".index(letter)
        for column, widget in enumerate((QLabel(letter), box, QLabel("by"), method)):
            self.pickers.addWidget(widget, row, column)
        return box, method

    def _enable(self, box: QComboBox, method: MethodBox) -> None:
        method.setEnabled(self._by_method and not str(box.currentData()).startswith(EXPORTED))

    def _button(self, text: str, hint: str, run: object) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(hint)
        button.setAccessibleName(hint)
        button.clicked.connect(lambda: run())  # type: ignore[operator]
        self.controls.addWidget(button)
        return button

    def has_content(self) -> bool:
        """Only a comparison, for which the plots are made at once."""
        return False

    def make_plots(self) -> None:
        """Sentence, dumbbells, and the step to B."""
        self.sentence = QLabel()
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setWordWrap(True)
        self.gain_box = QDoubleSpinBox()
        self.gain_box.setRange(0.0, 99.0)
        self.gain_box.setDecimals(1)
        self.gain_box.setValue(GAIN)
        self.gain_box.setSuffix(" %")
        self.gain_box.setAccessibleName("Gain above which B is used")
        self.gain_box.valueChanged.connect(lambda _: self._mark())
        self.apply_button = QPushButton("Use B")
        self.apply_button.clicked.connect(self._apply)
        self.all_button = QPushButton("Take over B")
        self.all_button.clicked.connect(self._take_over)
        self.dumbbells = Dumbbells()
        self.dumbbells.rows_picked.connect(lambda rows, add: self.pick([self._name(row) for row in rows], add))
        self.dumbbells.row_opened.connect(lambda row: self.layer_activated.emit(self._name(row)))
        self.dumbbells.pointed.connect(lambda row: self.say([] if row is None else self.tip(row)))
        self._place()

    def _place(self) -> None:
        below = QHBoxLayout()
        self.condition = Line()
        self.condition.set_text("Error shrinks by over")
        self.condition.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        below.addWidget(self.condition)
        below.addWidget(self.gain_box)
        below.addWidget(self.apply_button)
        below.addStretch(1)
        below.addWidget(self.all_button)
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.sentence)
        layout.addWidget(self.dumbbells, 1)
        layout.addLayout(below)

    # What the window calls

    def set_sides(self, sides: Sequence[tuple[str, str]], *, by_method: bool = True) -> None:
        """Fill both pickers with (key, title); what was chosen stays chosen. `by_method`: methods may be chosen too."""
        self._by_method = by_method
        for place, (box, method) in enumerate(((self.a_box, self.a_method), (self.b_box, self.b_method))):
            before = box.currentData()
            box.blockSignals(True)
            box.clear()
            for key, title in sides:
                box.addItem(core.printable(title, 60), key)
            found = box.findData(before) if before is not None else -1
            box.setCurrentIndex(found if found >= 0 else min(place, len(sides) - 1))
            box.blockSignals(False)
            self._enable(box, method)

    def choose_sides(self, first: str, second: str) -> None:
        """Let both pickers show what is compared, by the keys of `set_sides`."""
        for key, box in ((first, self.a_box), (second, self.b_box)):
            box.setCurrentIndex(box.findData(key))

    def ask(self) -> None:
        """Ask for the comparison of the chosen sides."""
        if self.a_box.currentData() is not None and self.b_box.currentData() is not None:
            self.busy(f"Comparing {self.a_box.currentText()} with {self.b_box.currentText()}…")
            self.sides_wanted.emit(_side(self.a_box, self.a_method), _side(self.b_box, self.b_method))

    def swap(self) -> None:
        """Let A and B change places."""
        for first, second in ((self.a_box, self.b_box), (self.a_method, self.b_method)):
            a, b = first.currentIndex(), second.currentIndex()
            first.setCurrentIndex(b)
            second.setCurrentIndex(a)
        self.ask()

    def busy(self, text: str) -> None:
        """Say what is being worked on; an empty text says that it is done."""
        if self.comparison is None:
            self.empty.setText(text or self.EMPTY)
        else:
            self.sentence.setText(text or self.comparison.sentence())

    def show_comparison(self, comparison: core.Comparison | None) -> None:
        """Show two sides, layer by layer."""
        self.comparison = comparison
        if comparison is None or not comparison.pairs:
            self.show_empty(comparison.sentence() if comparison else self.EMPTY)
            return
        self.plot_now()
        self.sentence.setText(comparison.sentence())
        self.dumbbells.show_comparison(comparison)
        self._mark()
        self._fill(comparison)

    def _fill(self, comparison: core.Comparison) -> None:
        colors = side_colors(self.theme)
        titles = [core.printable(title, 40) for title in (comparison.title_a, comparison.title_b)]
        signs = [
            Entry(f"{letter} {title}", color, shape)
            for letter, title, color, shape in zip("AB", titles, colors, SIDE_SHAPES, strict=True)
        ]
        gains = [Entry("B is better", self.theme.good, "line"), Entry("B is worse", self.theme.error, "dash")]
        self.show_filled("", [*signs, *gains])
        self.setAccessibleDescription(comparison.sentence())

    # Drawing

    def theme_changed(self) -> None:
        """Draw with `theme`."""
        self.dumbbells.set_theme(self.theme)
        self.sentence.setIndent(0)
        self.condition.set_color(self.theme.text)
        self.sentence.setStyleSheet(f"color: {self.theme.text}; padding: 2px 0")
        if self.comparison is not None and self.comparison.pairs:
            self._fill(self.comparison)

    def selection_changed(self) -> None:
        """Mark the selected layers."""
        self._mark()

    def _mark(self) -> None:
        if self.comparison is None:
            return
        gain = self.gain_box.value() / 100
        worth = self.comparison.worth(gain)
        self.apply_button.setText(f"Use B for {core.counted(len(worth), 'layer')}")
        self.apply_button.setEnabled(bool(worth))
        self.apply_button.setToolTip(
            "" if worth else "No layer gains that much, or both sides use the same format and method"
        )
        everything = self.comparison.all_of_b()
        self.all_button.setEnabled(bool(everything))
        more = f"Choose for {core.counted(len(everything), 'layer')} what B has, where it loses more, too"
        self.all_button.setToolTip(more if everything else "B has nothing that the plan could choose and A has not")
        chosen = set(self.selection)
        rows = [row for row, pair in enumerate(self.comparison.pairs) if pair.name in chosen] if chosen else []
        self.dumbbells.mark(rows, sum(pair.gain > gain for pair in self.comparison.pairs))

    def fit(self) -> None:
        """All errors, from the largest gain on."""
        if self.plotted:
            self.dumbbells.fit()

    # What the user does

    def _apply(self) -> None:
        if self.comparison is not None:
            self.apply_wanted.emit(self.comparison.worth(self.gain_box.value() / 100))

    def _take_over(self) -> None:
        if self.comparison is not None:
            self.apply_wanted.emit(self.comparison.all_of_b())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """X swaps the sides."""
        if event.key() == Qt.Key.Key_X and not event.modifiers():
            self.swap()
        else:
            super().keyPressEvent(event)

    # Words and numbers

    def _name(self, row: int) -> str:
        assert self.comparison is not None
        return self.comparison.pairs[row].name

    def tip(self, row: int) -> list[str]:
        """What a tooltip says about a row."""
        assert self.comparison is not None
        pair = self.comparison.pairs[row]
        change = f"{-pair.gain:+.1%}".replace("-", "−")
        size = core.size_text(abs(pair.nbytes_b - pair.nbytes_a))
        sign = "+" if pair.nbytes_b >= pair.nbytes_a else "−"
        return [
            core.printable(pair.name),
            f"A {pair.title_a}: relative error {pair.error_a:.4f}",
            f"B {pair.title_b}: relative error {pair.error_b:.4f} ({change})",
            f"size {sign}{size}",
        ]

    def canvas(self) -> QWidget:
        """Without the buttons."""
        return self.dumbbells

    def about(self) -> str:
        """The sentence above the dumbbells."""
        return self.comparison.sentence() if self.comparison else ""

    def figure(self) -> Figure:
        """Layer by layer, the largest gain first."""
        heads = (
            "layer",
            "format A",
            "method A",
            "format B",
            "method B",
            "relative error A",
            "relative error B",
            "gain, %",
            "bytes A",
            "bytes B",
        )
        rows = [
            (p.name, *_sides(p), p.error_a, p.error_b, 100 * p.gain, p.nbytes_a, p.nbytes_b)
            for p in (self.comparison.pairs if self.comparison else ())
        ]
        return Figure(self.TITLE, heads, rows)


def _side(box: QComboBox, method: MethodBox) -> str:
    """The key of a side, with the method that is chosen for it."""
    key = str(box.currentData())
    return f"{key}/{method.method}" if method.isEnabled() and method.method else key


def _sides(pair: core.Pair) -> tuple[str, str, str, str]:
    return pair.format_a, pair.method_a, pair.format_b, pair.method_b
