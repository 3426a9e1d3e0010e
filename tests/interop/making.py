"""What the makers of checkpoints have in common; runs in their environments, on numpy and the standard library."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tests.runtimes.answering import answer_jobs, kept_output

MODEL, DECODED = "model", "decoded.npz"


@dataclass
class Made:
    """What a package decoded a checkpoint to that it stored.

    weights: float32 by the name of the tensor in a plain checkpoint, or the one that is stored. dtype: what the package
    rounded them to at last. loader: what decoded them. refusal: words that this program answers with where it reads
    none of it. alarms: the kinds of findings that the doctor rightly makes.
    """

    weights: Mapping[str, np.ndarray]
    loader: str
    dtype: str = "F32"
    refusal: str = ""
    alarms: tuple[str, ...] = ()


Maker = Callable[[Path, Path], Made]
"""(folder of plain checkpoints, target folder of the new one)."""


def main(module: str) -> None:
    """Answer `cases` with the names of those of a module, and `make` with a checkpoint and what it decodes to."""
    output = kept_output()  # packages print while they are imported
    cases: Mapping[str, Maker] = import_module(f"tests.interop.{module}").CASES

    def make(case: str, sources: str, target: str) -> dict[str, Any]:
        folder = Path(target)
        folder.mkdir(parents=True)
        made = cases[case](Path(sources), folder / MODEL)
        np.savez(folder / DECODED, **made.weights)
        return {"dtype": made.dtype, "loader": made.loader, "refusal": made.refusal, "alarms": list(made.alarms)}

    answer_jobs({"cases": lambda: list(cases), "make": make}, output)


if __name__ == "__main__":
    main(sys.argv[1])
