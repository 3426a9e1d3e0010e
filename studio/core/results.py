"""What a run found out: plain numbers per layer and in total, ready for JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import STORED
from kernels.fidelity import AnyCensus, FilledBins, relative_error, snr_db
from studio.core.counting import counted
from studio.core.counts import NO_COUNTS, Counts
from studio.core.model import Layer
from studio.core.planning.plan import Choice
from studio.core.running.tallies import ErrorTally

FAR = 0.5
"""Relative error beyond which weights are hardly those of the source."""

VANISHED_WARNING = 0.5
_OUTLIER_SIGMAS = 6.0
HISTOGRAM_STEPS_PER_OCTAVE = 4
HISTOGRAM_OCTAVES = (-12, 8)


@dataclass(frozen=True, slots=True)
class Statistics:
    """The distribution of a layer's weights.

    sigma: root mean square. kurtosis: 3 for a Gaussian. outliers: weights beyond 6 sigma. quantiles: |w| below which
    50 %, 99 %, 99.9 % and 99.99 % of the weights lie. histogram: weights per bin of |w| / sigma, four bins per octave
    from 2**-12 to 2**8; the first bin takes all below, the last all above.
    """

    max_abs: float
    sigma: float
    kurtosis: float
    outliers: int
    zeros: int
    nan: int
    infinite: int
    quantiles: tuple[float, ...]
    histogram: Counts


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One layer: what it is, what was chosen, what that cost. Errors are zero for a kept layer.

    method: how codes were chosen; guide: what told of the layer's inputs, "norm" or "statistics", if the method asked.
    count: weights. nbytes_in, nbytes_out: stored bytes before and after. sum_squares, sum_error: sums of w**2 and of
    squared errors, which add up over layers. vanished: non-zero weights that became zero; vanished_rows: rows, of
    `rows`, with weights all of which did. scale_counts: blocks per
    scale byte. tensor_scales: the multipliers g, one per matrix. lift: the power of two that the stored layer is
    multiplied by; sums, errors and statistics are those of the weights before it. input_scales: the multipliers of
    inputs, one per matrix, where these are quantized too.
    """

    name: str
    role: str
    block: int | None
    dtype: str
    shape: tuple[int, ...]
    format: str
    reason: str
    count: int
    nbytes_in: int
    nbytes_out: int
    method: str = ""
    guide: str = ""
    sum_squares: float = 0.0
    sum_error: float = 0.0
    max_error: float = 0.0
    vanished: int = 0
    rows: int = 0
    vanished_rows: int = 0
    tensor_scales: tuple[float, ...] = ()
    scale_counts: Counts = NO_COUNTS
    statistics: Statistics | None = None
    lift: int = 0
    input_scales: tuple[float, ...] = ()

    @property
    def quantized(self) -> bool:
        """True unless the layer was kept."""
        return self.format != "keep"

    @property
    def measured(self) -> bool:
        """True where the error is known: of codes that were taken over, nobody here has seen the source."""
        return self.quantized and self.method != STORED

    @property
    def rel_err(self) -> float:
        """||W - decoded|| / ||W||; NaN for codes that were taken over."""
        return math.nan if self.method == STORED else relative_error(self.sum_error, self.sum_squares)

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio in dB; NaN for codes that were taken over."""
        return snr_db(self.rel_err)

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return self.sum_error / self.count if self.count else 0.0

    @property
    def bits_per_weight(self) -> float:
        """Bits stored per weight."""
        return 8 * self.nbytes_out / self.count if self.count else 0.0

    @property
    def vanished_share(self) -> float:
        """Share of the weights other than zero that became zero."""
        others = self.count - (self.statistics.zeros if self.statistics else 0)
        return self.vanished / others if others else 0.0

    @property
    def losses(self) -> list[str]:
        """What is lost so that someone should look, however small the relative error is."""
        found = []
        if self.vanished_share > VANISHED_WARNING:
            found.append(f"{self.vanished_share:.0%} of its non-zero weights became zero")
        if self.vanished_rows:
            share = self.vanished_rows / self.rows
            found.append(
                f"{self.vanished_rows:,} of its {counted(self.rows, 'row')} ({share:.1%}) became zero altogether"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """All fields and the derived figures, as JSON values; infinities become null."""
        derived = {
            "rel_err": self.rel_err,
            "snr_db": self.snr,
            "mse": self.mse,
            "bits_per_weight": self.bits_per_weight,
        }
        data = {key: getattr(self, key) for key in self.__dataclass_fields__}  # asdict copies every number of a tuple
        data |= derived if self.quantized else {}
        data["scale_counts"] = list(self.scale_counts)
        if known := self.statistics:
            data["statistics"] = {key: getattr(known, key) for key in known.__dataclass_fields__}
            data["statistics"]["histogram"] = list(known.histogram)
        return {key: finite(value) for key, value in data.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LayerResult":
        """The result that `to_json` described."""
        late = {"rows": 0, "vanished_rows": 0, "lift": 0, "input_scales": ()}  # not in what the first version wrote
        fields = {key: data[key] for key in cls.__dataclass_fields__ if key in data or key not in late}
        fields |= {key: tuple(fields[key]) for key in ("shape", "tensor_scales", "input_scales") if key in fields}
        fields["scale_counts"] = Counts(fields["scale_counts"])
        if known := fields["statistics"]:
            lists = {"quantiles": tuple(known["quantiles"]), "histogram": Counts(known["histogram"])}
            fields["statistics"] = Statistics(**{**known, **lists})
        return cls(**fields)


def finite(value: Any) -> Any:
    """`value`, or None for a float that JSON has no number for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def statistics(census: AnyCensus) -> Statistics:
    """The distribution that a census tells."""
    filled, nan, infinite = census.finite, census.nan, census.infinite
    count = filled.count + nan + infinite
    sigma = math.sqrt(census.sum2 / count) if count else 0.0
    return Statistics(
        max_abs=census.max_abs,
        sigma=sigma,
        kurtosis=census.sum4 * count / census.sum2**2 if census.sum2 > 0 else 0.0,
        outliers=filled.above(_OUTLIER_SIGMAS * sigma),
        zeros=census.zeros,
        nan=nan,
        infinite=infinite,
        quantiles=filled.quantiles((0.5, 0.99, 0.999, 0.9999)),
        histogram=histogram(filled, sigma),
    )


