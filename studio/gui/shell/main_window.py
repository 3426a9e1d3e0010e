"""MainWindow: places menus, tool bar, pages and strips; what they do is elsewhere."""

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QCloseEvent, QDragEnterEvent, QDragLeaveEvent, QDragMoveEvent, QDropEvent
from PySide6.QtWidgets import QMainWindow, QMenu, QSizePolicy, QStackedWidget, QToolBar, QVBoxLayout, QWidget

from studio.gui.jobs.activity import Activity
from studio.gui.pages.registry import PAGES
from studio.gui.shell.actions import Actions
from studio.gui.shell.cards import Cards, Message, Messages
from studio.gui.shell.dropping import DropSheet, dropped_places, promise
from studio.gui.shell.message_list import MessageList
from studio.gui.shell.specs import MENUS, SPECS, Spec
from studio.gui.shell.text import label
from studio.gui.shell.theme import Theme
from studio.gui.shell.tool_button import ICON, ToolButton
from studio.gui.shell.welcome import Welcome

PROGRAM = "NVFP4 Studio"
SMALLEST = QSize(960, 600)
ICON_ONLY, WITH_TEXT = Qt.ToolButtonStyle.ToolButtonIconOnly, Qt.ToolButtonStyle.ToolButtonTextBesideIcon
TOOLS = ("open", "", "quantize", "pause", "stop", "", "export", "", "undo", "redo")


class MainWindow(QMainWindow):
    """The window. It shows the welcome page until a workspace is placed.

    Signals:
        dropped(list): files or folders, or one address, were dropped on the window.
        closing(): the window is about to close; `keep_open` set meanwhile keeps it.
    """

    dropped = Signal(object)
    closing = Signal()

    def __init__(self, perform: Callable[[str], None]) -> None:
        super().__init__()
        self.setWindowTitle(PROGRAM)
        self.setMinimumSize(SMALLEST)
        self.setAcceptDrops(True)
        self.keep_open = False
        self.actions_of = Actions(self, perform, (*(page.spec for page in PAGES), *SPECS))
        self.messages = Messages(self)
        self.welcome = Welcome()
        self.activity = Activity()
        self.message_list = MessageList(self.messages)
        self.message_list.hide()
        self.pages = QStackedWidget()
        self.pages.addWidget(self.welcome)
        self._place()
        self.drop_sheet = DropSheet(self.body)
        self.cards = Cards(self.body, self._below_cards)
        self.cards.gone.connect(self.messages.let_go)
        self.messages.added.connect(self._show_message)
        self.menus: dict[str, QMenu] = {}
        self.fill_menus()
        self._fill_tools()
        self._fill_status()

    def _place(self) -> None:
        self.body = QWidget()
        rows = QVBoxLayout(self.body)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(self.pages, 1)
        rows.addWidget(self.message_list)
        rows.addWidget(self.activity)
        self.setCentralWidget(self.body)

    def fill_menus(self) -> None:
        """Make the menus from the registry of actions."""
        self.menuBar().clear()
        for title in MENUS:
            menu = self.menuBar().addMenu(f"&{title}" if title != "Format" else "F&ormat")
            menu.setToolTipsVisible(True)
            self.menus[title] = menu
            for spec in self.actions_of.in_menu(title):
                self._add(menu, spec)
            if title == "File":
                self._add_recent_menu(menu)

    def _add(self, menu: QMenu, spec: Spec) -> None:
        if spec.rule:
            menu.addSeparator()
        menu.addAction(self.actions_of[spec.key])

    def _add_recent_menu(self, menu: QMenu) -> None:
        self.recent_menu = QMenu("Open re&cent", menu)
        menu.insertMenu(self.actions_of["demo"], self.recent_menu)

    def _fill_tools(self) -> None:
        bar = QToolBar("Tools")
        bar.setObjectName("tools")
        bar.setMovable(False)
        bar.setIconSize(ICON)
        bar.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        for key in TOOLS:
            if key:
                bar.addWidget(ToolButton(self.actions_of[key], ICON_ONLY if key in ("undo", "redo") else WITH_TEXT))
            else:
                bar.addSeparator()
        space = QWidget()
        space.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        bar.addWidget(space)
        self.tools = bar
        self.addToolBar(bar)

    def _fill_status(self) -> None:
        self.machine = label("", "small")
        self.saved = label("", "small")
        bar = self.statusBar()
        bar.setContentsMargins(8, 0, 8, 0)
        bar.setSizeGripEnabled(False)
        bar.addWidget(self.machine)
        bar.addPermanentWidget(self.saved)

    def place_workspace(self, workspace: QWidget) -> None:
        """Take in the page for an open checkpoint."""
        self.pages.addWidget(workspace)

    def show_workspace(self, shown: bool) -> None:
        """The page of the open checkpoint, or the welcome page."""
        self.pages.setCurrentIndex(1 if shown and self.pages.count() > 1 else 0)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours and another size of text."""
        self.actions_of.set_theme(theme)
        for part in (self.welcome, self.activity, self.message_list, self.drop_sheet):
            part.set_theme(theme)
        self.cards.place()

    def _below_cards(self) -> int:
        strips = (self.activity, self.message_list)
        return sum(strip.height() for strip in strips if strip.isVisible())

    def _show_message(self, message: Message) -> None:
        self.cards.show(message)
        self.message_list.view.scrollToBottom()

    # dropping

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Say what will be done with what is dragged over the window."""
        if places := dropped_places(event.mimeData()):
            _take(event)
            self._hover(promise(places))

    def dragMoveEvent(self, event: QDragMoveEvent) -> None:
        """It may be dropped anywhere."""
        _take(event)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        """Nothing is dropped."""
        self._hover("")

    def dropEvent(self, event: QDropEvent) -> None:
        """Take what was dropped."""
        self._hover("")
        if places := dropped_places(event.mimeData()):
            _take(event)
            self.dropped.emit(places)

    def _hover(self, text: str) -> None:
        self.welcome.set_hover(bool(text))
        self.drop_sheet.promise(text)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Close, unless there is a reason to ask first."""
        self.keep_open = False
        self.closing.emit()
        event.setAccepted(not self.keep_open)


def _take(event: QDropEvent) -> None:
    """A copy is taken, never the thing itself, whatever is proposed: who gave it might remove it after a move."""
    event.setDropAction(Qt.DropAction.CopyAction)
    event.accept()
