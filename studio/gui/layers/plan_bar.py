"""PlanBar: the preset, the format and the method of the plan, in the tool bar."""

from collections.abc import Mapping

from PySide6.QtCore import QEvent, QObject, Qt, Signal, SignalInstance
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLabel, QWidget

from studio import core
from studio.gui.layers.document import Document
from studio.gui.layers.method_words import plan_lines
from studio.gui.shell.text import label, tip

ROOM_FOR_TITLES = 72
"""Text heights across the window, from which on the boxes have titles."""


class PlanBar(QWidget):
    """Which layers are quantized, to what and how, unless something else is chosen by hand.

    Signals:
        preset_wanted(str), format_wanted(str), method_wanted(str): the user picked another.
    """

    preset_wanted = Signal(str)
    format_wanted = Signal(str)
    method_wanted = Signal(str)

    def __init__(self, document: Document, parent: QWidget) -> None:
        super().__init__(parent)
        self._document = document
        self._locked = ""
        self._titles: list[QLabel] = []
        self._across = QHBoxLayout(self)
        self._across.setContentsMargins(0, 0, 0, 0)
        presets = {name: core.preset(name).title for name in core.preset_names()}
        formats = {name: row.title for name, row in core.FORMATS.items()}
        methods = {name: row.title for name, row in core.METHODS.items()}
        self.preset = self._box("Preset", "Preset: which layers are quantized", presets, self.preset_wanted)
        self.format = self._box("Format", "Format of the plan", formats, self.format_wanted)
        self.method = self._box("Method", "Method of the plan", methods, self.method_wanted)
        self.format.setCurrentText(core.DEFAULT_FORMAT)
        self.method.setCurrentText(core.DEFAULT_METHOD)
        parent.installEventFilter(self)
        document.opened.connect(self.refresh)
        document.chosen.connect(lambda _: self.refresh())
        document.undo.indexChanged.connect(lambda _: self.refresh())
        self.refresh()

    def _box(self, title: str, meaning: str, items: Mapping[str, str], wanted: SignalInstance) -> QComboBox:
        """A box of names, each with what it means."""
        box = QComboBox()
        for name, means in items.items():
            box.addItem(name, name)
            box.setItemData(box.count() - 1, means, Qt.ItemDataRole.ToolTipRole)
        box.setAccessibleName(meaning)
        box.activated.connect(lambda _: wanted.emit(box.currentData()))
        self._titles.append(label(title, "muted"))
        self._across.addWidget(self._titles[-1])
        self._across.addWidget(box)
        return box

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """The boxes have titles where the window has room for them."""
        if isinstance(event, QResizeEvent):
            self._show_titles(event.size().width() > ROOM_FOR_TITLES * self.fontMetrics().height())
        return False

    def _show_titles(self, shown: bool) -> None:
        self._across.setSpacing(6 if shown else 2)
        for title in self._titles:
            title.setVisible(shown)
        bar = self.parentWidget()
        if bar is not None and (layout := bar.layout()) is not None:
            layout.invalidate()  # Qt does not ask again how wide something is that it hid for want of room

    def set_locked(self, reason: str) -> None:
        """Let nothing be picked, because of `reason`; "" lets it again."""
        self._locked = reason
        self.refresh()

    def refresh(self) -> None:
        """Show what the plan says now."""
        shown = self._document.model is not None
        reason = self._locked or ("" if shown else "open a checkpoint first")
        self.setEnabled(not reason)
        self.setToolTip(f"Not now: {reason}" if reason else "")
        if not shown:
            return
        plan, stored = self._document.state.plan, bool(self._document.exported)
        for box, chosen in ((self.preset, plan.name), (self.format, plan.format), (self.method, plan.method)):
            box.setPlaceholderText("stored" if stored else chosen or "own")
            box.setCurrentIndex(-1 if stored else box.findData(chosen))
        self.preset.setToolTip(tip(plan.title))
        self.method.setToolTip(tip("\n".join(plan_lines(plan.method, self._document.statistics))))
        self.format.setToolTip(core.FORMATS[plan.format].title if plan.format in core.FORMATS else plan.format)
