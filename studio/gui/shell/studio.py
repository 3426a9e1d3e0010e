"""Studio: the parts that need a checkpoint: document, workspace, runs, editing, details, export; and their actions."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QByteArray, QObject, QTimer

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Task
from studio.gui.jobs.exporting import Exporting
from studio.gui.jobs.runs import Runs, message_of
from studio.gui.keeping.keeping import AFRESH, PICKED_UP, Keeping
from studio.gui.keeping.recall import Found, opening
from studio.gui.layers.document import Document
from studio.gui.layers.editing import Editing
from studio.gui.layers.plan_bar import PlanBar
from studio.gui.layers.row_menu import show_row_menu
from studio.gui.layers.store import FAILED, PENDING, STALE
from studio.gui.pages.comparing import Comparing
from studio.gui.pages.details import Details
from studio.gui.pages.workspace import Workspace
from studio.gui.shell.actions import format_specs
from studio.gui.shell.ask import confirm
from studio.gui.shell.cards import Card, Message
from studio.gui.shell.main_window import PROGRAM
from studio.gui.shell.text import tip
from studio.gui.shell.theme import Theme

if TYPE_CHECKING:
    from studio.gui.shell.commands import Commands

READY_MS = 150


class Studio(QObject):
    """Made once numpy, pyqtgraph and core are loaded; lives as long as the window."""

    def __init__(self, commands: "Commands") -> None:
        super().__init__(commands)
        self.commands, window = commands, commands.window
        self.document = Document(self)
        self.document.warning_line = commands.settings["warning_line"]
        self._actions = window.actions_of
        for spec in format_specs({name: row.title for name, row in core.FORMATS.items()}):
            self._actions.add(spec)
        window.fill_menus()
        self.workspace = Workspace(self.document, commands.settings, self._actions)
        self.keeping = Keeping(self.document, self.workspace, commands.settings, self)
        self.runs = Runs(self.document, commands.compute, commands.settings, window.activity, self)
        self.editing = Editing(self.document, self.workspace, self)
        self.details = Details(self.document, self.workspace, commands.compute, self.runs, self)
        self.exporting = Exporting(self.document, self.runs, self.editing, commands, self)
        self.comparing = Comparing(self.document, self.runs, self.workspace.views["CompareView"], self)
        self.plan_bar = PlanBar(self.document, window)
        window.tools.addWidget(self.plan_bar)
        window.place_workspace(self.workspace)
        self.handlers = self._handlers()
        self._opening: dict[Task, Path] = {}
        self._former: list[Card] = []
        self._ready_soon = QTimer(self, singleShot=True, interval=READY_MS)
        self._connect()
        self._set_warning_line(self.document.warning_line)
        if (state := commands.session.part("columns")) is not None:
            self.workspace.layers.horizontalHeader().restoreState(state)

    def _connect(self) -> None:
        commands, document, window = self.commands, self.document, self.commands.window
        commands.compute.reported.connect(self._reported)
        commands.compute.ended.connect(self._ended)
        for source in (self.runs, self.editing, self.details, self.comparing, self.exporting, self.keeping):
            source.told.connect(commands.tell)
        for signal in (
            document.opened,
            document.chosen,
            document.measured,
            document.selected,
            document.undo.indexChanged,
        ):
            signal.connect(lambda *_: commands.refresh())
        self.runs.changed.connect(commands.refresh)
        self.runs.changed.connect(self._catch_up)
        self.runs.changed.connect(self._show_paused)
        self.runs.progressed.connect(self._show_progress)
        self.runs.backend_known.connect(lambda title: window.machine.setText(f"Computes on: {title}"))
        document.saved_changed.connect(self._show_saved)
        self.keeping.changed.connect(self._show_saved)
        document.undo.indexChanged.connect(lambda _: self._drop_offers())
        self.runs.changed.connect(self._drop_offers)
        self.keeping.afresh_wanted.connect(self.start_afresh)
        document.hidden.connect(self._offer_hidden)
        document.chosen.connect(lambda _: self._ready_soon.start())
        self._ready_soon.timeout.connect(self._show_what_is_left)
        window.activity.pause_wanted.connect(self.runs.toggle_pause)
        window.activity.stop_wanted.connect(self.runs.stop)
        window.activity.worst_wanted.connect(self.editing.select_worst)
        self.comparing.exports_shown.connect(lambda: self.workspace.show_page("compare"))
        self.plan_bar.preset_wanted.connect(self.editing.set_preset)
        self.plan_bar.format_wanted.connect(self.editing.set_plan_format)
        self.workspace.layers.menu_wanted.connect(lambda at: show_row_menu(self.workspace.layers, self._actions, at))
        self.editing.report_wanted.connect(self._write_report)
        error_view = self.workspace.views["ErrorView"]
        if hasattr(error_view, "warning_changed"):
            error_view.warning_changed.connect(self._change_warning_line)

    def _catch_up(self) -> None:
        if not self.runs.active:
            self.workspace.catch_up()

    def _handlers(self) -> dict[str, Any]:
        runs, editing, page = self.runs, self.editing, self.workspace.show_page
        table = self.workspace.layers
        found: dict[str, Any] = {
            "reload": self.reload,
            "close": self.close_checkpoint,
            "afresh": self.start_afresh,
            "export": self.exporting.ask,
            "verify": self.exporting.ask_verify,
            "undo": self.document.undo.undo,
            "redo": self.document.undo.redo,
            "find": self._find,
            "clear": self._clear,
            "quantize": runs.quantize,
            "quantize_selection": lambda: runs.quantize(self.document.selection),
            "pause": runs.toggle_pause,
            "stop": runs.stop,
            "retry": runs.retry,
            "inspect": self._inspect,
            "overview": lambda: page("overview"),
            "compare": lambda: page("compare"),
            "metadata": lambda: page("metadata"),
            "fold_all": lambda: table.fold(folded=True, everywhere=True),
            "unfold_all": lambda: table.fold(folded=False, everywhere=True),
            "next_problem": lambda: editing.step_problem(1),
            "last_problem": lambda: editing.step_problem(-1),
            "reset_layout": self._reset_layout,
            "formats": self._explain_formats,
        }
        same = ("save_plan", "load_plan", "report", "copy_rows", "copy_names", "copy_command", "reset_format")
        chosen = ("select_all", "select_invert", "select_kind", "select_block", "select_worst")
        found |= {name: getattr(editing, name) for name in (*same, *chosen)}
        for name in (*core.FORMATS, core.KEEP):
            found[f"format:{name}"] = lambda name=name: editing.set_format(name)
        return found

    # opening and closing

    def open(self, path: Path) -> None:
        """Open a checkpoint in the background; the one that is open stays until it is read."""
        if self.runs.active:
            hint = "Cancel it (Ctrl+.) or wait, then open the other checkpoint."
            self.commands.tell(Message("warning", "Work is still running", hint=hint))
            return
        model = self.document.model
        if model is not None and model.path == path:
            self._open(path)
        else:
            self.unless_lost("Open another checkpoint?", "Open it", lambda: self._open(path))

    def unless_lost(self, question: str, yes: str, proceed: Callable[[], object]) -> None:
        """Proceed at once, or, where a plan would go that is neither saved nor kept, when the user agrees."""
        if not self.commands.settings["confirm_quit"] or self.document.is_saved or self.keeping.keep_now():
            proceed()
            return
        count = len(self.document.state.edits)
        held = f" {count:,} choice{'s' if count != 1 else ''} by hand would go." if count else ""
        text = f"The plan is not saved.{held} Save it with Ctrl+S."
        confirm(self.commands.window, question, text, f"{yes} without saving", proceed)

    def _open(self, path: Path) -> None:
        again = self.document.model is not None and self.document.model.path == path
        self.keeping.keep_now()  # it may be the same checkpoint by another path
        shelf, held, work = self.keeping.shelf_in_use, self.keeping.held, self.keeping.work() if again else None
        task = Task("open", "Opening", lambda: opening(path, shelf, held, work))
        self._opening[task] = path
        self._former = list(self.commands.window.cards.shown)
        self.commands.window.machine.setText(f"Opening {core.printable(path.name)} …")
        self.commands.compute.submit(task)

    def reload(self) -> None:
        """Read the headers again; plan, undo and view stay, and choices by hand where their layers still are."""
        if self.document.model is not None:
            self.open(self.document.model.path)

    def close_checkpoint(self) -> None:
        """Back to the welcome page."""
        if self.runs.active:
            self.runs.stop()
            return
        self.unless_lost("Close the checkpoint?", "Close it", self._close)

    def _drop_offers(self) -> None:
        cards = self.commands.window.cards
        cards.clear([card for card in cards.shown if card.message.title in (PICKED_UP, AFRESH)])

    def start_afresh(self) -> None:
        """The standard plan, without history and results."""
        if self.runs.active:
            self.commands.tell(Message("warning", "Work is still running", hint="Cancel it (Ctrl+.) or wait."))
            return
        self.keeping.start_afresh()
        self._show_ready()

    def _close(self) -> None:
        self.keeping.leave()
        self.document.close_model()
        self.document.opened.emit()
        self.commands.session.note_closed()
        self.commands.window.cards.clear()
        self.commands.window.show_workspace(False)
        self.commands.window.setWindowTitle(PROGRAM)
        self.commands.window.activity.hide()

    def _reported(self, task: Task, reports: list[Any]) -> None:
        if task not in self._opening or not isinstance(found := reports[-1], Found):
            return
        path, model, window = self._opening[task], found.model, self.commands.window
        again = self.document.model is not None and self.document.model.path == model.path
        self.commands.note_opened(path)
        window.cards.clear(self._former)
        window.show_workspace(True)
        self.keeping.show(found, again=again)
        self._show_ready()
        self._show_title()
        self.workspace.layers.setFocus()
        for warning in model.warnings[:3]:
            self.commands.tell(Message("warning", "Odd in this checkpoint", core.printable(warning, 400)))
        if model.quantized_by:
            hint = "Look around; to quantize, start from the checkpoint before it was quantized."
            self.commands.tell(
                Message("warning", f"Already quantized: {core.printable(model.quantized_by)}", hint=hint)
            )
        self.commands.opened.emit()

    def _ended(self, task: Task, ending: str, error: object) -> None:
        if task.key == "report":
            self._report_ended(ending, error)
        if self._opening.pop(task, None) is None:
            return
        self._show_machine()
        if ending == "failed":
            hint = "Choose a folder with config.json and .safetensors, or one .safetensors file, downloaded in full."
            self.commands.tell(message_of(error, "This can not be opened", hint))
        self.commands.refresh()

    def _show_machine(self) -> None:
        workers = self.runs.machine.workers
        self.commands.window.machine.setText(
            f"{workers} thread{'s' if workers != 1 else ''}, {self.runs.machine.backend}"
        )

    def _show_ready(self) -> None:
        """What the strip says before anything runs."""
        document = self.document
        order, known = document.order(), document.store.figures().done
        size = core.size_text(sum(choice.layer.nbytes for choice in order.choices.values()))
        if order.choices:
            count = len(order.choices)
            title = f"{count:,} layer{'s' if count != 1 else ''} to quantize, {size}"
            detail = "Ctrl+Return quantizes them in memory and measures what each loses; nothing is written."
            self.commands.window.activity.show_ready(title, detail)
        else:
            title = f"{known:,} layers are quantized already" if known else "Nothing to quantize"
            self.commands.window.activity.show_ready(title, "" if known else "Every layer is kept as it is.")

    def _show_what_is_left(self) -> None:
        if self.document.model is not None and not self.runs.active:
            self._show_ready()

    def _show_title(self, progress: str = "") -> None:
        model = self.document.model
        name = core.printable(model.name, 60) if model is not None else ""
        self.commands.window.setWindowTitle(" - ".join(part for part in (progress, name, PROGRAM) if part))
        self._show_saved()

    def _show_progress(self, share: float) -> None:
        self._show_title(f"{share:.0%}" if share >= 0 else "")

    def _show_paused(self) -> None:
        paused, action = self.commands.compute.paused, self._actions["pause"]
        action.setChecked(paused)
        action.setText("&Resume" if paused else "&Pause")
        action.setIconText("Resume" if paused else "Pause")

    def _show_saved(self) -> None:
        text, about = self.keeping.saved_text()
        self.commands.window.saved.setText(text)
        self.commands.window.saved.setToolTip(tip(about))

    # what works now

    def reasons(self) -> dict[str, str]:
        """For each condition of an action why it does not hold, "" when it does."""
        if self.document.model is None:
            nothing = "open a checkpoint first"
            names = ("open", "export", "results", "selection", "pending", "selection_pending", "failed", "undo", "redo")
            return {**dict.fromkeys(names, nothing), "running": "nothing runs", "idle": ""}
        return self._reasons_with(self.document.model)

    def _reasons_with(self, model: core.Model) -> dict[str, str]:
        store, document = self.document.store, self.document
        busy = "work is running" if self.runs.active else ""
        sealed = f"already quantized: {core.printable(model.quantized_by)}" if model.quantized_by else ""
        left = bool(((store.state == PENDING) | (store.state == STALE) | (store.state == FAILED)).any())
        chosen = any(name != core.KEEP for name in store.formats)
        return {
            "open": "",
            "idle": busy,
            "pending": busy or sealed or ("" if left else "everything is done" if chosen else "every layer is kept"),
            "selection": "" if document.selection else "select layers first",
            "selection_pending": busy or sealed or ("" if document.selection else "select layers first"),
            "running": "" if busy else "nothing runs",
            "failed": busy or ("" if (store.state == FAILED).any() else "nothing failed"),
            "results": "" if store.figures().done else "quantize first",
            "export": busy or sealed or ("" if chosen else "every layer is kept: choose a format first"),
            "undo": "" if document.undo.canUndo() else "nothing to undo",
            "redo": "" if document.undo.canRedo() else "nothing to redo",
        }

    # the rest

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self.workspace.set_theme(theme)
        self._actions.set_theme(theme)

    def setting_changed(self, key: str) -> None:
        """An option has another value."""
        if key == "warning_line":
            self._set_warning_line(self.commands.settings["warning_line"])
        elif key in ("backend", "threads"):
            self._show_machine()

    def _change_warning_line(self, value: float) -> None:
        self.commands.settings["warning_line"] = round(min(max(value, 0.0), 1.0), 4)

    def _set_warning_line(self, value: float) -> None:
        self.document.warning_line = self.workspace.filter_bar.line = value
        error_view = self.workspace.views["ErrorView"]
        if hasattr(error_view, "set_warning_line"):
            error_view.set_warning_line(value)
        self.workspace.layers.table.touch_all()

    def _inspect(self) -> None:
        if self.document.current:
            self.workspace.inspect(self.document.current)
        self.workspace.show_page("inspect")

    def _find(self) -> None:
        field = self.workspace.filter_bar.field
        field.setFocus()
        field.selectAll()

    def _clear(self) -> None:
        if self.document.selection:
            self.document.select([])
        else:
            self.workspace.filter_bar.field.clear()

    def _offer_hidden(self, names: list[str]) -> None:
        shown = core.printable(names[0]) if len(names) == 1 else f"{len(names):,} layers"
        text = f"The filter hides {shown}"
        self.commands.tell(Message("info", text, fixes=(("Clear the filter", lambda: self._show_hidden(names)),)))

    def _show_hidden(self, names: list[str]) -> None:
        self.workspace.filter_bar.field.clear()
        self.document.select(names)

    def _reset_layout(self) -> None:
        self.workspace.reset_layout()
        self.workspace.layers.reset_columns()

    def _explain_formats(self) -> None:
        from studio.gui.shell.format_sheet import FormatSheet

        FormatSheet(self.commands.window).open()

    def _write_report(self, folder: Path) -> None:
        model = self.document.model
        assert model is not None
        plan, outcome = self.document.plan, self.document.outcome()
        self.commands.compute.submit(Task("report", "Report", lambda: tasks.reporting(folder, model, plan, outcome)))
        self._report_folder = folder

    def _report_ended(self, ending: str, error: object) -> None:
        from studio.gui.shell.commands import open_folder

        if ending == "failed":
            self.commands.tell(message_of(error, "The report could not be written"))
        elif ending == "finished":
            folder = self._report_folder
            fix = ("Open folder", lambda: open_folder(folder))
            self.commands.tell(Message("good", "Report written", str(folder), fixes=(fix,)))

    def layout_state(self) -> dict[str, QByteArray]:
        """What to remember of panes and columns."""
        return {"columns": self.workspace.layers.horizontalHeader().saveState()}

    def close(self) -> None:
        """Keep what is not kept yet, and close the files."""
        self.keeping.close()
        self.document.close_model()
