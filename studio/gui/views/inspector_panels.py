"""The panels of the inspector: tail, weights in their blocks, use of codes, error maps, error by row."""

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt, Signal

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.axes import marks, powers_of_ten, sigmas, whole
from studio.gui.views.color_key import ColorKey
from studio.gui.views.distributions import SIX_SIGMA, gaussian_beyond, sigma_text
from studio.gui.views.labels import STROKES
from studio.gui.views.panel import Panel
from studio.gui.views.plot import Marks, upright_mark

MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
DEAD = 1 / 24
COLORS = "viridis"
_BINS = 64
_MOST_POINTS = 2000


def side_colors(theme: Theme) -> tuple[str, str]:
    """The colours of A and B."""
    return theme.roles["expert"], theme.roles["linear"]


def sides(detail: core.LayerDetail) -> list[tuple[str, core.FormatDetail]]:
    """The sides that are there, with their letters."""
    return [(letter, side) for letter, side in (("A", detail.a), ("B", detail.b)) if side is not None]


class TailPanel(Panel):
    """Share of the weights beyond x sigma."""

    def __init__(self) -> None:
        super().__init__("Tail of the weights", "|w| in multiples of σ", "share beyond", sigmas, powers_of_ten)
        self._x: NDArray[np.float64] = np.zeros(0)
        self._y: NDArray[np.float64] = np.zeros(0)

    def show_detail(self, detail: core.LayerDetail) -> None:
        """Draw a layer against a Gaussian."""
        self.clear()
        x, share = np.array(detail.tail[0]), np.array(detail.tail[1])
        seen = share > 0
        self._x, self._y = np.log2(x[seen]), np.log10(share[seen])
        gaussian = np.linspace(-2, 3.1, 100)
        dotted = pg.mkPen(self.theme.text, style=Qt.PenStyle.DotLine)
        self.add(pg.PlotCurveItem(gaussian, np.log10(np.maximum(gaussian_beyond(2**gaussian), 1e-300)), pen=dotted))
        self.add(pg.PlotCurveItem(self._x, self._y, pen=pg.mkPen(self.theme.accent, width=2)))
        self.add(upright_mark(SIX_SIGMA, "6 σ", self.theme, self.plot.x_axis.label.font()))
        self.title.set_text(f"Tail: {detail.outliers:,} beyond 6 σ, dotted a Gaussian")
        self.fit()

    def fit(self) -> None:
        """All of the tail."""
        if len(self._x):
            self.plot.show_range((-2, max(float(self._x[-1]), SIX_SIGMA) + 0.2), (float(self._y[-1]) - 0.4, 0.15))

    def tip_at(self, point: QPointF) -> list[str]:
        """The share at this multiple of sigma."""
        if not len(self._x) or point.x() > self._x[-1]:
            return []
        x = 2 ** point.x()
        share = 10 ** float(np.interp(point.x(), self._x, self._y))
        return [
            f"beyond {sigma_text(x)}",
            f"{share:.3g} of the weights",
            f"Gaussian: {gaussian_beyond(np.array([x]))[0]:.3g}",
        ]


class WithinPanel(Panel):
    """Weights by their share of the block's maximum: what falls to zero, and what is far from every FP4 value."""

    def __init__(self) -> None:
        super().__init__("Weights inside their blocks", "|w| / maximum of its block of 16", "weights, %")
        self.plot.vertical_grid = False
        self._shares: NDArray[np.float64] = np.zeros(_BINS)
        self._peaks = 0.0

    def show_detail(self, detail: core.LayerDetail) -> None:
        """Draw a layer; the maxima themselves stand apart at the right."""
        self.clear()
        counts = np.array(detail.within[:-1], np.float64).reshape(_BINS, -1).sum(axis=1)
        total = max(detail.count, 1)
        self._shares, self._peaks = 100 * counts / total, 100 * detail.within[-1] / total
        dead = pg.mkColor(self.theme.error)
        dead.setAlpha(60)
        self.add(pg.LinearRegionItem((0, DEAD), movable=False, brush=dead, pen=pg.mkPen(None)), -20)
        edges = np.linspace(0, 1, _BINS + 1)
        fill = pg.mkColor(self.theme.accent)
        fill.setAlpha(150)
        self.add(
            pg.BarGraphItem(x0=edges[:-1], x1=edges[1:], y0=0, height=self._shares, brush=fill, pen=pg.mkPen(None))
        )
        for magnitude in MAGNITUDES[1:]:
            self.add(pg.InfiniteLine(magnitude / 6, pen=pg.mkPen(self.theme.warning, style=Qt.PenStyle.DotLine)))
        self.title.set_text(f"Inside blocks: {detail.dead_share:.1%} in the dead zone (red)")
        self.fit()

    def fit(self) -> None:
        """All bins."""
        self.plot.show_range((-0.01, 1.02), (0, max(float(self._shares.max()), 0.1) * 1.1))

    def tip_at(self, point: QPointF) -> list[str]:
        """The bin here."""
        place = int(point.x() * _BINS)
        if not 0 <= place < _BINS:
            return []
        where = f"{place / _BINS:.3f} to {(place + 1) / _BINS:.3f} of the block's maximum"
        lines = [where, f"{self._shares[place]:.2f}% of the weights"]
        if point.x() <= DEAD:
            lines.append("dead zone: below 1/24 of the maximum, rounds to zero")
        return [*lines, f"the maxima themselves: {self._peaks:.2f}%"]


