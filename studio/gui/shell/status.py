"""Status: title, status bar and activity strip: what is open, what goes on, and what comes next."""

from PySide6.QtCore import QObject, QTimer

from studio import core
from studio.gui.jobs.opening import Opening
from studio.gui.jobs.runs import Runs
from studio.gui.keeping.keeping import Keeping
from studio.gui.layers.document import Document
from studio.gui.layers.layer_view import NO_LAYERS
from studio.gui.shell.main_window import PROGRAM, MainWindow
from studio.gui.shell.places import shown_name
from studio.gui.shell.specs import keys_of
from studio.gui.shell.text import tip

READY_MS = 150
LONG_MS = 300
"""How long opening may take before the strip says so."""


class Status(QObject):
    """Keeps the lines of the window on document, runs and opening."""

    def __init__(
        self, window: MainWindow, document: Document, runs: Runs, opening: Opening, keeping: Keeping, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._window, self._document, self._runs, self._opening = window, document, runs, opening
        self._keeping = keeping
        self._ready_soon = QTimer(self, singleShot=True, interval=READY_MS)
        self._ready_soon.timeout.connect(self._show_what_is_left)
        self._opens_long = QTimer(self, singleShot=True, interval=LONG_MS)
        self._opens_long.timeout.connect(self._show_opening)
        self._shows_opening = False
        self._connect()

    def _connect(self) -> None:
        document, runs = self._document, self._runs
        document.opened.connect(self._show_document)
        document.chosen.connect(lambda _: self._ready_soon.start())
        document.saved_changed.connect(self._show_saved)
        self._keeping.changed.connect(self._show_saved)
        runs.changed.connect(self._show_paused)
        runs.changed.connect(self._ready_soon.stop)  # what a run did stays to be read
        runs.progressed.connect(self._show_progress)
        runs.backend_known.connect(lambda title: self._window.machine.setText(f"Computes on: {title}"))
        self._opening.changed.connect(self._follow_opening)

    # what is open

    def _show_document(self) -> None:
        self._show_title()
        if self._document.model is None:
            self._window.activity.hide()
        else:
            self._show_ready()

    def _show_title(self, progress: str = "") -> None:
        model = self._document.model
        name = core.printable(model.name, 60) if model is not None else ""
        self._window.setWindowTitle(" - ".join(part for part in (progress, name, PROGRAM) if part))
        self._show_saved()

    def _show_saved(self) -> None:
        text, about = self._keeping.saved_text()
        self._window.saved.setText(text)
        self._window.saved.setToolTip(tip(about))

    def show_machine(self) -> None:
        """What the next run computes on."""
        machine = self._runs.machine
        self._window.machine.setText(f"{core.counted(machine.workers, 'thread')}, {machine.backend}")

    # what goes on

    def _follow_opening(self) -> None:
        if (path := self._opening.path) is not None:
            self._window.machine.setText(f"Opening {shown_name(path)} …")
            self._opens_long.start()
            return
        self._opens_long.stop()
        self.show_machine()
        if self._shows_opening:
            self._shows_opening = False
            self._show_document()

    def _show_opening(self) -> None:
        if (path := self._opening.path) is not None:
            self._shows_opening = True
            self._window.activity.begin(f"Opening {shown_name(path)} …", pausable=False)
            self._window.activity.detail.set_text("Only headers are read. Nothing else can start meanwhile.")

    def _show_progress(self, share: float) -> None:
        self._show_title(f"{share:.0%}" if share >= 0 else "")

    def _show_paused(self) -> None:
        paused, action = self._runs.paused, self._window.actions_of["pause"]
        action.setChecked(paused)
        action.setText("&Resume" if paused else "&Pause")
        action.setIconText("Resume" if paused else "Pause")

    # what comes next

    def _show_what_is_left(self) -> None:
        if self._document.model is not None and not self._runs.active and not self._shows_opening:
            self._show_ready()

    def _show_ready(self) -> None:
        """What the strip says before anything runs."""
        document, activity = self._document, self._window.activity
        left, known = document.left(), document.store.figures().done
        if len(left):
            size = core.size_text(int(document.store.nbytes_in[left].sum()))
            title = f"{core.counted(len(left), 'layer')} to quantize, {size}"
            detail = f"{keys_of('quantize')} quantizes them in memory and measures what each loses; nothing is written."
            activity.show_ready(title, detail)
        else:
            done = f"{core.counted(known, 'layer is', 'layers are')} quantized already"
            title = done if known else "Nothing to quantize"
            why = "Every layer is kept as it is." if len(document.store) else NO_LAYERS
            activity.show_ready(title, "" if known else why)
