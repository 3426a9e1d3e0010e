"""DoctorPage: what is wrong with a checkpoint folder, and a repaired copy of it."""

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QSplitter, QVBoxLayout, QWidget

from studio import core
from studio.gui.pages.findings_table import FindingsTable, described
from studio.gui.pages.stopping import Stopping
from studio.gui.shell.cards import SIGNS
from studio.gui.shell.headed import Headed
from studio.gui.shell.text import Elided, button, label, set_primary, set_reason, set_tone
from studio.gui.shell.theme import Theme

HOW = (
    "Examine reads everything in the folder: files, config, exclusion lists, scales and weights, whoever wrote it. "
    "Nothing is changed."
)
FIRST = "Nothing has been examined yet.\nExamine the open checkpoint, or a folder from elsewhere."
NONE_YET, NONE = "Nothing was found so far.", "Nothing was found."
NOTHING_OPEN, NOTHING_KNOWN = "open a checkpoint, or choose a folder", "examine a folder first"
NOTHING_CERTAIN = "nothing that was found can be mended for certain"
NEEDS_SOURCE = "what can be mended needs the source: name it first"


class DoctorPage(Stopping):
    """The table of findings, the one that is chosen in full, and what can be done.

    Signals:
        examine_wanted(): examine the folder that was examined last again, at first the checkpoint that is open.
        own_wanted(): examine the checkpoint that is open.
        folder_wanted(): ask for a folder, and examine it.
        source_wanted(): ask for the checkpoint that it was made from, and examine it again.
        repair_wanted(): ask for a folder, and write a repaired copy there.
    """

    examine_wanted = Signal()
    own_wanted = Signal()
    folder_wanted = Signal()
    source_wanted = Signal()
    repair_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Doctor")
        self.title, self.said = Elided("No folder was examined"), label(HOW, "muted", wrap=True)
        self.sign = label("", "bold")
        self.examine = button("Examine", self.examine_wanted.emit, "primary")
        self.folder = button("A folder…", self.folder_wanted.emit, help_text="Examine any folder, whole or broken")
        self.own = button("The open one", self.own_wanted.emit, help_text="Examine the checkpoint that is open")
        self.source = button("Source…", self.source_wanted.emit)
        self.repair = button("Write a repaired copy…", self.repair_wanted.emit, "primary")
        self.stop = button("Cancel", self.stop_wanted.emit)
        self.table, self.detail = FindingsTable(), QPlainTextEdit()
        self.table.empty = FIRST
        Headed(self.detail)
        self.detail.setReadOnly(True)
        self.detail.setPlaceholderText("Where, by what evidence, who fails, and what helps.")
        self.detail.setUndoRedoEnabled(False)
        self.detail.setTabChangesFocus(True)
        self.detail.setAccessibleName("The finding that is chosen")
        self._compared = False
        self._reason, self._examined, self._elsewhere = NOTHING_OPEN, False, False
        self._place()
        self.table.selectionModel().selectionChanged.connect(lambda *_: self._show_chosen())
        self.table.findings.modelReset.connect(self._show_chosen)
        self._enable()

    def _place(self) -> None:
        top, low = QHBoxLayout(), QHBoxLayout()
        for part in (self.title, self.examine, self.own, self.folder, self.source, self.stop):
            top.addWidget(part, int(part is self.title))
        low.addWidget(self.sign)
        low.addWidget(self.said, 1)
        low.addWidget(self.repair)
        self.split = QSplitter(Qt.Orientation.Vertical)
        self.split.setChildrenCollapsible(False)
        self.split.addWidget(self.table)
        self.split.addWidget(self.detail)
        self.split.setStretchFactor(0, 2)
        self.split.setStretchFactor(1, 1)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(8, 6, 8, 6)
        rows.setSpacing(6)
        rows.addLayout(top)
        rows.addLayout(low)
        rows.addWidget(self.split, 1)
        self.setMinimumSize(240, 160)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self.table.set_theme(theme)

    # what the window calls

    def set_reason(self, reason: str) -> None:
        """Why nothing can be examined now, "" when it can."""
        self._reason = reason
        self._enable()

    def begin(self, title: str, *, compared: bool, elsewhere: bool) -> None:
        """An examination begins; `elsewhere`: of another folder than the one that is open."""
        self.running, self._examined, self._compared, self._elsewhere = True, False, compared, elsewhere
        self.title.set_text(title)
        self.table.empty = NONE_YET
        self.table.show_found([])
        self.say("Examining …")
        focused = self.examine.hasFocus() or self.folder.hasFocus()
        self._enable()
        if focused:
            self.stop.setFocus()

    def repairing(self) -> None:
        """A repaired copy is being written; what was found stays."""
        self.running = True
        self.say("Writing a repaired copy …")
        self._enable()

    def add(self, finding: core.Finding) -> None:
        """One more."""
        self.table.show_found([*self.table.findings.found, finding])

    def show_found(self, found: Sequence[core.Finding]) -> None:
        """What an examination found at its end."""
        self._examined = True
        self.table.empty = NONE
        self.table.show_found(found)

    def end(self, text: str, tone: str = "") -> None:
        """It is over."""
        focused = self.stop.hasFocus()
        self.running = False
        self.table.empty = NONE if self._examined else FIRST
        self.table.viewport().update()
        self.say(text, tone)
        self._enable()
        if focused:
            self.table.setFocus()

    def clear(self) -> None:
        """Another checkpoint is open."""
        self.running = self._examined = self._compared = self._elsewhere = False
        self.title.set_text("No folder was examined")
        self.table.empty = FIRST
        self.table.show_found([])
        self.say(HOW)
        self._enable()

    def say(self, text: str, tone: str = "") -> None:
        """Show a sentence above the table, with the sign of its tone."""
        set_tone(self.sign, tone)
        set_tone(self.said, tone)
        self.sign.setText(SIGNS.get(tone, ""))
        self.sign.setVisible(bool(tone))
        self.said.setText(text)

    def _show_chosen(self) -> None:
        chosen = self.table.chosen
        self.detail.setPlainText(described(chosen) if chosen else "")

    def _enable(self) -> None:
        set_reason(
            self.examine, self._reason, "Read it once more" if self._elsewhere else "Examine the open checkpoint"
        )
        known = "" if self._examined else NOTHING_KNOWN
        set_reason(self.source, known, "Compare with the checkpoint that it was made from")
        set_reason(self.repair, known or self._unmendable(), "Write a copy in which all that is certain is mended")
        set_primary(self.examine, primary=not self._examined)
        for part in (self.examine, self.folder, self.source):
            part.setVisible(not self.running)
        self.own.setVisible(not self.running and self._elsewhere)
        self.repair.setVisible(not self.running)
        self.stop.setVisible(self.running)

    def _unmendable(self) -> str:
        mendable = [one for one in self.table.findings.found if one.repair]
        if not mendable:
            return NOTHING_CERTAIN
        return NEEDS_SOURCE if all(one.wants_source for one in mendable) and not self._compared else ""