class CodesPanel(Panel):
    """How many weights take each of the magnitudes."""

    def __init__(self) -> None:
        super().__init__("Use of the codes", "FP4 magnitude", "weights, %")
        self.plot.vertical_grid = False
        self._detail: core.LayerDetail | None = None
        self._top = 1.0

    def show_detail(self, detail: core.LayerDetail) -> None:
        """Draw both sides beside each other."""
        self._detail = detail
        self.clear()
        shown = [(letter, side) for letter, side in sides(detail) if side.uses]
        self._top = 1.0
        for (letter, side), offset in zip(shown, (-0.2, 0.2) if len(shown) > 1 else (0.0,), strict=False):
            share = 100 * np.array(side.uses) / max(sum(side.uses), 1)
            self._top = max(self._top, float(share.max()))
            color = side_colors(self.theme)["AB".index(letter)]
            width = 0.38 if len(shown) > 1 else 0.7
            self.add(
                pg.BarGraphItem(
                    x=np.arange(len(share)) + offset, height=share, width=width, brush=color, pen=pg.mkPen(None)
                )
            )
        longest = max((side.levels for _, side in shown), key=len, default=MAGNITUDES)
        self.plot.x_axis.set_ticks(marks([(float(i), f"{level:g}") for i, level in enumerate(longest)]), 2.5)
        self.plot.x_axis.setLabel("FP4 magnitude" if len(longest) == 8 else "code")
        self.title.set_text("Use of the codes" if shown else "Use of the codes: not counted for 8 bits")
        self.fit()

    def fit(self) -> None:
        """All codes."""
        count = max((len(side.uses) for _, side in sides(self._detail)), default=8) if self._detail else 8
        self.plot.show_range((-0.6, max(count, 8) - 0.4), (0, self._top * 1.1))

    def tip_at(self, point: QPointF) -> list[str]:
        """The counts of the code here."""
        place = round(point.x())
        if self._detail is None or place < 0:
            return []
        lines = [
            f"{letter} {side.title}: {core.counted(side.uses[place], 'weight')} "
            f"({side.uses[place] / max(sum(side.uses), 1):.1%})"
            for letter, side in sides(self._detail)
            if place < len(side.uses)
        ]
        return [f"code value {MAGNITUDES[place] if place < 8 else place:g}", *lines] if lines else []


