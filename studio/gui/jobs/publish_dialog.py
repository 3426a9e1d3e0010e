"""PublishDialog: asks for a repository, shows what would be sent and what is there, before anything is sent."""

from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QFormLayout, QHBoxLayout, QLineEdit, QWidget

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.fields import add_row
from studio.gui.jobs.file_list import FileList
from studio.gui.jobs.looking_dialog import LookingDialog
from studio.gui.jobs.turns import Steps
from studio.gui.shell.faults import for_window

ABOUT = (
    "Sends an export to a repository of a Hugging Face hub, with the token of huggingface_hub (hf auth login). Its "
    "files appear in one commit, and every digest there is checked."
)
EMPTY = "Look lists what would be sent, replaced and removed; nothing is sent by it."
FATES = {"send": "is sent", "there": "is there already", "replace": "replaces another", "remove": "is removed there"}


class PublishDialog(LookingDialog):
    """The form, what would be done, and the button.

    Signals:
        publication_wanted(Publication): the user pressed Publish, and nothing forbids it.
    """

    publication_wanted = Signal(object)
    key, looking = "publication", "The hub is being asked"

    def __init__(self, folder: Path, compute: Compute, parent: QWidget) -> None:
        files = FileList(("File", "Size", "What happens"), "Files to publish", EMPTY)
        super().__init__(compute, "Publish", "&Publish", files, parent)
        self.look.setToolTip("Ask the hub what is there; nothing is sent")
        self._folder = folder
        self.repository, self.base_model = QLineEdit("hf://"), QLineEdit()
        self.base_model.setPlaceholderText("ORG/NAME of what was quantized, for the model card")
        self.private = QCheckBox("P&rivate: only you, and those whom you let, see it")
        self.private.setChecked(True)
        self.overwrite = QCheckBox("Repla&ce what is there, and remove weights that are not of this export")
        self.build(f"Publish {core.printable(folder.name, 60)}", ABOUT, self._form())
        for edit in (self.repository, self.base_model):
            edit.textChanged.connect(lambda _: self.forget())
            edit.returnPressed.connect(self.go_on)
        for box in (self.private, self.overwrite):
            box.toggled.connect(lambda _: self.forget())
        self.forget()
        self.repository.end(False)

    def _form(self) -> QFormLayout:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        first, second = QHBoxLayout(), QHBoxLayout()
        first.addWidget(self.repository, 1)
        first.addWidget(self.look)
        second.addWidget(self.base_model)
        self.repository.setAccessibleName("Repository")
        self.base_model.setAccessibleName("Base model")
        add_row(form, "R&epository", self.repository, first)
        add_row(form, "&Base model", self.base_model, second)
        form.addRow("", self.private)
        form.addRow("", self.overwrite)
        return form

    @property
    def url(self) -> str:
        """The repository as it is now."""
        return self.repository.text().strip()

    def hindrance(self) -> str:
        """See `LookingDialog`."""
        return "" if self.url.removeprefix("hf://") else "No repository is named: hf://USER/NAME"

    def steps(self) -> Steps:
        """See `LookingDialog`."""
        how = {"public": not self.private.isChecked(), "overwrite": self.overwrite.isChecked()}
        return tasks.foreseeing(self._folder, self.url, base_model=self.base_model.text().strip(), **how)

    def show_found(self, found: tasks.Foreseen) -> str:
        """See `LookingDialog`."""
        rows, objection = found.preview.rows, found.preview.objection
        self.files.show_files((row.name, row.nbytes, FATES[row.fate]) for row in rows)
        sent = [row for row in rows if row.fate in ("send", "replace")]
        amount = core.size_text(sum(row.nbytes for row in sent))
        self.say(f"{core.counted(len(sent), 'file')} to send, {amount}.", "\n".join(found.job.left))
        if objection:
            self.say(str(objection), for_window(objection.hint), "error")
        return objection.what if objection else ""

    def go(self, found: tasks.Foreseen) -> None:
        """See `LookingDialog`."""
        self.publication_wanted.emit(found.job)
