"""Actions: what `specs` describes, as Qt has it."""

from collections.abc import Callable, Iterable, Mapping

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QWidget

from studio.gui.shell.appearance import themed_icon
from studio.gui.shell.specs import MENUS, Spec
from studio.gui.shell.text import tip
from studio.gui.shell.theme import Theme

NOTHING_OPEN = "open a checkpoint first"


class Actions(QObject):
    """The actions as Qt has them, made from `specs` and from those added later, menu by menu."""

    def __init__(self, window: QWidget, perform: Callable[[str], None], specs: Iterable[Spec]) -> None:
        super().__init__(window)
        self._window, self._perform = window, perform
        self.specs: dict[str, Spec] = {}
        self.made: dict[str, QAction] = {}
        self.reasons: dict[str, str] = {}
        for spec in sorted(specs, key=lambda spec: MENUS.index(spec.menu)):
            self.add(spec)

    def add(self, spec: Spec) -> QAction:
        """Make an action; its shortcuts work in the whole window unless they are local."""
        action = QAction(spec.text, self)
        action.setObjectName(spec.key)
        action.setShortcuts([QKeySequence(key) for key in spec.keys])
        if spec.local:
            action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        else:
            self._window.addAction(action)
        action.setCheckable(spec.checkable)
        action.setMenuRole(_ROLES.get(spec.key, QAction.MenuRole.NoRole))
        if spec.title:
            action.setIconText(spec.title)
        action.triggered.connect(lambda _checked=False, key=spec.key: self._perform(key))
        self.specs[spec.key], self.made[spec.key] = spec, action
        return action

    def __getitem__(self, key: str) -> QAction:
        return self.made[key]

    @property
    def conditions(self) -> set[str]:
        """The names of all conditions under which actions work."""
        return {spec.when for spec in self.specs.values()} - {"always"}

    def in_menu(self, menu: str) -> list[Spec]:
        """The actions of a menu, in order."""
        return [spec for spec in self.specs.values() if spec.menu == menu]

    def bind_local(self, widget: QWidget) -> None:
        """Let the local shortcuts work inside `widget`."""
        widget.addActions([self.made[spec.key] for spec in self.specs.values() if spec.local])

    def refresh(self, reasons: Mapping[str, str]) -> None:
        """Enable what works now. `reasons` says for each condition why it does not hold, "" when it does."""
        for spec in self.specs.values():
            reason = reasons.get(spec.when, "")
            if self.reasons.get(spec.key) == reason:
                continue
            self.reasons[spec.key] = reason
            action = self.made[spec.key]
            action.setEnabled(not reason)
            keys = ", ".join(key.toString(QKeySequence.SequenceFormat.NativeText) for key in action.shortcuts())
            about = f"{spec.help}  ({keys})" if keys else spec.help
            action.setToolTip(tip(f"{about}\nNot now: {reason}" if reason else about))
            action.setStatusTip(reason or spec.help)

    def set_theme(self, theme: Theme) -> None:
        """Draw the icons in the theme's colours."""
        for spec in self.specs.values():
            if spec.icon:
                self.made[spec.key].setIcon(themed_icon(spec.icon, theme))


_ROLES = {
    "settings": QAction.MenuRole.PreferencesRole,
    "quit": QAction.MenuRole.QuitRole,
}