class RowsPanel(Panel):
    """Relative error of the output rows, worst first.

    Signals:
        row_picked(int): a row that was clicked.
    """

    row_picked = Signal(int)

    def __init__(self) -> None:
        super().__init__("Error by output row", "output rows, worst first", "relative error", whole)
        self._detail: core.LayerDetail | None = None
        self.plot.box.picked.connect(self._picked)

    def show_detail(self, detail: core.LayerDetail) -> None:
        """Draw both sides."""
        self._detail = detail
        self.clear()
        for letter, side in sides(detail):
            places = np.unique(np.linspace(0, len(side.row_order) - 1, _MOST_POINTS).astype(np.int64))
            stroke = STROKES["line" if letter == "A" else "dash"]
            pen = pg.mkPen(side_colors(self.theme)["AB".index(letter)], width=2, style=stroke)
            self.add(pg.PlotCurveItem(places, side.row_error[side.row_order[places]].astype(np.float64), pen=pen))
        self.fit()

    def fit(self) -> None:
        """All rows."""
        shown = sides(self._detail) if self._detail else []
        if shown:
            high = max(float(side.row_error[side.row_order[0]]) for _, side in shown)
            low = min(float(side.row_error[side.row_order[-1]]) for _, side in shown)
            room = (high - low) * 0.08 or high * 0.1 or 0.1
            rows = max(len(side.row_order) for _, side in shown)
            self.plot.show_range((-0.02 * rows, rows * 1.02), (max(low - room, 0), high + room))

    def tip_at(self, point: QPointF) -> list[str]:
        """The rows at this rank."""
        rank = round(point.x())
        if self._detail is None or not 0 <= rank < self._detail.rows:
            return []
        lines = []
        for letter, side in sides(self._detail):
            row = int(side.row_order[rank])
            lines.append(f"{letter} {side.title}: row {row:,}, relative error {side.row_error[row]:.4f}")
        return [f"rank {rank + 1:,} of {core.counted(self._detail.rows, 'row')}", *lines]

    def _picked(self, point: QPointF, _: bool) -> None:
        rank = round(point.x())
        if self._detail and self._detail.a and 0 <= rank < self._detail.rows:
            self.row_picked.emit(int(self._detail.a.row_order[rank]))


class MapPanel(Panel):
    """The error of every block.

    Signals:
        block_picked(int, int): output row over all matrices, and input column, of a click.
    """

    block_picked = Signal(int, int)

    def __init__(self, letter: str) -> None:
        super().__init__(f"Block error {letter}", "input column", "output row", whole, whole)
        self.letter = letter
        self.plot.vertical_grid = False
        self.plot.box.invertY(True)
        self._side: core.FormatDetail | None = None
        self._detail: core.LayerDetail | None = None
        self._frame: pg.GraphicsObject | None = None
        self.key = ColorKey(COLORS)
        self.head.addWidget(self.key)
        self.plot.box.picked.connect(self._picked)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        super().set_theme(theme)
        self.key.set_color(theme.muted)

    def show_side(self, detail: core.LayerDetail, side: core.FormatDetail | None, top: float, note: str) -> None:
        """Draw one side; colours run from 0 to `top`, in units of sigma."""
        fresh = self._detail is None or self._detail.name != detail.name
        self._detail, self._side = detail, side
        self.clear()
        self._frame = None
        if side is None:
            return
        cells = side.error_map.cells
        image = pg.ImageItem(cells, axisOrder="row-major", levels=(0, top or 1.0), autoDownsample=True)
        image.setColorMap(pg.colormap.get(COLORS))
        height, width = cells.shape
        image.setRect(QRectF(0, 0, width * side.error_map.columns, height * side.error_map.rows))
        self.add(image, -10)
        self.title.set_text(f"Block error {note}")
        self.key.show_ends("0", f"{top:.2g} σ", "Root mean square error of a block")
        if fresh:
            self.fit()

    def fit(self) -> None:
        """All blocks."""
        if self._detail:
            self.plot.show_range((0, self._detail.columns), (0, self._detail.rows))

    def show_row(self, row: int) -> None:
        """Zoom to the rows around one."""
        self.plot.box.setYRange(max(row - 8, 0), row + 9, padding=0)

    def mark(self, row: int, column: int, width: int) -> None:
        """Frame a block, large enough to be seen."""
        if self._frame is not None:
            self.plot.removeItem(self._frame)
        middle = ([column + width / 2], [row + 0.5])
        self._frame = Marks(*middle, size=16, symbol="s", brush=None, pen=pg.mkPen("#ffffff", width=2))
        self.add(self._frame, 10)

    def tip_at(self, point: QPointF) -> list[str]:
        """The cell here."""
        if self._side is None or self._detail is None:
            return []
        grid, row, column = self._side.error_map, int(point.y()), int(point.x())
        if not (0 <= row < self._detail.rows and 0 <= column < self._detail.columns):
            return []
        error = float(grid.cells[row // grid.rows, column // grid.columns])
        cell = (
            "block" if (grid.rows, grid.columns) == (1, self._side.block) else f"{grid.rows} × {grid.columns} weights"
        )
        return [
            f"row {row:,}, column {column:,}",
            f"root mean square error of this {cell}: {error:.3g} σ",
            "click to open the block",
        ]

    def _picked(self, point: QPointF, _: bool) -> None:
        if self._detail and 0 <= point.y() < self._detail.rows and 0 <= point.x() < self._detail.columns:
            self.block_picked.emit(int(point.y()), int(point.x()))
