"""Small files of statistics for tests."""

from pathlib import Path

import numpy as np

from studio.core.model import Model
from studio.core.statistics.digest import model_digest
from studio.core.statistics.file import Shape, write_statistics
from studio.core.statistics.inputs import BLOCK, COLUMNS, PAIRS, ROWS, LayerInputs

TOKENS = 1000


def statistics_of(model: Model, path: Path, without: str = "") -> Path:
    """Statistics of all linear layers but those whose names hold `without`: later columns are larger."""
    shapes = [
        Shape((matrix.name,), matrix.columns, TOKENS)
        for layer in model.layers
        for matrix in layer.matrices
        if layer.role == "linear" and not (without and without in layer.name)
    ]
    about = {"model_digest": model_digest(model), "text_digest": "", "seed": "0", "runtime": "none"}
    write_statistics(path, shapes, _inputs, np.zeros((1, 16), np.int32), about)
    return path


def _inputs(shape: Shape) -> LayerInputs:
    squares = np.linspace(0.1, 4.0, shape.columns, dtype=np.float32)
    moments = np.zeros((shape.columns // BLOCK, PAIRS), np.float32)
    moments[:, ROWS == COLUMNS] = squares.reshape(-1, BLOCK)
    return LayerInputs(TOKENS, squares, np.sqrt(squares), moments)
