"""The context menu of the table: what can be done with the selected layers."""

from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QMenu, QWidget

from studio.gui.shell.actions import Actions


def show_row_menu(parent: QWidget, actions: Actions, place: QPoint) -> QMenu:
    """Show the menu at a place on the screen."""
    menu = QMenu(parent)
    menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    for title, name in (("Set &format", "Format"), ("Set &method", "Method")):
        inner = menu.addMenu(title)
        inner.setToolTipsVisible(True)
        for spec in actions.in_menu(name):
            inner.addAction(actions[spec.key])
    for key in ("pin", "reset_format"):
        menu.addAction(actions[key])
    menu.addSeparator()
    for key in ("quantize_selection", "inspect", "compare"):
        menu.addAction(actions[key])
    menu.addSeparator()
    for key in ("select_kind", "select_block"):
        menu.addAction(actions[key])
    menu.addSeparator()
    for key in ("copy_rows", "copy_names", "copy_command"):
        menu.addAction(actions[key])
    menu.popup(place)
    return menu
