"""ConvertForm: the fields of the dialog that stores a checkpoint in another layout."""

from pathlib import Path
from typing import Any

from PySide6.QtWidgets import QCheckBox, QComboBox, QVBoxLayout

from studio import core
from studio.gui.jobs.export_form import SHARD, SHARDS, ExportForm, narrow

DTYPES = {"As the model has them": "", "bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_MOST_CODES = "Whatever takes most of the codes"


class ConvertForm(ExportForm):
    """Asks for a target, in which dtype decoded weights go, and, once there is one, whether a loss is accepted."""

    offered = core.TARGETS

    def __init__(self, suggested: Path) -> None:
        super().__init__(suggested)
        self._group.buttonToggled.connect(lambda _button, on: self._follow_layout() if on else None)

    def _add_more(self) -> None:
        self.dtype = QComboBox()
        self.dtype.addItems(list(DTYPES))
        self.dtype.setAccessibleName("Dtype of decoded weights")
        self.dtype.currentTextChanged.connect(lambda _: self.changed.emit())
        self._add_row("&Decoded weights", narrow(self.dtype), self.dtype)

    def _add_options(self, rows: QVBoxLayout) -> None:
        self.lossy = QCheckBox("&Accept the loss below")
        self.lossy.toggled.connect(lambda _: self.changed.emit())
        self.lossy.hide()
        rows.addWidget(self.lossy)

    def _offer_readers(self) -> None:
        """Beside those of the layout: that for which most weights keep their codes."""
        super()._offer_readers()
        if self.reader.count() > 1:
            self.reader.insertItem(0, _MOST_CODES, "")
            self.reader.setCurrentIndex(0)

    def _follow_layout(self) -> None:
        """One file has no shards, and a name of its own kind."""
        one_file = self.layout_name == core.GGUF.name
        self.shards.setEnabled(not one_file)
        name = self.name.text().removesuffix(".gguf")
        self.name.setText(f"{name}.gguf" if one_file else name)

    def show_losses(self, transcoding: core.Transcoding) -> None:
        """Offer to accept a loss where there is one; what was accepted of another does not hold for it."""
        self.lossy.setVisible(bool(transcoding.losses))
        self.dtype.setEnabled(bool(transcoding.counts()["decoded"]))

    @property
    def asked(self) -> tuple[str, str, str]:
        """What decides on the layers: layout, runtime and dtype."""
        return self.layout_name, self.reader.currentData() or "", DTYPES[self.dtype.currentText()]

    def arguments(self) -> dict[str, Any]:
        """See `ExportForm.arguments`; `allow_lossy` tells whether a loss is accepted."""
        return {
            "asked": self.asked,
            "target": self.target,
            "overwrite": self.replace.isChecked(),
            "restart": self.discard.isChecked(),
            "shard_nbytes": SHARDS[self.shards.currentText()],
            "allow_lossy": self.lossy.isChecked(),
        }

    def options(self) -> dict[str, str | bool]:
        """See `ExportForm.options`."""
        layout, reader, dtype = self.asked
        shard = SHARDS[self.shards.currentText()]
        other_size = self.shards.isEnabled() and shard != SHARDS[SHARD]
        return {
            "layout": layout,
            "for": reader,
            "dtype": self.dtype.currentText() if dtype else "",
            "allow-lossy": self.lossy.isChecked(),
            "shard-size": f"{shard // 10**9}G" if other_size else "",
            "overwrite": self.replace.isChecked(),
            "restart": self.discard.isChecked(),
        }
