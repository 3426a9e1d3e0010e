"""ExportForm: the fields of the export dialog: where to, in which layout, for which runtime, in shards of what size."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from studio import core
from studio.gui.jobs.export_checks import Check, wrong_place
from studio.gui.shell.ask import ask_folder
from studio.gui.shell.text import button, label, set_tone

SHARDS = {"1 GB": 10**9, "2 GB": 2 * 10**9, "5 GB": 5 * 10**9, "10 GB": 10**10, "One file": 10**15}
SHARD = "5 GB"
INPUTS = "Stores a scale for the inputs of every layer in NVFP4, from statistics: servers then compute in four bits."
LIFTS = "Moves powers of two between tensors where that is exact, so that two tiers lose no more than three."


class ExportForm(QWidget):
    """Asks for folder, name, layout, runtime and size of shards.

    Signals:
        changed(): something else is asked for.
    """

    changed = Signal()
    offered: Mapping[str, core.Target] = core.LAYOUTS

    def __init__(self, suggested: Path) -> None:
        super().__init__()
        self.folder, self.name = QLineEdit(), QLineEdit()
        self.folder.setAccessibleName("Folder that the export appears in")
        self.name.setAccessibleName("Name of the export")
        self.set_target(suggested)
        for edit in (self.folder, self.name):
            edit.textChanged.connect(self._place_changed)
        self._build()

    def _build(self) -> None:
        self._form = form = QGridLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(8)
        form.setColumnStretch(1, 1)
        self._add_row("&In", self._folder_row(), self.folder)
        self._add_row("&Name", self.name, self.name)
        self._add_row("Layout", self._layout_rows())
        self._add_row("&Written for", self._reader_row(), self.reader)
        self._add_row("&Shards up to", self._shard_row(), self.shards)
        self._add_more()
        self._add_row("", self._option_rows())

    def _add_row(self, title: str, content: QWidget | QLayout, buddy: QWidget | None = None) -> None:
        """A title, which stands beside the middle of a field and above many of them, and what is asked for."""
        head, row = QLabel(title), self._form.rowCount()
        if buddy is not None:
            head.setBuddy(buddy)
        self._form.addWidget(head, row, 0, Qt.AlignmentFlag.AlignVCenter if buddy else Qt.AlignmentFlag.AlignTop)
        if isinstance(content, QLayout):
            self._form.addLayout(content, row, 1)
        else:
            self._form.addWidget(content, row, 1)

    def _add_more(self) -> None:
        """Add rows of fields below those of every form."""

    def _place_changed(self) -> None:
        """What may be replaced or discarded was said of another folder."""
        self.replace.setChecked(False)
        self.discard.setChecked(False)
        self.changed.emit()

    def _folder_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.addWidget(self.folder, 1)
        row.addWidget(button("Choose…", self._choose))
        return row

    def _choose(self) -> None:
        place = self.target.parent
        start = place if place.is_dir() else None
        ask_folder(self, "Folder that the export appears in", lambda path: self.folder.setText(str(path)), start)

    def _layout_rows(self) -> QVBoxLayout:
        rows = QVBoxLayout()
        rows.setSpacing(2)
        self._group = QButtonGroup(self)
        self.layouts: dict[str, QRadioButton] = {}
        self.reasons: dict[str, Any] = {}
        for name, layout in self.offered.items():
            choice = QRadioButton(layout.title)
            choice.setAccessibleDescription(_read_by(layout))
            choice.toggled.connect(lambda _: self.changed.emit())
            self._group.addButton(choice)
            about = label(_read_by(layout), "small", wrap=True)
            about.setContentsMargins(22, 0, 0, 4)
            rows.addWidget(choice)
            rows.addWidget(about)
            self.layouts[name], self.reasons[name] = choice, about
        next(iter(self.layouts.values())).setChecked(True)
        return rows

    def _reader_row(self) -> QHBoxLayout:
        self.reader = QComboBox()
        self.reader.setAccessibleName("Runtime that it is written for")
        self.reader.setToolTip("What this runtime can not load is kept or stored otherwise; the checks say what.")
        self.reader.currentTextChanged.connect(lambda _: self.changed.emit())
        self._group.buttonToggled.connect(lambda _button, on: self._offer_readers() if on else None)
        self._offer_readers()
        return narrow(self.reader)

    def _offer_readers(self) -> None:
        """The runtimes of the layout that is chosen, the one that it is for first."""
        self.reader.clear()
        for name in self.offered[self.layout_name].readers:
            self.reader.addItem(core.RUNTIMES[name].title, name)

    def _shard_row(self) -> QHBoxLayout:
        self.shards = QComboBox()
        self.shards.addItems(list(SHARDS))
        self.shards.setCurrentText(SHARD)
        self.shards.setAccessibleName("Largest shard")
        self.shards.currentTextChanged.connect(lambda _: self.changed.emit())
        return narrow(self.shards)

    def _option_rows(self) -> QVBoxLayout:
        rows = QVBoxLayout()
        self._add_options(rows)
        self.replace = QCheckBox("&Replace the export that is there")
        self.discard = QCheckBox("&Discard what a stopped run left")
        for box in (self.replace, self.discard):
            box.toggled.connect(lambda _: self.changed.emit())
            box.hide()
            rows.addWidget(box)
        return rows

    def _add_options(self, rows: QVBoxLayout) -> None:
        """Add what is asked for beside the target."""
        self.lift = QCheckBox("&Lift by powers of two")
        self.lift.toggled.connect(lambda _: self.changed.emit())
        self.about_lift = label(LIFTS, "small", wrap=True)
        self.about_lift.setContentsMargins(22, 0, 0, 4)
        rows.addWidget(self.lift)
        rows.addWidget(self.about_lift)
        self.inputs = QCheckBox("&Quantize inputs, too (W4A4)")
        self.inputs.toggled.connect(lambda _: self.changed.emit())
        self.about_inputs = label(INPUTS, "small", wrap=True)
        self.about_inputs.setContentsMargins(22, 0, 0, 4)
        rows.addWidget(self.inputs)
        rows.addWidget(self.about_inputs)

    # what it asks for

    @property
    def target(self) -> Path:
        """The folder to write."""
        place = os.path.expanduser(self.folder.text().strip())  # noqa: PTH111 - Path raises for an unknown user
        return Path(place).absolute() / self.name.text().strip()

    def set_target(self, path: Path) -> None:
        """Ask for this folder."""
        self.folder.setText(str(path.parent))
        self.name.setText(path.name)

    @property
    def layout_name(self) -> str:
        """The layout chosen."""
        return next(name for name, choice in self.layouts.items() if choice.isChecked())

    def wrong_place(self) -> Check | None:
        """Why the two fields name no folder to write."""
        return wrong_place(self.folder.text().strip(), self.name.text().strip())

    def arguments(self) -> dict[str, Any]:
        """What `core.prepare` wants to know of it."""
        return {
            "layout": core.LAYOUTS[self.layout_name],
            "target": self.target,
            "overwrite": self.replace.isChecked(),
            "restart": self.discard.isChecked(),
            "reader": self.reader.currentData() or "",
            "shard_nbytes": SHARDS[self.shards.currentText()],
        }

    def options(self) -> dict[str, str | bool]:
        """What the command line wants to know of it."""
        shard = SHARDS[self.shards.currentText()]
        return {
            "layout": self.layout_name,
            "for": self.reader.currentData() if self.reader.currentIndex() > 0 else "",
            "shard-size": f"{shard // 10**9}G" if shard != SHARDS[SHARD] else "",
            "overwrite": self.replace.isChecked(),
            "restart": self.discard.isChecked(),
            "lift": self.lift.isChecked(),
            "activations": self.activations,
        }

    @property
    def activations(self) -> str:
        """The format that inputs are to be stored for, "" where they stay as they are."""
        return "fp4" if self.inputs.isChecked() else ""

    # what the checks found

    def show_refusals(self, refusals: dict[str, str]) -> None:
        """Which layouts can not store the plan, and why (layout -> reason, "" when it can)."""
        for name, reason in refusals.items():
            told = f"Not for this plan: {reason}" if reason else _read_by(self.offered[name])
            self.show_layout(name, told, refused=bool(reason))

    def show_layout(self, name: str, text: str, *, refused: bool) -> None:
        """Say something of a layout; one that is refused can not be chosen, though it may be chosen already."""
        self.layouts[name].setEnabled(not refused or self.layouts[name].isChecked())
        self.reasons[name].setText(text)
        set_tone(self.reasons[name], "warning" if refused else "")

    def show_lift(self, obstacle: str) -> None:
        """Offer to lift, or say why that can not be."""
        self.lift.setEnabled(not obstacle)
        self.lift.setChecked(self.lift.isChecked() and not obstacle)
        self.about_lift.setText(f"Not now: {obstacle.replace('--lift', 'lifting')}" if obstacle else LIFTS)

    def show_inputs(self, obstacle: str) -> None:
        """Offer to quantize inputs, or say why that can not be; who asked for it may take that back."""
        self.inputs.setEnabled(not obstacle or self.inputs.isChecked())
        self.about_inputs.setText(f"Not now: {obstacle}" if obstacle else INPUTS)

    def offer_options(self, hint: str) -> None:
        """Offer to replace or to discard where the hint of what is in the way names it."""
        self.replace.setVisible(self.replace.isChecked() or "--overwrite" in hint)
        self.discard.setVisible(self.discard.isChecked() or "--restart" in hint)


def narrow(field: QWidget) -> QHBoxLayout:
    """A field at the left of its row, no wider than it needs to be."""
    row = QHBoxLayout()
    row.addWidget(field)
    row.addStretch(1)
    return row


def _read_by(layout: core.Target) -> str:
    return f"Read by {', '.join(core.RUNTIMES[name].title for name in layout.readers)}"
