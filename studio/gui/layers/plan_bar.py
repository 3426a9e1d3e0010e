"""PlanBar: the preset and the format of the plan, in the tool bar."""

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QWidget

from studio import core
from studio.gui.layers.document import Document
from studio.gui.shell.text import label, tip


class PlanBar(QWidget):
    """Which layers are quantized, and to what, unless something else is chosen by hand.

    Signals:
        preset_wanted(str), format_wanted(str): the user picked another.
    """

    preset_wanted = Signal(str)
    format_wanted = Signal(str)

    def __init__(self, document: Document, parent: QWidget) -> None:
        super().__init__(parent)
        self._document = document
        self._locked = ""
        self.preset, self.format = QComboBox(), QComboBox()
        for name in core.preset_names():
            self.preset.addItem(name, name)
            self.preset.setItemData(self.preset.count() - 1, core.preset(name).title, 3)
        for name, row in core.FORMATS.items():
            self.format.addItem(name, name)
            self.format.setItemData(self.format.count() - 1, row.title, 3)
        self.format.setCurrentText(core.DEFAULT_FORMAT)
        self.preset.setAccessibleName("Preset: which layers are quantized")
        self.format.setAccessibleName("Format of the plan")
        self.preset.activated.connect(lambda _: self.preset_wanted.emit(self.preset.currentData()))
        self.format.activated.connect(lambda _: self.format_wanted.emit(self.format.currentData()))
        across = QHBoxLayout(self)
        across.setContentsMargins(0, 0, 4, 0)
        for text, box in (("Preset", self.preset), ("Format", self.format)):
            across.addWidget(label(text, "muted"))
            across.addWidget(box)
        document.opened.connect(self.refresh)
        document.chosen.connect(lambda _: self.refresh())
        document.undo.indexChanged.connect(lambda _: self.refresh())
        self.refresh()

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
        plan = self._document.state.plan
        self.preset.setCurrentIndex(self.preset.findData(plan.name))
        self.format.setCurrentIndex(self.format.findData(plan.format))
        self.preset.setToolTip(tip(plan.title))
        self.format.setToolTip(core.FORMATS[plan.format].title if plan.format in core.FORMATS else plan.format)
