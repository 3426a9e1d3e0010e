"""What can become of an export, and the columns of the table."""

from dataclasses import asdict, dataclass, field
from typing import Any

COLUMNS = {
    "mlx-2t": ("mlx", "nvfp4-2t"),
    "mlx-3t": ("mlx", "nvfp4-3t"),
    "mlx-int4": ("mlx", "int4-g32"),
    "ct-3t": ("compressed-tensors", "nvfp4-3t"),
    "ct-2t": ("compressed-tensors", "nvfp4-2t"),
    "as-saved": ("mlx", "nvfp4-2t"),
}
"""Layout and format. `as-saved` exports the checkpoint with the config.json that transformers 5 wrote."""

OTHER_COLUMNS = ("ct-3t", "ct-2t")
"""Those of model types that mlx-lm does not have."""

RIGHT = "right"
BROKEN = "baseline broken"
REFUSED = "refused"
CAUTIONED = "cautioned"
REQUANTIZED = "requantized"
AS_SOURCE = "as its source"
ONLY_DEQUANTIZED = "right when dequantized"
WRONG = "wrong numbers"
LOST = "weights lost"
LOAD = "load error"
RUN = "run error"
FAILED = "product failed"
HARNESS = "harness failed"

FINE = (RIGHT, BROKEN, REFUSED, CAUTIONED, REQUANTIZED, AS_SOURCE)
"""No fault of the export: it is right, says what it is not, or the runtime can not do better with the source."""


@dataclass(frozen=True)
class Verdict:
    """What became of one export.

    `distance` is the relative L2 distance of its logits from those of the weights that its bytes hold; `share` the part
    of the bytes of linear weights that it holds quantized.
    """

    verdict: str
    reason: str = ""
    distance: float | None = None
    share: float | None = None

    @property
    def fine(self) -> bool:
        """True unless something has to be mended."""
        return self.verdict in FINE

    def __str__(self) -> str:
        far = "" if self.distance is None else f" {self.distance:.0e}"
        return self.verdict + far


@dataclass
class Row:
    """The verdicts of one row by column, and what the runtimes do with its unquantized checkpoint."""

    name: str
    baseline: dict[str, Any] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    @property
    def fine(self) -> bool:
        """True unless a verdict is a fault."""
        return all(verdict.fine for verdict in self.verdicts.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
