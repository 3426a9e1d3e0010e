"""The proof of a GGUF file: every byte is what was written, every weight what the source holds or the error says."""

import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from studio.core.containers.files import SourceFile
from studio.core.containers.gguf import GgufTensor, read_gguf
from studio.core.counting import counted
from studio.core.errors import CheckpointError, ExportError
from studio.core.events import Progress
from studio.core.exporting.checks import TOLERANCE
from studio.core.exporting.gguf_records import pieces
from studio.core.opening.gguf import opened_gguf
from studio.core.opening.gguf_files import open_gguf
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult
from studio.core.running.differences import Counterparts, Difference, differences
from studio.core.running.engine import Engine

_ROUNDED = 2.0**-22
"""Relative error of weights whose tensor scale the source holds as a divisor that reads as a neighbour of it."""


def read_back(
    path: Path, tensors: Mapping[str, GgufTensor], notes: Sequence["array[int]"], done: int
) -> Iterator[Progress]:
    """Read every byte again; `notes`: offset, size and checksum of all that was written.

    Raises ExportError when a byte is not what was written, or was not written at all.
    """
    try:
        with SourceFile(path) as file:
            found = {name: (t.shape, t.type, t.start) for name, t in read_gguf(file).tensors.items()}
            if found != {name: (t.shape, t.type, t.start) for name, t in tensors.items()}:
                raise _lost(path)
            for offset, count, checksum in chain.from_iterable(map(pieces, notes)):
                if zlib.crc32(file.read(offset, count)) != checksum:
                    raise _lost(path)
                done += count
                yield Progress("verify", done, "")
    except CheckpointError as error:
        raise ExportError(error.what, file=path, tensor=error.tensor) from None
    if sum(sum(own[1::3]) for own in notes) != sum(tensor.nbytes for tensor in tensors.values()):
        raise ExportError("was not written whole: a fault of this program", file=path)


def _lost(path: Path) -> ExportError:
    return ExportError("the disk did not keep what was written", file=path, hint="run the same command again")


def prove(
    engine: Engine, path: Path, choices: Sequence[Choice], results: Sequence[LayerResult], done: int
) -> Iterator[Progress]:
    """Open the file as any other and decode it: codes that were taken over and kept weights are those of the source.

    Layers whose codes were chosen have the error that their result states. Raises ExportError.
    """
    with opened_gguf(path, open_gguf(path), []) as written:
        places = Counterparts(written)
        couples = [places.of(choice.layer, rounded=choice.recipe is None) for choice in choices]
        for choice, result, found in zip(choices, results, differences(engine, couples), strict=True):
            if why := _fault(choice, found, result.sum_error):
                raise ExportError(f"does not hold what was to be written: {why}", file=path, tensor=choice.layer.name)
            done += choice.layer.nbytes
            yield Progress("verify", done, choice.layer.name)


def _fault(choice: Choice, found: Difference, said: float) -> str:
    if found.couple.obstacle:
        return found.couple.obstacle
    tiered = choice.recipe is not None and choice.recipe.format.tensor_scale
    if choice.taken_over and tiered and not found.nonfinite_there and found.rel_err <= _ROUNDED:
        return ""
    if choice.recipe is None or choice.taken_over:
        changed = found.weights - found.equal
        return f"{counted(changed, 'weight')} of {found.weights:,} differ from the source" if changed else ""
    if found.nonfinite_there or not abs(found.error - said) <= TOLERANCE * max(found.error, said):
        return f"its squared error is {found.error:.9g}, not {said:.9g}"
    return ""
