"""CommandPalette: every action, found by typing; those that do not work now say why."""

from PySide6.QtCore import QEvent, QModelIndex, QObject, QPersistentModelIndex, QSize, Qt
from PySide6.QtGui import QKeyEvent, QKeySequence, QPainter, QPalette
from PySide6.QtWidgets import (
    QDialog,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from studio.gui.shell.actions import Actions
from studio.gui.shell.specs import Spec

_KEY, _ASIDE = Qt.ItemDataRole.UserRole, Qt.ItemDataRole.UserRole + 1


class _Row(QStyledItemDelegate):
    """An action, and at the right its shortcut, or why it does not work now."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        super().paint(painter, option, index)
        painter.setPen(option.palette.color(QPalette.ColorRole.PlaceholderText))
        right = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        painter.drawText(option.rect.adjusted(0, 0, -6, 0), right, index.data(_ASIDE))

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        """Some room between the lines."""
        return super().sizeHint(option, index) + QSize(0, 4)


class CommandPalette(QDialog):
    """A field and a list; Enter does what is chosen."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Command palette")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        height = self.fontMetrics().height()
        self.resize(36 * height, 28 * height)
        self._actions = actions
        self.field = QLineEdit()
        self.field.setPlaceholderText("What do you want to do?")
        self.field.setAccessibleName("Find an action")
        self.list = QListWidget()
        self.list.setAccessibleName("Actions")
        self.list.setItemDelegate(_Row(self.list))
        self.field.textChanged.connect(self._fill)
        self.field.installEventFilter(self)
        self.list.itemActivated.connect(self._run)
        rows = QVBoxLayout(self)
        rows.addWidget(self.field)
        rows.addWidget(self.list)
        self._fill("")

    def _fill(self, text: str) -> None:
        self.list.clear()
        words = text.lower().split()
        ranked = [(rank, spec) for spec in self._actions.specs.values() if (rank := _rank(spec, words)) >= 0]
        for _, spec in sorted(ranked, key=lambda found: found[0]):
            if spec.key != "palette":
                self.list.addItem(self._item(spec))
        self.list.setCurrentRow(0)

    def _item(self, spec: Spec) -> QListWidgetItem:
        action = self._actions[spec.key]
        keys = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
        reason = self._actions.reasons.get(spec.key, "")
        item = QListWidgetItem(f"{spec.menu}: {spec.shown.rstrip('…')}")
        item.setData(_KEY, spec.key)
        item.setData(_ASIDE, f"not now: {reason}" if reason else keys)
        item.setToolTip(spec.help)
        if reason:
            item.setForeground(self.palette().placeholderText())
        return item

    def _run(self, item: QListWidgetItem) -> None:
        action = self._actions[item.data(_KEY)]
        if action.isEnabled():
            self.accept()
            action.trigger()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Arrows move in the list, Enter does what is chosen."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            if event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down):
                step = 1 if event.key() == Qt.Key.Key_Down else -1
                self.list.setCurrentRow((self.list.currentRow() + step) % max(self.list.count(), 1))
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.list.currentItem():
                self._run(self.list.currentItem())
                return True
        return False


def _rank(spec: Spec, words: list[str]) -> int:
    """Where an action comes among those that were found: by its name first, then by what it does; -1 for not at all."""
    name = spec.shown.lower()
    if all(f" {word}" in f" {name}" for word in words):
        return 0
    if all(word in f"{spec.menu} {name}".lower() for word in words):
        return 1
    return 2 if all(word in f"{spec.menu} {name} {spec.help}".lower() for word in words) else -1
