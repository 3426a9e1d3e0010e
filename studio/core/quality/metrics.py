"""Metrics of a model on windows of tokens: negative log-likelihood, divergence from a source, agreement with it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROWS = 64
"""Positions worked on at once: a row of 150,000 words takes 600 kB in each of a few arrays."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the predicted tokens of one window.

    loss: negative log-likelihood in nats. divergence: KL(source || model) in nats, and agreed: how many tokens both
    think most likely; both None without a source.
    """

    tokens: int
    loss: float
    divergence: float | None = None
    agreed: int | None = None


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [positions, words] as log-probabilities, in place; sums are taken in float64."""
    for start in range(0, len(logits), _ROWS):
        rows = logits[start : start + _ROWS]
        rows -= rows.max(axis=1, keepdims=True)
        rows -= np.log(np.exp(rows).sum(axis=1, dtype=np.float64, keepdims=True)).astype(np.float32)
    return logits


def tally(found: NDArray[np.float32], targets: NDArray[np.int64], source: NDArray[np.float32] | None = None) -> Tally:
    """What log-probabilities [positions, words] say of the words that follow, `targets` [positions].

    `source` holds those of the source for the same positions. Raises ValueError where the shapes differ.
    """
    if source is not None and source.shape != found.shape:
        raise ValueError(f"[tally] predictions of shape {found.shape} beside those of the source, {source.shape}")
    loss = -float(found[np.arange(len(targets)), targets].sum(dtype=np.float64))
    if source is None:
        return Tally(len(targets), loss)
    pieces = [slice(start, start + _ROWS) for start in range(0, len(found), _ROWS)]
    divergence = sum(_divergence(source[rows], found[rows]) for rows in pieces)
    agreed = int((source.argmax(axis=1) == found.argmax(axis=1)).sum())
    return Tally(len(targets), loss, divergence, agreed)


def _divergence(source: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Sum of p log(p / q) in nats; words of probability zero add nothing."""
    p = np.exp(source)
    with np.errstate(invalid="ignore"):  # both log-probabilities may be minus infinity
        terms = p * (source - found)
    return float(np.where(p > 0, terms, 0).sum(dtype=np.float64))
