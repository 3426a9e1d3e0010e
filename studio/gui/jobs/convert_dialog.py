"""ConvertDialog: in which layout a checkpoint is stored as it is; what that changes is proved before it is offered."""

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.checked_dialog import CheckedDialog
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.convert_form import ConvertForm
from studio.gui.jobs.export_checks import Check, checks_of_conversion
from studio.gui.jobs.export_dialog import beside
from studio.gui.jobs.turns import Steps


class ConvertDialog(CheckedDialog):
    """The form, what is proved of it, and the button that this enables.

    Signals:
        conversion_wanted(Export | GgufExport): the user pressed Convert, and every check passed.
    """

    conversion_wanted = Signal(object)
    verb = "Convert"

    def __init__(self, model: core.Model, machine: core.Machine, compute: Compute, parent: QWidget) -> None:
        self._model, self._machine = model, machine
        self._proved: dict[tuple[str, str, str], core.Transcoding] = {}
        self._prospects: tasks.Prospects = {}
        self._proving: tuple[str, str, str] | None = None
        self.job: core.Export | core.GgufExport | None = None
        super().__init__(ConvertForm(beside(model, "converted")), "Convert without loss", compute, parent)
        self.check_soon()

    @property
    def _form(self) -> ConvertForm:
        assert isinstance(self.form, ConvertForm)
        return self.form

    def written_command(self) -> str | None:
        """See `CheckedDialog`."""
        return core.conversion_command(self._model.path, self.form.target, self.form.options())

    def forget(self) -> None:
        """See `CheckedDialog`."""
        self.job = None

    def steps(self) -> Steps:
        """See `CheckedDialog`."""
        asked = self._form.asked
        if known := self._proved.get(asked):
            return tasks.checking_conversion(self._model, known, self._form.arguments())
        self._proving = asked
        return tasks.proving(self._machine, self._model, asked, self._prospects)

    def still_wanted(self) -> bool:
        """See `CheckedDialog`: a proof holds wherever the result goes."""
        return self._proving == self._form.asked

    def show_found(self, found: Any) -> None:
        """See `CheckedDialog`: what targets would do with the layers, the share that is proved, the proof, the end."""
        if isinstance(found, float):
            text = f"Proving that nothing is lost: {found:.0%}"
            self.show_checks([Check("", text, "What is cast or decoded is read once.")], None)
        elif isinstance(found, dict):
            self._prospects = found
            self._show_prospects()
        elif isinstance(found, core.Transcoding):
            self._take_proof(found)
        else:
            self._proving = None
            self._show_result(found)

    def _take_proof(self, found: core.Transcoding) -> None:
        """Go on with the checks of the place."""
        assert self._proving is not None
        self._proved[self._proving], self._proving = found, None
        self.check_soon()

    def _show_prospects(self) -> None:
        for name, (able, text) in self._prospects.items():
            self.form.show_layout(name, text, refused=not able)
        offered = [name for name, (able, _) in self._prospects.items() if able]
        if offered and self.form.layout_name not in offered:
            self.layouts[offered[0]].setChecked(True)

    def _show_result(self, found: core.Export | core.GgufExport | core.StudioError) -> None:
        self.job = None if isinstance(found, core.StudioError) else found
        known = self._proved.get(self._form.asked)
        if known:
            self._form.show_losses(known)
        self.form.offer_options(found.hint or "" if isinstance(found, core.StudioError) else "")
        checks = checks_of_conversion(known, found)
        self.show_checks(checks, self.job.nbytes if self.job else None)

    def go(self) -> None:
        """See `CheckedDialog`."""
        if self.job is not None:
            self.conversion_wanted.emit(self.job)
            self.accept()