@lru_cache
def histogram_edges() -> tuple[float, ...]:
    """Edges of the histogram's bins, in units of sigma."""
    low, high = HISTOGRAM_OCTAVES
    steps = (high - low) * HISTOGRAM_STEPS_PER_OCTAVE + 1
    return tuple(2 ** (low + i / HISTOGRAM_STEPS_PER_OCTAVE) for i in range(steps))


@lru_cache
def _inner_edges() -> NDArray[np.float64]:
    return np.array(histogram_edges()[1:-1])


def histogram(filled: FilledBins, sigma: float) -> Counts:
    """Weights that are not zero per bin of `histogram_edges`, |w| in units of `sigma`."""
    edges = _inner_edges()
    return Counts.of(filled.between(edges * sigma)) if sigma else Counts([0] * (len(edges) + 1))


def result_of(choice: Choice, **measured: Any) -> LayerResult:
    """The result for the layer of a choice: what both tell, and what was `measured`, by the names of the fields."""
    layer: Layer = choice.layer
    return LayerResult(
        name=layer.name,
        role=layer.role,
        block=layer.block,
        dtype=layer.tensor.dtype,
        shape=layer.shape,
        format=choice.format,
        reason=choice.reason,
        count=layer.count,
        nbytes_in=layer.nbytes,
        nbytes_out=choice.nbytes,
        method=choice.method,
        guide=choice.guide.origin if choice.guide else "",
        lift=layer.whole_lift,
        input_scales=choice.input_scales,
        **measured,
    )


def layer_result(
    choice: Choice, distribution: Statistics | None, errors: ErrorTally, tensor_scales: Sequence[float] = ()
) -> LayerResult:
    """The result for one layer from the tally of its slabs, which may be multiplied by a power of two."""
    once = 2.0**-choice.layer.whole_lift
    return result_of(
        choice,
        sum_squares=errors.sum_squares * once**2,
        sum_error=errors.sum_error * once**2,
        max_error=errors.max_error * once,
        vanished=errors.vanished,
        rows=errors.rows,
        vanished_rows=errors.vanished_rows,
        tensor_scales=tuple(float(g) for g in tensor_scales),
        scale_counts=NO_COUNTS if errors.scale_counts is None else Counts.of(errors.scale_counts),
        statistics=distribution and _scaled(distribution, once),
    )


def _scaled(known: Statistics, factor: float) -> Statistics:
    """The distribution of the weights times `factor`, a power of two."""
    if factor == 1:
        return known
    quantiles = tuple(factor * value for value in known.quantiles)
    return replace(known, max_abs=factor * known.max_abs, sigma=factor * known.sigma, quantiles=quantiles)
