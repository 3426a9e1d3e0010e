"""FormatSheet: what each format stores, in bits and blocks."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QGridLayout, QVBoxLayout, QWidget

from studio import core
from studio.gui.shell.text import button, label

_ELEMENTS = {"e2m1": "FP4 (±0, 0.5, 1, 1.5, 2, 3, 4, 6)", "e4m3": "FP8 E4M3 (up to 448)", "uint": "integer"}
_SCALES = {
    "e4m3": "FP8 E4M3",
    "e8m0": "power of two",
    "weight": "scale and bias in the weight's dtype",
    "float32": "FP32",
}
_HEADS = ("", "Name", "What it is", "Bits/weight", "Element", "Per block", "Scale")

_WHY = (
    "NVFP4 stores 16 weights as FP4 codes with one E4M3 scale. Such a scale can not be smaller than 2⁻⁹: in a layer of "
    "small weights, scales fall among the subnormal numbers or to zero, and weights are lost. The third tier, a float "
    "scale per weight matrix, moves the block scales to where E4M3 is precise. The view Scale regimes shows where each "
    "layer stands."
)


class FormatSheet(QDialog):
    """A table of the formats, and why the third tier is there."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Formats explained")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(18, 16, 18, 14)
        rows.addWidget(label("Formats, and the key that chooses them", "title"))
        rows.addLayout(_table())
        rows.addSpacing(8)
        rows.addWidget(label(_WHY, wrap=True))
        rows.addWidget(button("Close", self.accept), 0, Qt.AlignmentFlag.AlignRight)
        self.resize(820, self.sizeHint().height())


def _table() -> QGridLayout:
    grid = QGridLayout()
    grid.setHorizontalSpacing(16)
    for column, head in enumerate(_HEADS):
        grid.addWidget(label(head, "muted"), 0, column)
    for row, form in enumerate(core.FORMATS.values(), 1):
        tiers = " + one FP32 per matrix" if form.tensor_scale else ""
        bits = form.bits_per_weight((4096, 4096))
        cells = (
            str(row),
            form.name,
            form.title,
            f"{bits:.2f}",
            _ELEMENTS[form.element],
            str(form.block),
            _SCALES[form.scale] + tiers,
        )
        for column, text in enumerate(cells):
            grid.addWidget(label(text, "bold" if column == 1 else ""), row, column)
    return grid
