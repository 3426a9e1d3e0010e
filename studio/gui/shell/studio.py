"""Studio: makes the parts that need numpy and core, and wires them to each other and to the window."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QByteArray, QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.budgeting import Budgeting
from studio.gui.jobs.calibrating import Calibrating
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.converting import OFFER, Converting
from studio.gui.jobs.evaluating import Evaluating
from studio.gui.jobs.exporting import Exporting
from studio.gui.jobs.opening import Opening
from studio.gui.jobs.publishing import Publishing
from studio.gui.jobs.reports import Reports
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.keeping.keeping import Keeping
from studio.gui.layers.columns import COLUMNS
from studio.gui.layers.document import Document
from studio.gui.layers.editing import Editing
from studio.gui.layers.plan_bar import PlanBar
from studio.gui.layers.row_menu import show_row_menu
from studio.gui.layers.statistics_chip import StatisticsChip
from studio.gui.pages.answers import Answers
from studio.gui.pages.comparing import Comparing
from studio.gui.pages.details import Details
from studio.gui.pages.doctor import DoctorPage
from studio.gui.pages.examining import Examining
from studio.gui.pages.quality import QualityPage
from studio.gui.pages.registry import PAGES
from studio.gui.pages.trying import Trying
from studio.gui.pages.workspace import Workspace
from studio.gui.shell.availability import AS_MADE, Availability
from studio.gui.shell.cards import Message
from studio.gui.shell.causes import Causes
from studio.gui.shell.checkpoints import Checkpoints
from studio.gui.shell.desktop import Bell
from studio.gui.shell.main_window import MainWindow
from studio.gui.shell.notices import Notices
from studio.gui.shell.places import Place
from studio.gui.shell.session import Session
from studio.gui.shell.settings import Settings
from studio.gui.shell.several import about_several, of_same_layers
from studio.gui.shell.specs import format_specs, method_specs
from studio.gui.shell.status import Status
from studio.gui.shell.theme import Theme
from studio.gui.shell.warning_line import WarningLine

COLUMNS_PART = f"{len(COLUMNS)} columns"
"""Under which their widths are kept: those of a version with other columns would fit none."""


class Studio(QObject):
    """Made once numpy, pyqtgraph and core are loaded, in steps; lives as long as the window.

    Signals:
        told(Message): something to show.
        changed(): other actions may work now.
        opened(Path or str): the checkpoint from there is open and shown.
    """

    told = Signal(object)
    changed = Signal()
    opened = Signal(object)

    def __init__(
        self, window: MainWindow, settings: Settings, session: Session, compute: Compute, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._window, self._settings, self._session, self._compute = window, settings, session, compute
        self._actions = window.actions_of

    def make(self) -> Iterator[None]:
        """Make all that it holds, widget by widget, so that the window has its turn at each step."""
        self._add_actions()
        self.document = Document(self)
        self.document.close_files = lambda model: self._compute.release(model.close)
        self.workspace = Workspace(self.document, self._settings, self._actions)
        self._window.place_workspace(self.workspace)  # first: Qt styles anew all that comes under another parent
        yield from self.workspace.make()
        self._make_parts()
        yield
        self._make_lines()
        yield
        self.handlers = self._handlers()
        self._connect()

    def _add_actions(self) -> None:
        for spec in format_specs({name: row.title for name, row in core.FORMATS.items()}):
            self._actions.add(spec)
        for spec in method_specs({name: row.title for name, row in core.METHODS.items()}):
            self._actions.add(spec)
        self._window.fill_menus()

    def _make_parts(self) -> None:
        compute, settings, window, document = self._compute, self._settings, self._window, self.document
        views = self.workspace.views
        self.runs = Runs(document, compute, settings, window.activity, self)
        self.editing = Editing(document, self.workspace.layers, settings, self)
        self.details = Details(document, views, compute, self.runs, self)
        self.opening = Opening(compute, self)
        self.keeping = Keeping(document, self.workspace, settings, self)
        self.runs.hindrance = lambda: self.opening.reason
        self.exporting = Exporting(document, compute, self.runs, self.editing, window, self)
        self.publishing = Publishing(document, compute, self.runs, window, self)
        self.exporting.publish = self.publishing.ask
        self.converting = Converting(document, compute, self.runs, window, self)
        self.exporting.convert = self.converting.ask
        self.opening.keeps = ((OFFER, self.converting.ask),)
        self._answers = Answers(compute, self)
        self.comparing = Comparing(document, self.runs, self._answers, views["CompareView"], self)
        self.reports = Reports(document, compute, self)
        page = self._quality
        self.evaluating = Evaluating(document, self.runs, self.reports, page.view, window, self)
        self.reports.quality = self.exporting.quality = self.evaluating.quality_of_plan
        self.budgeting = Budgeting(document, self.runs, views["BudgetView"], self)
        self.budgeting.measured = self.evaluating.measured
        self.evaluating.changed.connect(self.budgeting.show_measured)
        self.trying = Trying(document, compute, self.runs, self.evaluating, page.try_it, self)
        self.keeping.keep_evaluations(self.evaluating)
        self.examining = Examining(document, self.runs, self._doctor, window, self)
        self.opening.offers = lambda path: (("Examine it", lambda: self.examining.examine(path)),)

    @property
    def _doctor(self) -> DoctorPage:
        page = self.workspace.shown["doctor"]
        assert isinstance(page, DoctorPage)
        return page

    @property
    def _quality(self) -> QualityPage:
        page = self.workspace.shown["quality"]
        assert isinstance(page, QualityPage)
        return page

    def _make_lines(self) -> None:
        window = self._window
        window.statusBar().insertPermanentWidget(1, StatisticsChip(self.document, self._actions, window))
        self.plan_bar = PlanBar(self.document, window)  # after the status bar: Tab goes from the bottom to the top
        window.tools.addWidget(self.plan_bar)
        self.status = Status(window, self.document, self.runs, self.opening, self.keeping, self)
        self.warning_line = WarningLine(self.document, self.workspace, self._settings, self)
        self.checkpoints = Checkpoints(window, self._settings, self._session, self)
        self.checkpoints.serve(self.workspace, self.runs, self.details, self.opening, self.keeping)
        self.calibrating = Calibrating(self.document, self.runs, self.checkpoints.use_statistics, window, self)
        self.causes = Causes(window.cards, self.document, self.runs, self.keeping, self)
        self.notices = Notices(self.runs, self._settings, Bell(window), self)
        self.availability = Availability(self._actions, self.document, self.runs, self.opening, self.details)
        if (state := self._session.part(COLUMNS_PART)) is not None:
            self.workspace.layers.horizontalHeader().restoreState(state)

    def _connect(self) -> None:
        document, runs, strip = self.document, self.runs, self._window.activity
        parts = (runs, self.editing, self.details, self.comparing, self.exporting, self.opening, self.budgeting)
        for source in (
            *parts,
            self.reports,
            self.converting,
            self.keeping,
            self.checkpoints,
            self.calibrating,
            self.publishing,
            self.evaluating,
            self.examining,
        ):
            source.told.connect(self.told)
        for signal in (document.opened, document.chosen, document.measured, document.selected):
            signal.connect(lambda *_: self.changed.emit())
        for signal in (document.undo.indexChanged, runs.changed, self.details.changed, self.opening.changed):
            signal.connect(lambda *_: self.changed.emit())
        runs.changed.connect(self._catch_up)
        runs.began.connect(self._quality.note_run)
        runs.ended.connect(lambda _: self._quality.note_run(""))
        self._quality.stop_wanted.connect(self.checkpoints.stop)
        self._offer_pricing()
        self.workspace.pages.tabBarClicked.connect(self._clicked)
        self._quality.offer(self._actions["evaluate"], lambda: self._actions.reasons.get("evaluate", ""))
        document.hidden.connect(self._offer_hidden)
        self.checkpoints.opened.connect(self.opened)
        self.opening.changed.connect(self._lock_plan)
        self.document.opened.connect(self._lock_plan)
        strip.pause_wanted.connect(runs.toggle_pause)
        strip.stop_wanted.connect(self.checkpoints.stop)
        strip.worst_wanted.connect(self.editing.select_worst)
        self.comparing.exports_shown.connect(lambda: self.workspace.show_page("compare"))
        self.examining.shown.connect(lambda: self.workspace.show_page("doctor"))
        self.examining.open = self.open
        self.plan_bar.preset_wanted.connect(self.editing.set_preset)
        self.plan_bar.format_wanted.connect(self.editing.set_plan_format)
        self.plan_bar.method_wanted.connect(self.editing.set_plan_method)
        self.workspace.layers.menu_wanted.connect(lambda at: show_row_menu(self.workspace.layers, self._actions, at))
        self.editing.report_wanted.connect(self.reports.write)
        table = self.workspace.layers.table
        table.modelReset.connect(lambda: self._actions["by_kind"].setChecked(table.by_kind))

    def _offer_pricing(self) -> None:
        """The buttons of the page Budget are as ready as the action."""
        view, action = self.workspace.views["BudgetView"], self._actions["price"]

        def follow() -> None:
            view.set_reasons(self._actions.reasons.get("price", ""), action.statusTip())

        action.changed.connect(follow)
        view.price_wanted.connect(action.trigger)
        follow()

    def _catch_up(self) -> None:
        if not self.runs.active:
            self.workspace.catch_up()

    def _handlers(self) -> dict[str, Callable[[], Any]]:
        runs, editing, layers = self.runs, self.editing, self.workspace.layers
        found: dict[str, Callable[[], Any]] = {
            "reload": self.checkpoints.reload,
            "close": self.checkpoints.close,
            "afresh": self.checkpoints.start_afresh,
            "open_statistics": self.checkpoints.ask_statistics,
            "calibrate": self.calibrating.ask,
            "evaluate": self.evaluating.ask,
            "price": self.budgeting.price,
            "pin": self.budgeting.pin,
            "drop_statistics": lambda: self.checkpoints.use_statistics(None),
            "export": self.exporting.ask,
            "convert": self.converting.ask,
            "verify": self.exporting.ask_verify,
            "publish": self.publishing.ask_which,
            "examine": self.examining.ask,
            "undo": self.document.undo.undo,
            "redo": self.document.undo.redo,
            "find": self._find,
            "clear": self._clear,
            "quantize": runs.quantize,
            "quantize_selection": lambda: runs.quantize(self.document.selection),
            "pause": runs.toggle_pause,
            "stop": self.checkpoints.stop,
            "retry": runs.retry,
            "fold_all": lambda: layers.fold(folded=True, everywhere=True),
            "unfold_all": lambda: layers.fold(folded=False, everywhere=True),
            "next_problem": lambda: editing.step_problem(1),
            "last_problem": lambda: editing.step_problem(-1),
            "reset_layout": self._reset_layout,
            "formats": self._explain_formats,
            "by_kind": lambda: layers.divide_by_kind(not layers.table.by_kind),
        }
        same = ("save_plan", "load_plan", "report", "copy_rows", "copy_names", "copy_command", "reset_format")
        chosen = ("select_all", "select_invert", "select_kind", "select_block", "select_worst")
        found |= {name: getattr(editing, name) for name in (*same, *chosen)}
        found |= {page.key: partial(self.workspace.show_page, page.key) for page in PAGES}
        found |= {f"format:{name}": partial(editing.set_format, name) for name in (*core.FORMATS, core.KEEP)}
        found |= {f"method:{name}": partial(editing.set_method, name) for name in core.METHODS}
        return {**found, "inspect": self._inspect}

    def reasons(self) -> dict[str, str]:
        """For each condition of an action why it does not hold, "" when it does."""
        return self.availability.reasons()

    # opening and closing

    def open(self, path: Place) -> None:
        """Open a checkpoint in the background; the one that is open stays until it is read."""
        self.checkpoints.open(path)

    def unless_lost(self, question: str, yes: str, proceed: Callable[[], object]) -> None:
        """Proceed at once, or, where a plan would go that is neither saved nor kept, when the user agrees."""
        self.checkpoints.unless_lost(question, yes, proceed)

    def close(self) -> None:
        """Keep what is not kept yet, close the files, and what is being opened."""
        self.trying.let_go()
        self.checkpoints.leave()

    # what belongs to no part alone

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self.workspace.set_theme(theme)
        self.examining.set_theme(theme)
        self._actions.set_theme(theme)

    def setting_changed(self, key: str) -> None:
        """An option has another value."""
        if key in ("backend", "threads"):
            self.status.show_machine()

    def _lock_plan(self) -> None:
        self.plan_bar.set_locked(self.opening.reason or (AS_MADE if self.document.exported else ""))

    def _clicked(self, tab: int) -> None:
        if tab >= 0 and PAGES[tab].key == "inspect" and self.document.model is not None:
            self._inspect()

    def _inspect(self) -> None:
        if name := self.document.current or self.document.store.worst():
            self.workspace.inspect(name)
            self.details.look_at(name)
        self.workspace.show_page("inspect")

    def _find(self) -> None:
        field = self.workspace.filter_bar.field
        field.setFocus()
        field.selectAll()

    def _clear(self) -> None:
        if len(self.document.selected_indices):
            self.document.select([])
        else:
            self.workspace.filter_bar.field.clear()

    def _offer_hidden(self, names: list[str]) -> None:
        shown = core.printable(names[0]) if len(names) == 1 else core.counted(len(names), "layer")
        text = f"The filter hides {shown}"
        self.told.emit(Message("info", text, fixes=(("Clear the filter", lambda: self._show_hidden(names)),)))

    def _show_hidden(self, names: list[str]) -> None:
        self.workspace.filter_bar.field.clear()
        self.document.select(names)

    def tell_of_several(self, paths: list[Path]) -> None:
        """Say that only the first of `paths` is opened, and offer to compare two exports of the same layers."""

        def answer(found: list[Any], ending: Ending, _error: object) -> None:
            same = ending == "finished" and len(paths) == 2 and of_same_layers(found)
            self.told.emit(about_several(paths, self.comparing.compare_exports if same else None))

        both = paths if len(paths) == 2 else []
        self._answers.ask("same exports", lambda: tasks.reading_exports(both), answer, lasting=True)

    def _reset_layout(self) -> None:
        self.workspace.reset_layout()
        self.workspace.layers.reset_columns()

    def _explain_formats(self) -> None:
        from studio.gui.shell.format_sheet import FormatSheet

        FormatSheet(self._window).open()

    def layout_state(self) -> dict[str, QByteArray]:
        """What to remember of panes and columns."""
        return {COLUMNS_PART: self.workspace.layers.horizontalHeader().saveState()}
