"""Checks of a head beside the embedding: whether it is the same, and whether config.json agrees."""

from collections.abc import Iterator
from functools import partial

from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder, pieces_of
from studio.core.findings.readers import said
from studio.core.model import Layer


def readings(folder: Folder) -> Iterator[Reading]:
    """A plain head and a plain embedding of the same shape, to be compared."""
    plain = [layer for layer in folder.layers if layer.name not in folder.packed and len(layer.shape) == 2]
    heads = [layer for layer in plain if layer.role == "head"]
    embeddings = [layer for layer in plain if layer.role == "embedding"]
    if len(heads) == len(embeddings) == 1:
        (head,), (embedding,) = heads, embeddings
        if (head.tensor.dtype, head.shape) == (embedding.tensor.dtype, embedding.shape):
            tied = said(folder, "tie_word_embeddings")
            yield Reading(head.name, head.tensor.nbytes, partial(_compared, head, embedding, tied=tied is True))


def _compared(head: Layer, embedding: Layer, *, tied: bool) -> Iterator[Seen]:
    left = head.tensor.nbytes
    for mine, theirs in zip(pieces_of(head.stored), pieces_of(embedding.stored), strict=True):
        if mine != theirs:
            if tied:
                yield Observation("head-differs", head.name, f"it is not {embedding.name}")
            yield left
            return
        left -= len(mine)
        yield len(mine)
    yield Observation("head-duplicate", head.name, f"byte for byte {embedding.name}, {head.tensor.nbytes:,} bytes")
