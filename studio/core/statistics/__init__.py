"""Statistics: what running a model on text told about the inputs of its layers; files of it, and who makes them."""

from studio.core.statistics.guides import gaps, with_statistics
from studio.core.statistics.inputs import BLOCK, LayerInputs
from studio.core.statistics.opening import StatisticsFile, open_statistics, unseen

__all__ = [
    "BLOCK",
    "LayerInputs",
    "StatisticsFile",
    "gaps",
    "open_statistics",
    "unseen",
    "with_statistics",
]
