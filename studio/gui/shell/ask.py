"""Ask: the few questions that need a dialog of the system, asked without stopping the window."""

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog, QMessageBox, QWidget

Answer = Callable[[Path], object]


def ask_folder(parent: QWidget, title: str, answer: Answer, start: Path | None = None) -> QFileDialog:
    """Ask for a folder; `answer` gets it unless the user cancels."""
    dialog = _dialog(parent, title, start)
    dialog.setFileMode(QFileDialog.FileMode.Directory)
    dialog.setOption(QFileDialog.Option.ShowDirsOnly)
    return _ask(dialog, answer)


def ask_new_folder(parent: QWidget, title: str, yes: str, answer: Answer, suggested: Path) -> QFileDialog:
    """Ask for a folder that is not there yet, or is empty; `yes` is the text of the button that takes it."""
    dialog = _dialog(parent, title, suggested.parent)
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setFileMode(QFileDialog.FileMode.AnyFile)
    dialog.setOption(QFileDialog.Option.ShowDirsOnly)
    dialog.setOption(QFileDialog.Option.DontConfirmOverwrite)
    dialog.setNameFilter("Folders (*)")
    dialog.setLabelText(QFileDialog.DialogLabel.FileName, "Folder:")
    dialog.setLabelText(QFileDialog.DialogLabel.Accept, yes)
    dialog.selectFile(suggested.name)
    return _ask(dialog, answer)


def ask_file(parent: QWidget, title: str, kinds: str, answer: Answer, start: Path | None = None) -> QFileDialog:
    """Ask for a file that exists, of `kinds` such as "Plan (*.json)"."""
    dialog = _dialog(parent, title, start)
    dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
    dialog.setNameFilter(kinds)
    return _ask(dialog, answer)


def ask_save(parent: QWidget, title: str, kinds: str, answer: Answer, suggested: str) -> QFileDialog:
    """Ask for a file to write."""
    dialog = _dialog(parent, title, None)
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setNameFilter(kinds)
    dialog.setDefaultSuffix(Path(suggested).suffix.lstrip("."))
    dialog.selectFile(suggested)
    return _ask(dialog, answer)


def _dialog(parent: QWidget, title: str, start: Path | None) -> QFileDialog:
    dialog = QFileDialog(parent, title)
    if start is not None:
        dialog.setDirectory(str(start))
    return dialog


def _ask(dialog: QFileDialog, answer: Answer) -> QFileDialog:
    dialog.fileSelected.connect(lambda path: answer(Path(path)))
    dialog.finished.connect(dialog.deleteLater)
    dialog.open()
    return dialog


def confirm(parent: QWidget, title: str, text: str, yes: str, confirmed: Callable[[], object]) -> QMessageBox:
    """Ask before something that can not be taken back; `yes` is the text of its button."""
    box = QMessageBox(parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setWindowTitle(QGuiApplication.applicationDisplayName())
    box.setText(title)
    box.setInformativeText(text)
    accept = box.addButton(yes, QMessageBox.ButtonRole.AcceptRole)
    box.setDefaultButton(box.addButton(QMessageBox.StandardButton.Cancel))
    box.buttonClicked.connect(lambda pressed: confirmed() if pressed is accept else None)
    box.finished.connect(box.deleteLater)
    box.open()
    return box
