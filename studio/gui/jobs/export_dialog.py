"""ExportDialog: asks where to and in which layout; checks run meanwhile, and say what stands in the way."""

from pathlib import Path
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.checked_dialog import CheckedDialog
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.export_checks import checks_of, checks_of_layers
from studio.gui.jobs.export_form import ExportForm
from studio.gui.jobs.turns import Steps
from studio.gui.layers.document import Document
from studio.gui.layers.editing import Editing
from studio.gui.shell.specs import keys_of
from studio.gui.shell.text import button


class ExportDialog(CheckedDialog):
    """The form, the checks and the button that they enable.

    Signals:
        export_wanted(Export, dict): the user pressed Export, and every check passed; what `core.prepare` needs to
            prepare it lifted, empty unless it is to be.
        conversion_wanted(): codes are to be kept as they are stored instead.
    """

    export_wanted = Signal(object, object)
    conversion_wanted = Signal()

    def __init__(self, document: Document, compute: Compute, editing: Editing, parent: QWidget) -> None:
        self._document, self._editing = document, editing
        self.job: core.Export | None = None
        self._arguments: dict[str, Any] = {}
        super().__init__(ExportForm(suggested(document)), "Export packed safetensors", compute, parent)
        if core.requantized(document.choices):
            self.buttons.addWidget(button("Convert without loss…", self._convert, "flat"))
        self.check_soon()

    def written_command(self) -> str | None:
        """See `CheckedDialog`."""
        return self._editing.command(self.form.target, self.form.options())

    def too_long(self) -> str:
        """See `CheckedDialog`."""
        return f"Too many choices by hand: save the plan ({keys_of('save_plan')}), then copy again."

    def forget(self) -> None:
        """See `CheckedDialog`."""
        self.job = None

    def steps(self) -> Steps:
        """See `CheckedDialog`."""
        document = self._document
        plan = document.plan.with_activations(self.form.activations or document.plan.activations)
        what = {"model": document.model, "plan": plan, "choices": list(document.choices)}
        self._arguments = {**what, **self.form.arguments()}
        return tasks.checking_export(self._arguments)

    def show_found(self, found: Any) -> None:
        """See `CheckedDialog`."""
        refusals, result, unliftable, unquantizable = found
        self.job = result if isinstance(result, core.Export) else None
        self.form.show_refusals(refusals)
        self.form.show_lift(unliftable)
        self.form.show_inputs(unquantizable)
        self.form.offer_options(result.hint if isinstance(result, core.StudioError) else "")
        checks = [*checks_of(result), *checks_of_layers(self._document)]
        self.show_checks(checks, self.job.nbytes if self.job else None)

    def go(self) -> None:
        """See `CheckedDialog`."""
        if self.job is not None:
            self.export_wanted.emit(self.job, self._arguments if self.form.lift.isChecked() else {})
            self.accept()

    def _convert(self) -> None:
        self.reject()
        self.conversion_wanted.emit()


def suggested(document: Document) -> Path:
    """A folder beside the checkpoint, named after it and the format: that of the plan, or the only one there is."""
    assert document.model is not None
    used, planned = document.store.used_formats(), document.state.plan.format
    return beside(document.model, used.pop() if len(used) == 1 else planned if planned in used else "mixed")


def beside(model: core.Model, ending: str) -> Path:
    """A place beside a checkpoint, or at home for one that is not here; named after it and what it will be."""
    if core.is_remote(model.path):
        return Path.home() / f"{model.name}-{ending}"
    suggested = model.folder.resolve().parent / f"{model.name}-{ending}"
    return Path.home() / suggested.name if suggested.is_relative_to(core.resources()) else suggested
