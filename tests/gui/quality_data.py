"""Rows of evaluations, and an evaluation that runs no model."""

from collections.abc import Callable, Iterator
from typing import Any

from studio import core

TOKENS, LENGTH = 16_352, 512


def row(
    name: str, increase: float, kl: float, top1: float, format_: str = "nvfp4-3t", method: str = "hessian"
) -> core.Evaluated:
    return core.Evaluated(
        name=name,
        format=format_,
        method=method,
        guide="statistics",
        tokens=TOKENS,
        seconds=60.0,
        perplexity=core.Estimate(18.22 * (1 + increase), 0.8),
        increase=core.Estimate(increase, 0.012),
        kl=core.Estimate(kl, 0.004),
        top1=core.Estimate(top1, 0.006),
        rel_err=0.1,
        bits_per_weight=5.2,
    )


SOURCE = core.Evaluated(
    name="demo",
    format="BF16",
    method="",
    guide="",
    tokens=TOKENS,
    seconds=40.0,
    perplexity=core.Estimate(18.22, 0.8),
)


def quality(models: list[core.Evaluated], source: core.Evaluated | None = SOURCE) -> core.Quality:
    return core.Quality.from_json(
        {
            "models": [one.to_json() for one in models],
            "source": source.to_json() if source else None,
            "text": {"name": "prose.txt", "digest": "0" * 64, "windows": 32, "length": LENGTH, "seed": 0},
            "runtime": {"name": "mlx-lm", "version": "0.32.2"},
            "seconds": 371.0,
        }
    )


def fake_evaluate(calls: list[Any], gate: Callable[[], bool] = lambda: True) -> Callable[..., Iterator[core.Event]]:
    """Stands for `core.evaluate`; notes what it is asked, and goes on once `gate` says so."""

    def evaluate(
        _engine: core.Engine,
        source: core.Candidate | None,
        candidates: list[core.Candidate],
        reading: core.Reading,
        *,
        max_memory: int = 0,
    ) -> Iterator[core.Event]:
        calls.append((source, list(candidates), reading, max_memory))
        yield core.Occupies(reading.texts[0].parent, 1_200_000_000)
        yield core.Started("evaluate", (len(candidates) + 1) * LENGTH, 0)
        if source:
            yield core.ModelDone(SOURCE)
        yield core.Progress("evaluate", LENGTH, "window 1")
        while not gate():
            yield core.Progress("evaluate", LENGTH, "window 1")
        rows = [row(one.name, 0.05 + 0.1 * n, 0.08 + 0.1 * n, 0.85) for n, one in enumerate(candidates)]
        for found in rows:
            yield core.ModelDone(found)
        yield core.EvaluationDone(quality(rows, SOURCE if source else None))

    return evaluate
