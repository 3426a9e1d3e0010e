"""MethodBox: a picker of a method, or of the one that is planned."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox

from studio import core

AS_PLANNED = "as planned"
_WIDEST, _NARROWEST = 6, 60


class MethodBox(QComboBox):
    """Its data are the names of methods, "" for the planned one."""

    def __init__(self, whose: str) -> None:
        super().__init__()
        self.addItem(AS_PLANNED, "")
        for name, row in core.METHODS.items():
            self.addItem(name, name)
            self.setItemData(self.count() - 1, row.title, Qt.ItemDataRole.ToolTipRole)
        self.setAccessibleName(f"Method of {whose}")
        self.setToolTip(f"Method of {whose}: how codes are chosen")
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(_WIDEST)
        self.setMinimumWidth(_NARROWEST)

    @property
    def method(self) -> str:
        """The chosen one, "" for the planned one."""
        return str(self.currentData())

    def choose(self, method: str) -> None:
        """Let it show a method."""
        self.setCurrentIndex(max(self.findData(method), 0))
