"""SettingsDialog: every option, made from the table of options; changes take effect at once."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDoubleSpinBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from studio.gui.shell.scrolled import Scrolled, fitting
from studio.gui.shell.settings import OPTIONS, Option, Settings
from studio.gui.shell.text import button, label

LONGEST = 200
"""Characters of a text."""


class SettingsDialog(QDialog):
    """One field per option, with its help below; `more` are widgets that stand below options, by key."""

    def __init__(self, settings: Settings, parent: QWidget, more: Mapping[str, QWidget] | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Settings")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._settings, self._more = settings, more or {}
        self.fields: dict[str, QWidget] = {}
        self._show: dict[str, Callable[[Any], None]] = {}
        rows = QVBoxLayout(self)
        rows.setContentsMargins(18, 14, 18, 14)
        pages: dict[str, list[Option]] = defaultdict(list)
        for option in OPTIONS.values():
            pages[option.page].append(option)
        content = QWidget()
        across = QHBoxLayout(content)
        across.setContentsMargins(0, 0, 0, 0)
        across.setSpacing(12)
        for title, options in pages.items():
            across.addWidget(self._page(title, options), 0, Qt.AlignmentFlag.AlignTop)
        rows.addWidget(Scrolled(content), 1)
        rows.addLayout(self._buttons())
        self.resize(fitting(self, self.sizeHint()))
        settings.changed.connect(self._changed)

    def _page(self, title: str, options: list[Option]) -> QGroupBox:
        box = QGroupBox(title)
        form = QFormLayout(box)
        widest = max(
            self.fontMetrics().horizontalAdvance(option.title) for option in OPTIONS.values() if _has_label(option)
        )
        form.setVerticalSpacing(4)
        for option in options:
            field = self._field(option)
            field.setAccessibleName(option.title)
            field.setAccessibleDescription(option.help)
            self.fields[option.key] = field
            name = label(option.title if _has_label(option) else "")
            name.setMinimumWidth(widest)
            name.setBuddy(field)
            form.addRow(name, field)
            form.addRow("", label(option.help, "small"))
            if option.key in self._more:
                form.addRow("", self._more[option.key])
        return box

    def _field(self, option: Option) -> QWidget:
        value = self._settings[option.key]
        if isinstance(option.default, bool):
            return self._check_box(option, value)
        if option.choices:
            return self._combo_box(option, value)
        if isinstance(option.default, str):
            return self._line(option, value)
        field: QSpinBox | QDoubleSpinBox = QSpinBox() if isinstance(option.default, int) else QDoubleSpinBox()
        if isinstance(field, QDoubleSpinBox):
            field.setDecimals(4)
            field.setSingleStep(0.005)
        field.setRange(int(option.least), int(option.most))
        field.setSuffix(f" {option.unit}" if option.unit else "")
        field.setSpecialValueText(option.nought)
        field.setValue(value)
        field.setMaximumWidth(160)
        field.valueChanged.connect(lambda number: self._set(option.key, number))
        self._show[option.key] = field.setValue
        return field

    def _check_box(self, option: Option, value: bool) -> QCheckBox:
        field = QCheckBox(option.title)
        field.setChecked(value)
        field.toggled.connect(lambda on: self._set(option.key, on))
        self._show[option.key] = field.setChecked
        return field

    def _combo_box(self, option: Option, value: str) -> QComboBox:
        field = QComboBox()
        field.addItems(option.choices)
        field.setCurrentText(value)
        field.setMaximumWidth(160)
        field.currentTextChanged.connect(lambda text: self._set(option.key, text))
        self._show[option.key] = field.setCurrentText
        return field

    def _line(self, option: Option, value: str) -> QLineEdit:
        field = QLineEdit(value)
        field.setMaxLength(LONGEST)
        field.textEdited.connect(lambda text: self._set(option.key, text))
        self._show[option.key] = lambda text: field.setText(text) if field.text() != text else None
        return field

    def _set(self, key: str, value: Any) -> None:
        self._settings[key] = value

    def _changed(self, key: str) -> None:
        self._show[key](self._settings[key])

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.addWidget(button("Reset all", self._settings.reset, "flat", "Give every option its default"))
        row.addStretch(1)
        row.addWidget(button("Close", self.accept, "primary"))
        return row


def _has_label(option: Option) -> bool:
    """A check box says itself what it is for."""
    return not isinstance(option.default, bool)
