"""ToolButton: a button of the toolbar that follows an action."""

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QToolButton

ICON = QSize(18, 18)
"""Also of the bar, which draws its buttons at its own size."""


class ToolButton(QToolButton):
    """Shows and triggers an action. With a default action Qt 6.11 loses 140 bytes each time that the action changes."""

    def __init__(self, action: QAction, style: Qt.ToolButtonStyle) -> None:
        super().__init__()
        self._shown = action
        self.setAutoRaise(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setToolButtonStyle(style)
        self.clicked.connect(lambda _checked=False: self._trigger())
        action.changed.connect(self._follow)
        self._follow()

    def _trigger(self) -> None:
        self._shown.trigger()
        self._follow()

    def _follow(self) -> None:
        action = self._shown
        self.setText(action.iconText())
        self.setIcon(action.icon())
        self.setToolTip(action.toolTip())
        self.setStatusTip(action.statusTip())
        self.setCheckable(action.isCheckable())
        self.setChecked(action.isChecked())
        self.setEnabled(action.isEnabled())
