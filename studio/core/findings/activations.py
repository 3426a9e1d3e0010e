"""Checks of what goes into layers, by a file of statistics: whether float16 has numbers for it."""

from collections.abc import Iterator
from pathlib import Path

from studio.core.errors import PlanError
from studio.core.findings.finding import Observation
from studio.core.findings.scales import FLOAT16_MAX
from studio.core.model import Model
from studio.core.statistics.opening import open_statistics

_NEAR = 4
"""A text shows a part of what a model will read: inputs of a quarter of the largest number are told, too."""


def inputs(path: Path, model: Model) -> Iterator[Observation]:
    """Layers whose largest inputs float16 has no number for, or hardly one.

    Raises CheckpointError for a damaged file, PlanError for statistics of another model, or without largest inputs.
    """
    file = open_statistics(path, model)
    if file.kind != "statistics":
        hint = "gather statistics: nvfp4-studio calibrate SRC --out FILE"
        raise PlanError("knows mean squares, and not how large inputs become", file=path, hint=hint)
    for layer in model.layers:
        for matrix in layer.matrices:
            tokens, peak = file.peak_of(layer, matrix)
            if peak > FLOAT16_MAX / _NEAR:
                kind = "float16-inputs" if peak > FLOAT16_MAX else "float16-inputs-near"
                evidence = f"inputs up to {peak:,.0f} among {tokens:,}; float16 ends at {FLOAT16_MAX:,.0f}"
                yield Observation(kind, matrix.name, evidence)
