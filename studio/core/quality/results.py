"""What an evaluation found: a row per model with perplexity, divergence and agreement, and what they were taken on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import kernels
from studio.core.names import printable
from studio.core.quality.metrics import Tally
from studio.core.quality.noise import Estimate, agreement, divergence, increase, perplexity
from studio.core.typed import typed

SCHEMA = 1
_ESTIMATES = ("perplexity", "increase", "kl", "top1", "kl_difference")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model on the windows of a text.

    format, method, guide: what its weights are stored in, how codes were chosen, and what told of the inputs of layers
    ("norm", "statistics"); "" for what there is not. rel_err, bits_per_weight: relative error of the quantized weights
    and bits per weight of the whole, None for a plain checkpoint. increase: share by which perplexity is above that of
    the source. kl: mean KL(source || model) per token in nats. top1: share of tokens for which both think the same word
    most likely. kl_difference: kl less that of the first model, on the same windows. seconds: to prepare it and to run
    all windows. predicted: the kl that its plan said it would have, None where it said none.
    What needs a source is None without one.
    """

    name: str
    format: str
    method: str
    guide: str
    tokens: int
    seconds: float
    perplexity: Estimate
    increase: Estimate | None = None
    kl: Estimate | None = None
    top1: Estimate | None = None
    kl_difference: Estimate | None = None
    rel_err: float | None = None
    bits_per_weight: float | None = None
    predicted: float | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values; an estimate is an object with `value` and `noise`."""
        data = {key: getattr(self, key) for key in self.__dataclass_fields__}
        return {key: value.to_json() if isinstance(value, Estimate) else value for key, value in data.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Evaluated":
        """The row that `to_json` described."""
        late = {"predicted": None}  # not in what the first version wrote
        known: dict[str, Any] = {key: (late | data)[key] for key in cls.__dataclass_fields__}
        return typed(cls(**known | {key: _estimate(known[key]) for key in _ESTIMATES}))


def _estimate(data: dict[str, Any] | None) -> Estimate | None:
    return Estimate.from_json(data) if data is not None else None


@dataclass(frozen=True, slots=True)
class Text:
    """What was read: a name for people, SHA-256 of its bytes, and how it was cut into windows of `length` tokens."""

    name: str
    digest: str
    windows: int
    length: int
    seed: int


@dataclass(frozen=True, slots=True)
class Quality:
    """An evaluation: the models in the order asked for, the source they are compared with, and how it was run."""

    models: tuple[Evaluated, ...]
    source: Evaluated | None
    text: Text
    runtime: str
    version: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "schema": SCHEMA,
            "program": {"name": "nvfp4-studio", "version": kernels.__version__},
            "models": [row.to_json() for row in self.models],
            "source": self.source.to_json() if self.source else None,
            "text": {key: getattr(self.text, key) for key in Text.__dataclass_fields__},
            "runtime": {"name": self.runtime, "version": self.version},
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Quality":
        """The evaluation that `to_json` described; for others KeyError, TypeError, ValueError or AttributeError."""
        models = tuple(map(Evaluated.from_json, data["models"]))
        if not models:
            raise ValueError("no models")
        source = Evaluated.from_json(data["source"]) if data["source"] else None
        runtime = data["runtime"]
        text = typed(Text(**data["text"]))
        return typed(cls(models, source, text, runtime["name"], runtime["version"], data["seconds"]))


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of a model beside its tallies; see `Evaluated`."""

    name: str
    format: str = ""
    method: str = ""
    guide: str = ""
    rel_err: float | None = None
    bits_per_weight: float | None = None
    predicted: float | None = None


def evaluated(
    subject: Subject,
    windows: Sequence[Tally],
    seconds: float,
    source: Sequence[Tally] | None = None,
    first: Sequence[Tally] | None = None,
) -> Evaluated:
    """The row of a model: `windows` beside the same windows of its source, and of the first model of the batch."""
    return Evaluated(
        name=subject.name,
        format=subject.format,
        method=subject.method,
        guide=subject.guide,
        tokens=sum(window.tokens for window in windows),
        seconds=seconds,
        perplexity=perplexity(windows),
        increase=increase(windows, source) if source else None,
        kl=divergence(windows) if source else None,
        top1=agreement(windows) if source else None,
        kl_difference=divergence(windows, first) if source and first else None,
        rel_err=subject.rel_err,
        bits_per_weight=subject.bits_per_weight,
        predicted=subject.predicted,
    )


def exceeded(quality: Quality, max_kl: float | None = None, max_increase: float | None = None) -> list[str]:
    """A sentence for each limit that a model does not keep: KL in nats, and the share that perplexity may rise by.

    A figure that is no number keeps no limit.
    """
    found = []
    for row in quality.models:
        name = printable(row.name)
        if max_kl is not None and row.kl is not None and not row.kl.value <= max_kl:
            found.append(f"{name}: KL to the source {row.kl.value:.4f}, at most {max_kl:g} is allowed")
        if max_increase is not None and row.increase is not None and not row.increase.value <= max_increase:
            found.append(
                f"{name}: perplexity {row.increase.value:+.2%} of the source's, at most {max_increase:+.2%} is allowed"
            )
    return found
