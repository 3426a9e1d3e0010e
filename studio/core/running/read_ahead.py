"""Reading ahead: the system is asked for the bytes of layers a while before they are read."""

from collections.abc import Iterable, Iterator

from studio.core.containers.files import SourceFile
from studio.core.model import Layer

READ_AHEAD_NBYTES = 256 << 20
"""How far the system reads ahead, into its page cache."""

_READ_AHEAD_STEP = 8 << 20


class ReadAhead:
    """Keeps the system reading ahead of the first pass, in its order, so that disk and processors work together."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self._pieces = _pieces(layers)
        self._room = READ_AHEAD_NBYTES
        self.consume(0)

    def consume(self, nbytes: int) -> None:
        """The first pass has read `nbytes` more."""
        self._room += nbytes
        while self._room > 0 and (piece := next(self._pieces, None)):
            file, start, count = piece
            file.read_ahead(start, count)
            self._room -= count


def _pieces(layers: Iterable[Layer]) -> Iterator[tuple[SourceFile, int, int]]:
    """(file, first byte, bytes) to read ahead; tensors that follow each other are joined."""
    file, start, stop = None, 0, 0
    for layer in layers:
        stored, first = layer.stored.file, layer.tensor.start
        if file is not stored or first != stop:
            if file:
                yield file, start, stop - start
            file, start = stored, first
        stop = first + layer.tensor.nbytes
        while stop - start > _READ_AHEAD_STEP:
            yield stored, start, _READ_AHEAD_STEP
            start += _READ_AHEAD_STEP
    if file and stop > start:
        yield file, start, stop - start
