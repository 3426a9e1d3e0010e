"""ScatterView: error against outliers, a dot per layer, which shows whether those with outliers suffer most."""

import numpy as np
from numpy.typing import NDArray
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.shell.specs import keys_of
from studio.gui.views.axes import nice, powers_of_ten, sigmas
from studio.gui.views.columns import above_zero
from studio.gui.views.figure import Figure
from studio.gui.views.kinds import kind
from studio.gui.views.points import PointsView, padded

SPREAD_FOR_LOG = 5.0


class ScatterView(PointsView):
    """Relative error over max|w| / sigma, the latter logarithmic.

    Signals: see `View`.
    """

    TITLE = "Error against outliers"
    EMPTY = (
        f"No layer has been quantized yet.\nQuantize ({keys_of('quantize')}) to see whether outliers cause the errors."
    )
    X = "largest weight, in multiples of σ"
    Y = "relative error"
    X_TICKS = staticmethod(sigmas)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._log = False

    def positions(self) -> NDArray[np.float64]:
        """x: binary logarithm of max|w| / sigma; y: error, logarithmic when few layers tower over the others."""
        error = self.columns.error
        self._log = bool(error.max() > SPREAD_FOR_LOG * max(float(np.median(error)), 1e-9))
        self.plot.y_axis.set_ticks(powers_of_ten if self._log else nice)
        return np.column_stack(
            [np.log2(above_zero(self.columns.ratio)), np.log10(above_zero(error)) if self._log else error]
        )

    def fit(self) -> None:
        """All layers whose outliers are known."""
        known = self.points[self.columns.ratio > 0] if len(self.columns) else self.points
        if len(known):
            x, y = padded(known[:, 0]), padded(known[:, 1], 0.1)
            self.plot.show_range((x[0] - 0.1, x[1] + 0.1), (y[0] if self._log else max(y[0], 0.0), y[1]))

    def summary_text(self) -> str:
        """How far errors follow outliers."""
        known = self.columns.ratio > 0
        if known.sum() < 3:
            return core.counted(len(self.columns), "layer")
        ranks = [
            np.argsort(np.argsort(values[known])).astype(np.float64)
            for values in (self.columns.ratio, self.columns.error)
        ]
        follow = float(np.corrcoef(ranks[0], ranks[1]).reshape(-1)[1])
        word = "errors follow outliers" if follow > 0.6 else "some do" if follow > 0.3 else "errors have other causes"
        return f"{core.counted(int(known.sum()), 'layer')}, rank correlation {follow:+.2f}: {word}".replace("-", "−")

    def figure(self) -> Figure:
        """Layer by layer."""
        heads = ("layer", "kind", "format", "max |w| / sigma", "relative error")
        layers = self.columns.layers
        rows = [
            (layer.name, kind(layer), layer.format, float(self.columns.ratio[i]), layer.rel_err)
            for i, layer in enumerate(layers)
        ]
        return Figure(self.TITLE, heads, rows)
