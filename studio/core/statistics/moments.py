"""Second moments of whole inputs, for error feedback: too large to keep, so the model is run again for them."""

import tempfile
from collections.abc import Generator, Iterator
from os import fspath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studio.core.running.child import Child, Line

MomentsOf = tuple[tuple[str, ...], NDArray[np.float32] | None]
"""Names of the matrices that have an input, and its second moments; None for an expert with too few tokens."""


def second_moments(source: Path, statistics: Path, scratch: Path | None = None) -> Generator[MomentsOf, None, None]:
    """The second moments x^T x / tokens [K, K] float32 of the inputs of all linear layers and experts, block by block.

    The model at `source` runs on the tokens that the statistics were gathered on. Now and then, while it does, it gives
    no names and None: a place to stop. One matrix at a time is on the disk (in `scratch`, default: the system's place
    for temporary files) and in memory. Closing the generator ends the child. Raises StudioError.
    """
    with tempfile.TemporaryDirectory(prefix="nvfp4-studio-", dir=scratch) as folder:
        arguments = [fspath(source.absolute()), f"--statistics={statistics.absolute()}", f"--scratch={folder}"]
        with Child("moments", arguments) as child:
            yield from _moments(child)


def _moments(child: Child) -> Iterator[MomentsOf]:
    for line in child.lines():
        match line["event"]:
            case "moment":
                yield tuple(line["names"]), _taken(line)
                child.answer("next")
            case "without":
                yield tuple(line["names"]), None
            case _:
                yield (), None


def _taken(line: Line) -> NDArray[np.float32]:
    """The array of a file, which goes."""
    path = Path(line["file"])
    found = np.fromfile(path, np.float32).reshape(line["columns"], line["columns"])
    path.unlink()
    return found
