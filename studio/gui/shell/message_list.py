"""MessageList: problems and log: all that was told, with time, filter and copy."""

from PySide6.QtCore import QModelIndex, QSortFilterProxyModel, Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QAbstractItemView, QComboBox, QHBoxLayout, QHeaderView, QTableView, QVBoxLayout, QWidget

from studio.gui.shell.cards import Message, Messages
from studio.gui.shell.text import button, label
from studio.gui.shell.theme import Theme

_KINDS = {"Everything": "", "Problems and warnings": "Problem|Warning", "Problems": "Problem"}


class MessageList(QWidget):
    """The list at the lower edge. Its few rows may go through a proxy; the table of layers must not.

    Signals:
        layer_wanted(str): show the layer that a message is about.
    """

    layer_wanted = Signal(str)

    def __init__(self, messages: Messages, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._messages = messages
        self._proxy = QSortFilterProxyModel(self)
        self._proxy.setSourceModel(messages)
        self._proxy.setFilterKeyColumn(1)
        self.view = QTableView()
        self.view.setModel(self._proxy)
        self.view.setAccessibleName("Problems and log")
        self._set_up()
        kind = QComboBox()
        kind.addItems(list(_KINDS))
        kind.setAccessibleName("Which messages")
        kind.currentTextChanged.connect(lambda text: self._proxy.setFilterRegularExpression(_KINDS[text]))
        top = QHBoxLayout()
        top.addWidget(label("Problems and log", "bold"))
        top.addStretch(1)
        top.addWidget(kind)
        top.addWidget(button("Copy all", self.copy_all))
        rows = QVBoxLayout(self)
        rows.setContentsMargins(10, 4, 10, 6)
        rows.addLayout(top)
        rows.addWidget(self.view)
        self.setMinimumHeight(130)
        self.setMaximumHeight(220)

    def _set_up(self) -> None:
        view = self.view
        view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        view.setShowGrid(False)
        view.verticalHeader().hide()
        view.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        view.setTextElideMode(Qt.TextElideMode.ElideRight)
        view.horizontalHeader().setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        view.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        view.doubleClicked.connect(self._go)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._messages.set_theme(theme)
        wide = theme.font_px
        for column, width in ((0, 6 * wide), (1, 7 * wide), (3, 34 * wide)):
            self.view.setColumnWidth(column, width)
        self.view.verticalHeader().setDefaultSectionSize(theme.font_px + 9)

    def _go(self, index: QModelIndex) -> None:
        message = self._messages.items[self._proxy.mapToSource(index).row()]
        if message.layer:
            self.layer_wanted.emit(message.layer)

    def copy_all(self) -> None:
        """All messages as text."""
        QGuiApplication.clipboard().setText("\n".join(map(Message.plain, self._messages.items)))
