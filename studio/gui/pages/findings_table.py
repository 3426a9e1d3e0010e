"""FindingsTable: what an examination found as rows, worst first."""

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor, QPaintEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from studio import core
from studio.gui.shell.text import draw_empty, tip
from studio.gui.shell.theme import LIGHT, Theme

SIGNS = {"error": "✕ Error", "warning": "▲ Warning", "note": "● Note"}
HEADS = ("Severity", "What", "Where", "Who fails")
WIDTHS = (7, 0, 11, 8)
"""Text heights across; 0 for the one that takes what is left."""

NOT_READ = "gguf"
"""The kind that says that nothing was examined."""

_NOWHERE = QModelIndex()


class Findings(QAbstractTableModel):
    """The findings of one folder; while it is examined those that were made so far."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.found: list[core.Finding] = []
        self.theme = LIGHT

    def show(self, found: Sequence[core.Finding]) -> None:
        """Show these, worst first."""
        self.beginResetModel()
        self.found = sorted(found, key=lambda one: list(SIGNS).index(one.severity))
        self.endResetModel()

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self.theme = theme

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = _NOWHERE) -> int:
        """Number of findings."""
        return 0 if parent.isValid() else len(self.found)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex = _NOWHERE) -> int:
        """See `HEADS`."""
        return 0 if parent.isValid() else len(HEADS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Titles of the columns."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return HEADS[section]
        return None

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A cell."""
        if not index.isValid():
            return None
        one, column = self.found[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return (SIGNS[one.severity], _sentence(one), one.places, ", ".join(one.fails))[column]
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip(described(one))
        if role == Qt.ItemDataRole.ForegroundRole and column == 0:
            tones = {"error": self.theme.error, "warning": self.theme.warning}
            return QColor(tones.get(one.severity, self.theme.muted))
        return None


class FindingsTable(QTableView):
    """The table of them; one row is chosen at a time. `empty` is said where there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = ""
        self.findings = Findings(self)
        self._filling, self._by_hand = False, ""
        self.setModel(self.findings)
        self.selectionModel().selectionChanged.connect(lambda *_: self._remember())
        self.setAccessibleName("Findings")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.horizontalHeader().setSectionResizeMode(WIDTHS.index(0), QHeaderView.ResizeMode.Stretch)
        self.horizontalHeader().setHighlightSections(False)
        self.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.set_theme(LIGHT)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours and another size of text."""
        self.findings.set_theme(theme)
        self.verticalHeader().setDefaultSectionSize(theme.font_px + 11)
        for column, width in enumerate(WIDTHS):
            if width:
                self.setColumnWidth(column, width * theme.font_px)

    def paintEvent(self, event: QPaintEvent) -> None:
        """The rows, or why there are none."""
        super().paintEvent(event)
        if not self.findings.found:
            draw_empty(self.viewport(), self.empty, self.findings.theme.muted)

    def show_found(self, found: Sequence[core.Finding]) -> None:
        """Show findings; a row that was chosen by hand stays chosen, otherwise it is the worst."""
        self._by_hand = self._by_hand if found else ""
        self._filling = True
        self.findings.show(found)
        kinds = [one.kind for one in self.findings.found]
        if kinds:
            self.selectRow(kinds.index(self._by_hand) if self._by_hand in kinds else 0)
        self._filling = False

    def _remember(self) -> None:
        if not self._filling and self.chosen:
            self._by_hand = self.chosen.kind

    @property
    def chosen(self) -> core.Finding | None:
        """The finding of the chosen row."""
        rows = self.selectionModel().selectedRows() if self.selectionModel() else []
        return self.findings.found[rows[0].row()] if rows else None


def described(one: core.Finding) -> str:
    """All of a finding as text: what, where, by what evidence, who fails, what helps."""
    how = " (once a source is named)" if one.repair and one.wants_source else ""
    facts = (
        (
            "Where",
            ", ".join(one.where) + (f" and {one.count - len(one.where):,} more" if one.count > len(one.where) else ""),
        ),
        ("Evidence", one.evidence),
        ("Who fails", ", ".join(one.fails)),
        ("What helps", one.fix),
        ("A repaired copy has", f"{one.repair}{how}" if one.repair else ""),
    )
    lines = (f"{title}: {text}" for title, text in facts if text)
    return "\n".join([f"{_sentence(one)}  ({one.kind})", *lines])


def _sentence(one: core.Finding) -> str:
    """Capitalized, unless it begins with the name of a file or a program."""
    first, _, rest = one.what.partition(" ")
    return f"{first.capitalize() if first.isalpha() and first.islower() else first} {rest}".rstrip()


def verdict(found: Sequence[core.Finding]) -> tuple[str, str]:
    """What an examination came to, in words and as a tone; notes alone are nothing wrong."""
    parts = [core.counted(sum(one.severity == severity for one in found), severity) for severity in SIGNS]
    counts = ", ".join(part for part in parts if not part.startswith("0 "))
    worst = min((one.severity for one in found), key=list(SIGNS).index, default="")
    if worst in ("error", "warning"):
        return f"{counts}.", worst
    if any(one.kind == NOT_READ for one in found):
        return f"It was opened, and not examined; {counts}.", ""
    return (f"Nothing wrong was found; {counts}." if found else "Nothing was found."), "good"
