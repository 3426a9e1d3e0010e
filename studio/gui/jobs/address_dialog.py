"""AddressDialog: asks for the address of a model, and shows what lies there before any of it is fetched."""

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QWidget

from studio import core
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.file_list import FileList
from studio.gui.jobs.looking_dialog import LookingDialog
from studio.gui.jobs.turns import Steps

ABOUT = (
    "hf://ORG/NAME on a hub, https://HOST/FOLDER on a web server, s3://BUCKET/FOLDER in a bucket. Looking lists files "
    "and sizes, opening fetches headers only. Weights are fetched when they are quantized or looked at."
)
EMPTY = "Look lists the files that are there with their sizes, before any of them is fetched."


class AddressDialog(LookingDialog):
    """An address, what is there, and a button to open it.

    Signals:
        address_wanted(str): the user pressed Open.
    """

    address_wanted = Signal(str)
    key = "address"

    def __init__(self, compute: Compute, known: Sequence[str], parent: QWidget) -> None:
        files = FileList(("File", "Size"), "Files at the address", EMPTY)
        super().__init__(compute, "Open address", "&Open", files, parent)
        self.look.setToolTip("List files and sizes")
        self.address = QComboBox()
        self.address.setEditable(True)
        self.address.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.address.setAccessibleName("Address")
        self.address.addItems(list(known))
        self.address.setCurrentIndex(-1)
        row = QHBoxLayout()
        row.addWidget(self.address, 1)
        row.addWidget(self.look)
        self.build("Open a model behind an address", ABOUT, row)
        self.address.currentTextChanged.connect(lambda _: self.forget())
        if (line := self.address.lineEdit()) is not None:
            line.setPlaceholderText("hf://ORG/NAME")
            line.returnPressed.connect(self.go_on)
        self.forget()

    @property
    def text(self) -> str:
        """The address as it is now."""
        return self.address.currentText().strip()

    def look_at(self, address: str) -> None:
        """Take an address as if it had been typed, and look there."""
        self.address.setCurrentText(address)
        self.go_on()

    def hindrance(self) -> str:
        """See `LookingDialog`."""
        if not self.text:
            return "No address is given"
        return "" if core.is_url(self.text) else "An address begins with hf://, https:// or s3://."

    def forget(self) -> None:
        """See `LookingDialog`; what can be no address is told."""
        super().forget()
        if self.text:
            self.say(self.hindrance())

    def steps(self) -> Steps:
        """See `LookingDialog`."""
        return core.listing(self.text)

    def show_found(self, found: core.Listing) -> str:
        """See `LookingDialog`."""
        self.files.show_files((name, nbytes, "") for name, nbytes in found.files)
        count = core.counted(len(found.files), "file")
        self.say(f"{count}, {core.size_text(found.nbytes)}; weights {core.size_text(found.weights)}.", found.caution)
        return ""

    def go(self, found: core.Listing) -> None:
        """See `LookingDialog`."""
        self.address_wanted.emit(self.text)
