"""ExpertMap: the errors of a mixture of experts, block by block and expert by expert, as colours."""

import math
from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF
from PySide6.QtGui import QPainter

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.axes import Ticks, nice_stride
from studio.gui.views.columns import Columns
from studio.gui.views.drawing import Range
from studio.gui.views.labels import Entry
from studio.gui.views.plot import Plot

COLORS = "viridis"
BRIGHTEST = 99.5
"""Percentile of the cells that is drawn brightest, so that one bad expert does not darken all others."""
MOST_FRAMES = 8
"""Cells that are framed; of more, the frames would hide the colours."""
WORST = "worst kind"
"""The choice that shows, of each expert, the layer with the largest error."""


def expert_kinds(columns: Columns) -> list[str]:
    """The kinds that single experts have: gate_proj, up_proj, down_proj."""
    used = np.unique(columns.kind_of[columns.expert >= 0])
    return [columns.kinds[i] for i in used.tolist()]


def is_mixture(columns: Columns) -> bool:
    """True when at least half of the layers are those of single experts, in more than one block."""
    mine = columns.expert >= 0
    return 2 * int(mine.sum()) >= len(columns) > 0 and len(np.unique(columns.block[mine])) > 1


class ExpertMap:
    """A cell per block and expert, of one kind or of the worst; rows by block, columns by expert. A `Drawing`.

    cells: [blocks, experts] relative errors, NaN where nothing was quantized. low, high: errors of the darkest and the
    brightest colour.
    """

    def __init__(self, columns: Columns, kind: str) -> None:
        self._columns, self._kind = columns, kind
        mine = columns.expert >= 0
        if kind in columns.kinds:
            mine &= columns.kind_of == columns.kinds.index(kind)
        self.layers = np.flatnonzero(mine)
        top = int(columns.block.max(initial=0)) + 2  # a block may be unknown: -1
        places, row = np.unique((columns.stack * top + columns.block + 1)[self.layers], return_inverse=True)
        self._blocks = places % top - 1
        self._experts, column = np.unique(columns.expert[self.layers], return_inverse=True)
        self._cell = np.full(len(columns), -1)
        self._cell[self.layers] = row * len(self._experts) + column
        flat = np.full(len(self._blocks) * len(self._experts), -np.inf)
        np.maximum.at(flat, self._cell[self.layers], columns.error[self.layers])
        self.cells = np.where(np.isfinite(flat), flat, np.nan).reshape(len(self._blocks), len(self._experts))
        self.low, self.high = float(np.nanmin(self.cells)), float(np.nanpercentile(self.cells, BRIGHTEST))
        self.points = np.full((len(columns), 2), np.nan)
        self.points[self.layers] = np.column_stack([column, row])

    @property
    def clipped(self) -> bool:
        """True when some cells are worse than the brightest colour says."""
        return float(np.nanmax(self.cells)) > self.high

    def items(self, theme: Theme) -> list[pg.GraphicsObject]:
        """The picture of all cells; what is missing is empty."""
        return [self._picture(np.isfinite(self.cells))]

    def marked(self, chosen: NDArray[np.int64], theme: Theme) -> list[pg.GraphicsObject]:
        """The cells of layers over the faded others, with a frame around a few."""
        cells = np.unique(self._cell[chosen])
        cells = cells[cells >= 0]
        if not len(cells):
            return []
        shown = np.isin(np.arange(self.cells.size), cells).reshape(self.cells.shape)
        rows, columns = np.divmod(cells, self.cells.shape[1])
        frames = [Frames(columns, rows, theme.text)] if len(cells) <= MOST_FRAMES else []
        return [self._picture(shown), *frames]

    def _picture(self, shown: NDArray[np.bool_]) -> pg.ImageItem:
        """The colours of some cells."""
        shades = pg.colormap.get(COLORS).getLookupTable(nPts=256, alpha=True)
        span = (self.high - self.low) or 1.0
        levels = np.clip((np.where(shown, self.cells, self.low) - self.low) / span * 255, 0, 255)
        pixels = shades[levels.astype(np.int64)]
        pixels[~shown] = 0
        image = pg.ImageItem(pixels, axisOrder="row-major", levels=None)
        height, width = self.cells.shape
        image.setRect(QRectF(-0.5, -0.5, width, height))
        return image

    def layers_at(self, point: QPointF, pixels: tuple[float, float]) -> NDArray[np.int64]:
        """The layers of the cell here, in file order."""
        row, column = math.floor(point.y() + 0.5), math.floor(point.x() + 0.5)
        height, width = self.cells.shape
        if not (0 <= row < height and 0 <= column < width):
            return np.zeros(0, np.int64)
        return np.flatnonzero(self._cell == row * width + column)

    def tip(self, point: QPointF, pixels: tuple[float, float], line: float) -> list[str]:
        """Block and expert, the layers in the cell and their errors."""
        found = self.layers_at(point, pixels)
        if not len(found):
            return []
        layers = [self._columns.layers[i] for i in found.tolist()]
        if len(layers) == 1:
            return self._columns.tip(int(found[0]))
        lines = [core.printable(layers[0].name.rpartition(".")[0])]
        for index, layer in zip(found.tolist(), layers, strict=True):
            kind = self._columns.kinds[int(self._columns.kind_of[index])]
            warn = f", above the line at {line:.4g}" if self._columns.error[index] > line else ""
            rank = f"rank {self._columns.rank(index):,} of {len(self._columns):,}"
            lines.append(f"{kind}  {layer.format}  relative error {self._columns.error[index]:.4f}  ({rank}){warn}")
        return [*lines, "click selects them, double click opens the worst"]

    def legend(self, theme: Theme) -> list[Entry]:
        """None: the colours have a key."""
        return []

    def ranges(self) -> tuple[Range, Range]:
        """All cells."""
        height, width = self.cells.shape
        return (-0.5, width - 0.5), (-0.5, height - 0.5)

    def label_axes(self, plot: Plot) -> None:
        """Numbers of experts and of blocks."""
        plot.x_axis.set_ticks(numbered(self._experts.tolist()), 3.0)
        plot.x_axis.setLabel("expert")
        plot.y_axis.set_ticks(numbered(self._blocks.tolist()))
        plot.y_axis.setLabel("block")

    def key(self) -> tuple[str, str, str]:
        """What the darkest and the brightest colour mean, and of what."""
        more = " or more" if self.clipped else ""
        what = "relative error" if self._kind == WORST else f"relative error of {self._kind}"
        return f"{self.low:.4f}", f"{self.high:.4f}{more}", what

    def rows(self) -> Sequence[tuple[object, ...]]:
        """Cell by cell: block, expert, error."""
        blocks, experts = self._blocks.tolist(), self._experts.tolist()
        places = np.argwhere(np.isfinite(self.cells)).tolist()
        return [(blocks[row], experts[column], float(self.cells[row, column])) for row, column in places]


