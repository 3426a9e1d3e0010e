"""Specs: every action of the window, as data: menus, tool bar, shortcuts, palette and keyboard sheet come from here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from PySide6.QtGui import QKeySequence

MENUS = ("File", "Edit", "Select", "Run", "Format", "Method", "View", "Help")


@dataclass(frozen=True, slots=True)
class Spec:
    """An action.

    `when` names the condition under which it works; `local` shortcuts work in the table and plots only, so that
    letters can be typed elsewhere. `rule` draws a line above it in its menu.
    """

    key: str
    text: str
    help: str
    keys: tuple[str, ...] = ()
    icon: str = ""
    when: str = "always"
    local: bool = False
    checkable: bool = False
    rule: bool = False
    title: str = ""
    menu: str = ""

    @property
    def shown(self) -> str:
        """The text without the mark of its mnemonic."""
        return self.text.replace("&&", "\0").replace("&", "").replace("\0", "&")

    @property
    def written_keys(self) -> str:
        """The first shortcut as the platform writes it."""
        return QKeySequence(self.keys[0]).toString(QKeySequence.SequenceFormat.NativeText)


_FILE = (
    Spec("open", "&Open folder…", "Open a Hugging Face folder.", ("Ctrl+O",), icon="open", title="Open"),
    Spec("open_file", "Open &file…", "Open a single .safetensors or .gguf file.", ("Ctrl+Shift+O",)),
    Spec(
        "open_address",
        "Open &address…",
        "Open a model at hf://, s3:// or https://; its headers are fetched.",
        ("Ctrl+Shift+U",),
        icon="address",
    ),
    Spec("demo", "Open the &demo checkpoint", "A small Llama that comes with the program.", icon="demo"),
    Spec("reload", "&Reload", "Read the checkpoint's headers again.", ("Ctrl+R",), icon="retry", when="open"),
    Spec("close", "Close chec&kpoint", "Back to the welcome page.", ("Ctrl+W",), when="open"),
    Spec("afresh", "Start afres&h", "The standard plan, without history and results of before.", when="editable"),
    Spec(
        "save_plan",
        "&Save plan…",
        "Save what is chosen for each layer as JSON.",
        ("Ctrl+S",),
        icon="save",
        when="open",
        rule=True,
    ),
    Spec("load_plan", "&Load plan…", "Choose as a saved plan says.", ("Ctrl+L",), when="editable"),
    Spec(
        "open_statistics",
        "Open stat&istics…",
        "What running the model on text told about the inputs of its layers.",
        when="guidable",
    ),
    Spec("drop_statistics", "Use &no statistics", "Choose codes without them.", when="statistics"),
    Spec(
        "export",
        "&Export…",
        "Write packed safetensors, verified.",
        ("Ctrl+E",),
        icon="export",
        when="export",
        rule=True,
        title="Export",
    ),
    Spec(
        "convert",
        "Convert &without loss…",
        "Store what is open in another layout, codes as they are.",
        when="convertible",
    ),
    Spec(
        "verify",
        "&Verify an export…",
        "Check every byte and weight of a folder written earlier.",
        ("Ctrl+Shift+E",),
        icon="done",
        when="idle",
    ),
    Spec(
        "publish",
        "P&ublish an export…",
        "Send a folder written earlier to a repository of a Hugging Face hub.",
        icon="publish",
        when="idle",
    ),
    Spec(
        "examine",
        "E&xamine a folder…",
        "Find what is wrong with any checkpoint folder, whoever wrote it.",
        icon="doctor",
        when="idle",
    ),
    Spec(
        "report",
        "Write re&port…",
        "HTML, CSV and JSON of what is on the screen.",
        ("Ctrl+Shift+R",),
        icon="report",
        when="results",
    ),
    Spec("settings", "Se&ttings…", "Theme, text size, machine, warning line.", ("Ctrl+,",), icon="settings", rule=True),
    Spec("quit", "&Quit", "What is finished is kept.", ("Ctrl+Q",), rule=True),
)
_EDIT = (
    Spec("undo", "&Undo", "Take the last choice back.", ("Ctrl+Z",), icon="undo", when="undo"),
    Spec("redo", "&Redo", "Do it again.", ("Ctrl+Shift+Z", "Ctrl+Y"), icon="redo", when="redo"),
    Spec(
        "copy_rows",
        "&Copy rows as CSV",
        "The selected layers, or all shown.",
        ("Ctrl+C",),
        icon="copy",
        when="open",
        local=True,
        rule=True,
    ),
    Spec("copy_names", "Copy &names", "Names of the selected layers.", ("Ctrl+Shift+C",), when="selection"),
    Spec(
        "copy_command",
        "Copy as co&mmand",
        "The command line that does the same.",
        ("Ctrl+Alt+C",),
        icon="command",
        when="open",
    ),
    Spec(
        "find",
        "&Find layers",
        "Filter by name, format, error, size …",
        ("Ctrl+F", "/"),
        icon="search",
        when="open",
        rule=True,
    ),
    Spec(
        "clear", "C&lear filter and selection", "Esc in the filter or the table.", ("Escape",), when="open", local=True
    ),
)
_SELECT = (
    Spec("select_all", "&All shown", "Every layer that passes the filter.", ("Ctrl+A",), when="open", local=True),
    Spec("select_invert", "&Invert", "The other layers that are shown.", ("Ctrl+I",), when="open"),
    Spec("select_kind", "Same &kind", "All layers of the same projection.", ("K",), when="selection", local=True),
    Spec("select_block", "Same &block", "All layers of the same block.", ("B",), when="selection", local=True),
    Spec(
        "select_worst",
        "Above the &warning line",
        "Layers that lost more than the line allows.",
        ("W",),
        when="results",
        local=True,
    ),
    Spec(
        "next_problem",
        "&Next problem",
        "The next layer above the warning line or failed.",
        ("F8",),
        when="open",
        rule=True,
    ),
    Spec("last_problem", "&Previous problem", "The one before.", ("Shift+F8",), when="open"),
)
_RUN = (
    Spec(
        "quantize",
        "&Quantize",
        "Quantize and measure all layers that are not done.",
        ("Ctrl+Return",),
        icon="quantize",
        when="pending",
        title="Quantize",
    ),
    Spec(
        "quantize_selection",
        "Quantize &selection",
        "Only the selected layers.",
        ("Shift+Return",),
        when="selection_pending",
    ),
    Spec(
        "pause",
        "&Pause",
        "Wait; what is done stays.",
        ("Ctrl+P",),
        icon="pause",
        when="pausable",
        checkable=True,
        title="Pause",
    ),
    Spec(
        "stop",
        "&Cancel",
        "Stop within half a second; what is done stays.",
        ("Ctrl+.",),
        icon="stop",
        when="stoppable",
        title="Cancel",
    ),
    Spec(
        "calibrate",
        "C&alibrate…",
        "Run the model on text and gather statistics of the inputs of its layers.",
        when="runnable",
        rule=True,
    ),
    Spec(
        "evaluate",
        "&Evaluate…",
        "Run what the plan makes of the model on text: perplexity, KL to the source, agreement.",
        when="evaluable",
    ),
    Spec(
        "price",
        "Pr&ice formats",
        "Measure what every format and method would cost every layer, for the page Budget.",
        when="guidable",
    ),
    Spec("retry", "&Retry failed", "Quantize the layers that failed once more.", icon="retry", when="failed"),
)
_FORMAT = (
    Spec(
        "pin",
        "&Pin what is shown",
        "Choose by hand what the table shows for the selection, so that no budget changes it.",
        ("P",),
        when="choice",
        local=True,
    ),
    Spec(
        "reset_format",
        "As the plan sa&ys",
        "Take back what was chosen by hand.",
        ("Backspace",),
        when="choice",
        local=True,
    ),
)
_VIEW = (
    Spec(
        "fold_all", "&Fold all blocks", "Only the heads of blocks.", ("Shift+Left",), when="open", local=True, rule=True
    ),
    Spec(
        "by_kind",
        "&Group by kind",
        "A line for each kind of layer: how many, the worst error, bits per weight.",
        ("Shift+K",),
        when="open",
        local=True,
        checkable=True,
        title="By kind",
    ),
    Spec("unfold_all", "&Unfold all blocks", "All layers.", ("Shift+Right",), when="open", local=True),
    Spec(
        "messages",
        "&Problems and log",
        "Everything that was reported, with time and layer.",
        ("Ctrl+J",),
        icon="log",
        checkable=True,
        rule=True,
    ),
    Spec("compact", "Compac&t rows", "More layers on the screen.", checkable=True),
    Spec("larger", "&Larger text", "All text one pixel higher.", ("Ctrl++", "Ctrl+="), rule=True),
    Spec("smaller", "&Smaller text", "All text one pixel lower.", ("Ctrl+-",)),
    Spec("dark", "Dar&k theme", "Light on dark, or dark on light.", ("Ctrl+Shift+D",), checkable=True),
    Spec("reset_layout", "&Reset layout", "Panes and columns as they were at first."),
)
_HELP = (
    Spec("palette", "Command &palette…", "Find any action by typing.", ("Ctrl+Shift+P", "Ctrl+K"), icon="command"),
    Spec("keyboard", "&Keyboard sheet", "All shortcuts on one page.", ("F1", "?"), icon="keyboard"),
    Spec("formats", "&Formats explained", "What each format stores, in bits and blocks.", icon="info"),
    Spec("diagnostics", "Copy &diagnostics", "Versions and machine, for a report of a fault.", icon="copy", rule=True),
)

_MENUS = {"File": _FILE, "Edit": _EDIT, "Select": _SELECT, "Run": _RUN, "Format": _FORMAT, "View": _VIEW, "Help": _HELP}
SPECS: tuple[Spec, ...] = tuple(replace(spec, menu=menu) for menu, specs in _MENUS.items() for spec in specs)


def keys_of(key: str) -> str:
    """The first shortcut of an action as the platform writes it."""
    return next(spec.written_keys for spec in SPECS if spec.key == key)


def format_specs(formats: Mapping[str, str]) -> list[Spec]:
    """An action for each format (name -> title), the first nine under the keys 1 to 9, and 0 to keep the layer."""
    named = [
        Spec(f"format:{name}", f"{name}   {title}", f"Quantize the selection to {title}.", (str(n),) if n < 10 else ())
        for n, (name, title) in enumerate(formats.items(), 1)
    ]
    keep = Spec("format:keep", "&Keep as it is", "Do not quantize the selection.", ("0",))
    return [replace(spec, when="choice", local=True, menu="Format") for spec in (*named, keep)]


def method_specs(methods: Mapping[str, str]) -> list[Spec]:
    """An action for each method (name -> title) under Alt and its number."""
    return [
        Spec(f"method:{name}", name, f"For the selection: {title}.", (f"Alt+{n}",), when="choice", menu="Method")
        for n, (name, title) in enumerate(methods.items(), 1)
    ]
