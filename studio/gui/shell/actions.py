"""Every action of the window, as data: menus, tool bar, shortcuts, palette and keyboard sheet come from here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QWidget

from studio.gui.shell.appearance import themed_icon
from studio.gui.shell.text import tip
from studio.gui.shell.theme import Theme

MENUS = ("File", "Edit", "Select", "Run", "Format", "View", "Help")


@dataclass(frozen=True, slots=True)
class Spec:
    """An action.

    `when` names the condition under which it works; `local` shortcuts work in the table and plots only, so that
    letters can be typed elsewhere. `rule` draws a line above it in its menu.
    """

    key: str
    text: str
    menu: str
    help: str
    keys: tuple[str, ...] = ()
    icon: str = ""
    when: str = "always"
    local: bool = False
    checkable: bool = False
    rule: bool = False
    title: str = ""

    @property
    def shown(self) -> str:
        """The text without the mark of its mnemonic."""
        return self.text.replace("&&", "\0").replace("&", "").replace("\0", "&")


SPECS: tuple[Spec, ...] = (
    Spec("open", "&Open folder…", "File", "Open a Hugging Face folder.", ("Ctrl+O",), "open", title="Open"),
    Spec("open_file", "Open &file…", "File", "Open a single .safetensors file.", ("Ctrl+Shift+O",)),
    Spec("demo", "Open the &demo checkpoint", "File", "A small Llama that comes with the program.", icon="demo"),
    Spec("reload", "&Reload", "File", "Read the checkpoint's headers again.", ("Ctrl+R",), "retry", "open"),
    Spec("close", "&Close checkpoint", "File", "Back to the welcome page.", ("Ctrl+W",), "", "open"),
    Spec("afresh", "Start a&fresh", "File", "The standard plan, without history and results of before.", when="open"),
    Spec(
        "save_plan",
        "&Save plan…",
        "File",
        "Save what is chosen for each layer as JSON.",
        ("Ctrl+S",),
        "save",
        "open",
        rule=True,
    ),
    Spec("load_plan", "&Load plan…", "File", "Choose as a saved plan says.", ("Ctrl+L",), "", "open"),
    Spec(
        "export",
        "&Export…",
        "File",
        "Write packed safetensors, verified.",
        ("Ctrl+E",),
        "export",
        "export",
        rule=True,
        title="Export",
    ),
    Spec(
        "verify",
        "&Verify an export…",
        "File",
        "Check every byte and weight of a folder written earlier.",
        ("Ctrl+Shift+E",),
        "done",
        "idle",
    ),
    Spec(
        "report",
        "Write re&port…",
        "File",
        "HTML, CSV and JSON of what is on the screen.",
        ("Ctrl+Shift+R",),
        "report",
        "results",
    ),
    Spec(
        "settings", "Se&ttings…", "File", "Theme, text size, machine, warning line.", ("Ctrl+,",), "settings", rule=True
    ),
    Spec("quit", "&Quit", "File", "What is finished is kept.", ("Ctrl+Q",), rule=True),
    Spec("undo", "&Undo", "Edit", "Take the last choice back.", ("Ctrl+Z",), "undo", "undo"),
    Spec("redo", "&Redo", "Edit", "Do it again.", ("Ctrl+Shift+Z", "Ctrl+Y"), "redo", "redo"),
    Spec(
        "copy_rows",
        "&Copy rows as CSV",
        "Edit",
        "The selected layers, or all shown.",
        ("Ctrl+C",),
        "copy",
        "open",
        local=True,
        rule=True,
    ),
    Spec("copy_names", "Copy &names", "Edit", "Names of the selected layers.", ("Ctrl+Shift+C",), "", "selection"),
    Spec(
        "copy_command",
        "Copy as co&mmand",
        "Edit",
        "The command line that does the same.",
        ("Ctrl+Alt+C",),
        "command",
        "open",
    ),
    Spec(
        "find",
        "&Find layers",
        "Edit",
        "Filter by name, format, error, size …",
        ("Ctrl+F", "/"),
        "search",
        "open",
        rule=True,
    ),
    Spec(
        "clear",
        "C&lear filter and selection",
        "Edit",
        "Esc in the filter or the table.",
        ("Escape",),
        "",
        "open",
        local=True,
    ),
    Spec(
        "select_all", "&All shown", "Select", "Every layer that passes the filter.", ("Ctrl+A",), "", "open", local=True
    ),
    Spec("select_invert", "&Invert", "Select", "The other layers that are shown.", ("Ctrl+I",), "", "open"),
    Spec(
        "select_kind", "Same &kind", "Select", "All layers of the same projection.", ("K",), "", "selection", local=True
    ),
    Spec("select_block", "Same &block", "Select", "All layers of the same block.", ("B",), "", "selection", local=True),
    Spec(
        "select_worst",
        "Above the &warning line",
        "Select",
        "Layers that lost more than the line allows.",
        ("W",),
        "",
        "results",
        local=True,
    ),
    Spec(
        "next_problem",
        "&Next problem",
        "Select",
        "The next layer above the warning line or failed.",
        ("F8",),
        "",
        "open",
        rule=True,
    ),
    Spec("last_problem", "&Previous problem", "Select", "The one before.", ("Shift+F8",), "", "open"),
    Spec(
        "quantize",
        "&Quantize",
        "Run",
        "Quantize and measure all layers that are not done.",
        ("Ctrl+Return",),
        "quantize",
        "pending",
        title="Quantize",
    ),
    Spec(
        "quantize_selection",
        "Quantize &selection",
        "Run",
        "Only the selected layers.",
        ("Shift+Return",),
        "",
        "selection_pending",
    ),
    Spec(
        "pause",
        "&Pause",
        "Run",
        "Wait; what is done stays.",
        ("Ctrl+P",),
        "pause",
        "running",
        checkable=True,
        title="Pause",
    ),
    Spec(
        "stop",
        "&Cancel",
        "Run",
        "Stop within half a second; what is done stays.",
        ("Ctrl+.",),
        "stop",
        "running",
        title="Cancel",
    ),
    Spec("retry", "&Retry failed", "Run", "Quantize the layers that failed once more.", (), "retry", "failed"),
    Spec(
        "reset_format",
        "As the &plan says",
        "Format",
        "Take back what was chosen by hand.",
        ("Backspace",),
        "",
        "selection",
        local=True,
    ),
    Spec(
        "inspect",
        "&Inspector",
        "View",
        "One layer down to a block of 16 weights.",
        ("Ctrl+Shift+I",),
        "inspect",
        "open",
    ),
    Spec(
        "overview",
        "&Overview",
        "View",
        "Errors, outliers and scale regimes of all layers.",
        ("Ctrl+1",),
        "layers",
        "open",
    ),
    Spec(
        "compare",
        "&Compare A and B",
        "View",
        "Two formats, plans or exports side by side.",
        ("C",),
        "compare",
        "open",
        local=True,
    ),
    Spec(
        "metadata",
        "&Metadata",
        "View",
        "Configuration, files and what was odd about them.",
        ("Ctrl+4",),
        "info",
        "open",
    ),
    Spec(
        "fold_all",
        "&Fold all blocks",
        "View",
        "Only the heads of blocks.",
        ("Shift+Left",),
        "",
        "open",
        local=True,
        rule=True,
    ),
    Spec("unfold_all", "&Unfold all blocks", "View", "All layers.", ("Shift+Right",), "", "open", local=True),
    Spec(
        "messages",
        "&Problems and log",
        "View",
        "Everything that was reported, with time and layer.",
        ("Ctrl+J",),
        "log",
        checkable=True,
        rule=True,
    ),
    Spec("compact", "&Compact rows", "View", "More layers on the screen.", (), checkable=True),
    Spec("larger", "&Larger text", "View", "All text one pixel higher.", ("Ctrl++", "Ctrl+="), rule=True),
    Spec("smaller", "&Smaller text", "View", "All text one pixel lower.", ("Ctrl+-",)),
    Spec("dark", "&Dark theme", "View", "Light on dark, or dark on light.", ("Ctrl+Shift+D",), checkable=True),
    Spec("reset_layout", "&Reset layout", "View", "Panes and columns as they were at first.", ()),
    Spec("palette", "Command &palette…", "Help", "Find any action by typing.", ("Ctrl+Shift+P", "Ctrl+K"), "command"),
    Spec("keyboard", "&Keyboard sheet", "Help", "All shortcuts on one page.", ("F1", "?"), "keyboard"),
    Spec("formats", "&Formats explained", "Help", "What each format stores, in bits and blocks.", (), "info"),
    Spec(
        "diagnostics",
        "Copy &diagnostics",
        "Help",
        "Versions and machine, for a report of a fault.",
        (),
        "copy",
        rule=True,
    ),
)


class Actions(QObject):
    """The actions as Qt has them, made from `SPECS` and from those added later."""

    def __init__(self, window: QWidget, perform: Callable[[str], None]) -> None:
        super().__init__(window)
        self._window, self._perform = window, perform
        self.specs: dict[str, Spec] = {}
        self.made: dict[str, QAction] = {}
        self.reasons: dict[str, str] = {}
        for spec in SPECS:
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


def format_specs(formats: Mapping[str, str]) -> list[Spec]:
    """An action for each format (name -> title) under the keys 1 to 9, and 0 to keep the layer."""
    named = [
        Spec(
            f"format:{name}",
            f"{name}   {title}",
            "Format",
            f"Quantize the selection to {title}.",
            (str(number),),
            "",
            "selection",
            True,
        )
        for number, (name, title) in enumerate(formats.items(), 1)
    ]
    keep = Spec(
        "format:keep", "&Keep as it is", "Format", "Do not quantize the selection.", ("0",), "", "selection", True
    )
    return [*named[:9], keep]