def numbered(numbers: Sequence[int]) -> Ticks:
    """Ticks at 0, 1, 2, ... that show these numbers, as many as there is room for."""

    def visible(low: float, high: float, room: int) -> list[tuple[float, str]]:
        first, last = max(math.ceil(low), 0), min(math.floor(high), len(numbers) - 1)
        stride = nice_stride(max((last - first + 1) / max(room, 1), 1))
        return [(float(i), str(numbers[i])) for i in range(-(-first // stride) * stride, last + 1, stride)]

    return visible


class Frames(pg.GraphicsObject):  # type: ignore[misc]
    """Frames around cells."""

    def __init__(self, columns: NDArray[np.int64], rows: NDArray[np.int64], color: str) -> None:
        super().__init__()
        places = zip(columns.tolist(), rows.tolist(), strict=True)
        self._rects = [QRectF(x - 0.5, y - 0.5, 1, 1) for x, y in places]
        self._pen = pg.mkPen(color, width=2)
        corners = QPointF(float(columns.min()), float(rows.min())), QPointF(float(columns.max()), float(rows.max()))
        self._bounds = QRectF(*corners).adjusted(-1, -1, 1, 1)

    def boundingRect(self) -> QRectF:
        """All frames."""
        return self._bounds

    def paint(self, painter: QPainter, *_: object) -> None:
        """Draw them."""
        painter.setPen(self._pen)
        painter.drawRects(self._rects)
