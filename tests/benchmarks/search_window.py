"""How much of what all block scales would gain the methods find, on the weights of a checkpoint.

Usage: python -m tests.benchmarks.search_window [FOLDER] [WEIGHTS]; default: the bundled demo checkpoint, 2**20 weights.

Rows are taken evenly over all matrices. For each block every E4M3 code is tried in float64; gains are shares of the
squared error of max. Seconds a format, most of them for the sweep.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import recipe, reference
from studio import core
from studio.core.resources import demo_checkpoint
from studio.core.running.reading import Slab, read_slab

METHODS = ("four-six", "search")
CODES = range(1, 127)
CHUNK = 1 << 16


def samples(model: core.Model, count: int) -> Iterator[tuple[NDArray[np.float32], float]]:
    """Some rows of every matrix that has blocks of 16, and the largest magnitude of the whole."""
    matrices = [
        (layer, matrix)
        for layer in model.layers
        for matrix in layer.matrices
        if len(layer.shape) > 1 and matrix.columns % 16 == 0
    ]
    share = count / sum(matrix.rows * matrix.columns for _, matrix in matrices)
    for layer, matrix in matrices:
        weight = read_slab(Slab(layer, matrix, 0, matrix.rows)).astype(np.float32)
        step = max(round(1 / min(share, 1)), 1)
        yield weight[step // 2 :: step], float(np.abs(weight).max())


def damage(weight: NDArray[np.float32], decoded: NDArray[np.float32]) -> float:
    """The sum of squared errors."""
    return float(((decoded.astype(np.float64) - weight) ** 2).sum())


def swept(weight: NDArray[np.float32], least: int, g: float) -> float:
    """The squared error with the best code of all for each block."""
    total = 0.0
    for blocks in np.array_split(weight.reshape(-1, 16), max(weight.size // CHUNK, 1)):
        best = (blocks.astype(np.float64) ** 2).sum(axis=1)
        for byte in CODES:
            if byte >= least:
                scale = reference.E4M3_VALUES[byte] * np.float32(g)
                error = reference.e2m1_decode(reference.e2m1_encode(blocks / scale)) * scale - blocks.astype(np.float64)
                best = np.minimum(best, (error**2).sum(axis=1))
        total += float(best.sum())
    return total


def costs(weight: NDArray[np.float32], largest: float, name: str) -> NDArray[Any]:
    """The squared error of max, of each method and of the sweep."""
    found = []
    for method in ("max", *METHODS):
        chosen = recipe(name, method=method)
        g = float(reference.tensor_scale(largest, chosen.divisor)) if chosen.format.tensor_scale else 1.0
        found.append(damage(weight, reference.decode(reference.encode(weight, chosen, g))))
    plain = recipe(name)
    g = float(reference.tensor_scale(largest)) if plain.format.tensor_scale else 1.0
    return np.array([*found, swept(weight, plain.min_scale, g)])


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else demo_checkpoint()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1 << 20
    with core.open_model(folder) as model:
        parts = list(samples(model, count))
    print(f"{folder.name}, {sum(weight.size for weight, _ in parts)} weights of {len(parts)} matrices")
    print(f"{'format':10} {'all codes':>10} " + " ".join(f"{method:>16}" for method in METHODS))
    for name in ("nvfp4-2t", "nvfp4-3t"):
        plain, *found, best = sum(costs(weight, largest, name) for weight, largest in parts)
        gains = " ".join(f"{1 - one / plain:8.2%} {(plain - one) / (plain - best):6.2%}" for one in found)
        print(f"{name:10} {1 - best / plain:10.2%} {gains}")


if __name__ == "__main__":
    main()
