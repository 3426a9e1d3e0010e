"""Every format and method on a model: error of the weights, perplexity, KL, top-1 agreement, seconds; and the order.

Usage: python -m tests.quality MODEL [--text FILE] [--calibration FILE] [--windows N] [--gather N] [--out FILE.json]

Without files: statistics of the bundled calibration text, evaluated on the bundled evaluation text. What one run
gathered or evaluated is taken up by the next one.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from studio import core

LADDER = ("max", "four-six", "search", "importance", "hessian", "feedback")
GRID = (
    *(("nvfp4-3t", method) for method in LADDER),
    *(("nvfp4-2t", method) for method in ("max", "search", "hessian", "feedback")),
    *((name, method) for name in ("mxfp4", "int4-g32", "int4-g64") for method in ("max", "search")),
    *((name, "max") for name in ("mxfp8", "int8-g64")),
)
BLIND = "norm in front"
"""The method by default without statistics: importance by the norm in front of a layer, search where there is none."""

BETTER = (
    ("search", "max"),
    (BLIND, "search"),
    ("importance", BLIND),
    ("hessian", "importance"),
    ("feedback", "hessian"),
)
"""Pairs of methods, the first of which should have the smaller KL."""


def gathered(model: Path, text: Path, windows: int) -> Path:
    """Statistics of the model on a text, gathered once."""
    out = Path("build/quality") / f"{model.name}-{text.stem}-{windows}.statistics.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists():
        for event in core.calibrate(core.Calibration(model, out, (text,), windows=windows)):
            if isinstance(event, core.Calibrated):
                print(f"{out}: {event.tokens:,} tokens, {event.seconds:.0f} s, {event.runtime}")
    return out


def candidates(plain: core.Model, guided: core.Model) -> Iterator[core.Candidate]:
    """The grid, and the default without statistics."""
    linear = core.preset("linear")
    yield core.as_planned(plain, linear, BLIND)
    for name, method in GRID:
        yield core.as_planned(guided, linear.with_format(name).with_method(method), f"{name}/{method}")


def table(rows: Sequence[core.Evaluated]) -> Iterator[str]:
    """The rows in Markdown."""
    yield "| format | method | weight error | perplexity | KL to the source | top-1 | seconds |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        name = BLIND if row.name == BLIND else row.method
        figures = (row.rel_err or 0, row.perplexity.value, row.kl.value, row.kl.noise, row.top1.value, row.seconds)
        error, perplexity, kl, noise, top1, seconds = figures
        yield (
            f"| {row.format} | {name} | {error:.4f} | {perplexity:.2f} | {kl:.4f} ± {noise:.4f} | {top1:.1%} "
            f"| {seconds:.0f} |"
        )


def order(rows: Sequence[core.Evaluated]) -> Iterator[str]:
    """Whether each step of the ladder lowers the KL, for three tiers."""
    kl = {row.name.removeprefix("nvfp4-3t/"): row.kl for row in rows if row.format == "nvfp4-3t"}
    for better, worse in BETTER:
        holds = "better" if kl[better].value < kl[worse].value else "NOT better"
        change = kl[better].value / kl[worse].value - 1
        yield f"{better} is {holds} than {worse}: KL {kl[better].value:.4f}, {kl[worse].value:.4f} ({change:+.1%})"
    for method in (BLIND, *LADDER[1:]):
        yield f"{method} against max: KL {kl[method].value / kl['max'].value - 1:+.0%}"


def main() -> int:
    """Print the table of one model and what the order says."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality")
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, default=core.evaluation_text())
    parser.add_argument("--calibration", type=Path, default=core.calibration_text())
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--gather", type=int, default=64, help="windows of 512 tokens that statistics are gathered on")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    statistics = gathered(options.model, options.calibration, options.gather)
    with core.open_model(options.model) as plain, core.start(core.Machine(), plain) as engine:
        guided = core.with_statistics(plain, core.open_statistics(statistics, plain))
        reading = core.Reading((options.text,), options.windows)
        wanted = list(candidates(plain, guided))
        with closing(core.evaluate(engine, core.as_stored(plain), wanted, reading)) as events:
            quality = next(event.quality for event in events if isinstance(event, core.EvaluationDone))
    source = f"source perplexity {quality.source.perplexity.value:.2f}"
    print(f"{options.model.name}, {options.text.name}, {quality.text.windows} x {quality.text.length} tokens: {source}")
    print("\n".join((*table(quality.models), "", *order(quality.models))))
    if options.out:
        core.save_quality(quality, options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
