"""Statistics: what running a model on text told about the inputs of its layers; files of it, and who makes them."""

from studio.core.statistics.inputs import LayerInputs
from studio.core.statistics.opening import StatisticsFile, open_statistics, unseen

__all__ = ["LayerInputs", "StatisticsFile", "open_statistics", "unseen"]
