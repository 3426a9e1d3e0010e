"""What a consumer made of an export, and whether the program said so."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RIGHT = "right"
WRONG = "wrong"
FAILS = "fails"
REFUSED = "refused"
NO_BASELINE = "no baseline"
NOT_INSTALLED = "not installed"

NATS = 3e-3
LARGEST_DISTANCE = 0.1
"""Logits that are farther from those of the decoded weights than rounding takes them are right with the same loss, in
nats per token, unless they are farther than this."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One export in one consumer.

    said: the verdict of the program's claim, `claim` its sentence. distance: relative L2 distance of the logits from
    those of the decoded weights in the same consumer; loss and decoded_loss: in nats per token. date: when it was seen.
    """

    consumer: str
    model: str
    layout: str
    format: str
    verdict: str
    reason: str = ""
    distance: float | None = None
    loss: float | None = None
    decoded_loss: float | None = None
    said: str = ""
    claim: str = ""
    is_claimed: bool = True
    date: str = ""

    @property
    def contradicts(self) -> bool:
        """True when the program said something else: that it runs, or that it does not."""
        if not self.is_claimed or self.verdict in (REFUSED, NOT_INSTALLED):
            return False
        return self.said == ("fails" if self.verdict == RIGHT else "runs")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def loss(logits: np.ndarray, tokens: list[int]) -> float:
    """Mean loss in nats per token of logits [tokens, vocabulary]."""
    rows = logits[:-1].astype(np.float64)
    rows -= rows.max(-1, keepdims=True)
    chosen = rows[np.arange(len(tokens) - 1), tokens[1:]]
    return float(np.mean(np.log(np.exp(rows).sum(-1)) - chosen))


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2 distance of logits, each row without its mean; infinite when a number is none.

    That of the row at three quarters: rounding sends a token to another expert now and then, a wrong weight hits most.
    """
    centred = expected - expected.mean(-1, keepdims=True)
    difference = found - found.mean(-1, keepdims=True) - centred
    rows = np.linalg.norm(difference, axis=-1) / np.linalg.norm(centred, axis=-1)
    return float(np.quantile(rows, 0.75)) if np.isfinite(rows).all() else float("inf")


def is_right(far: float, difference: float, noise: float) -> bool:
    """Judge a distance of logits and a difference of losses in a consumer whose rounding makes `noise`."""
    return far <= noise or (far <= LARGEST_DISTANCE and abs(difference) <= NATS)
