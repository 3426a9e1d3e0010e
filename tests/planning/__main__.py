"""Twelve budgets for a model: KL as predicted and as measured, beside single formats.

Usage: python -m tests.planning MODEL [--text FILE] [--probe-text FILE] [--statistics FILE] [--windows N]
                                [--length N] [--probe-windows N] [--parts N] [--out FILE.json] [--figure FILE.svg]

Sensitivities are probed on other windows than plans are measured on. What one run found is taken up by the next one.
Exits with 1 when predictions are not in the order of measurements, or a mix loses to a format within its budget.
"""

import argparse
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio import core
from tests.planning.figure import figure
from tests.quality.__main__ import gathered

BUDGETS = 12
WANTED = 0.95
"""Rank correlation of predicted and measured KL."""


@dataclass(frozen=True)
class Row:
    """A plan: a mix, or a single format. budget: the bytes that the mix was to keep, those of a single format."""

    name: str
    mix: bool
    budget: int
    bits: float
    nbytes: int
    predicted: float
    kl: float
    noise: float


def ended(events: Generator[Any, None, Any]) -> Any:
    """What a job returns."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def budgets(planner: core.Planner) -> list[int]:
    """The sizes of single formats, and others between them, where steps are widest in bits."""
    sizes = sorted({mix.nbytes for name, mix in planner.uniforms() if name != core.KEEP})
    while len(sizes) < BUDGETS:
        widest = max(range(len(sizes) - 1), key=lambda i: sizes[i + 1] - sizes[i])
        sizes.insert(widest + 1, (sizes[widest] + sizes[widest + 1]) // 2)
    return sizes


def ranks(values: Sequence[float]) -> np.ndarray:
    """The place of each value by size; equal ones share theirs."""
    found = np.array(values)
    return (found[:, None] > found).sum(axis=1) + ((found[:, None] == found).sum(axis=1) - 1) / 2


def correlation(rows: Sequence[Row]) -> float:
    """Spearman's rank correlation of predicted and measured KL."""
    return float(np.corrcoef(ranks([row.predicted for row in rows]), ranks([row.kl for row in rows]))[0, 1])


def losses(rows: Sequence[Row]) -> list[str]:
    """Mixes that lose more than a single format that their budget had room for, by more than noise."""
    return [
        f"{row.name}: KL {row.kl:.4f}, {single.name} ({single.bits:.2f} bits) {single.kl:.4f}"
        for row in rows
        for single in rows
        if row.mix and not single.mix and single.nbytes <= row.budget and row.kl > single.kl + single.noise
    ]


def table(rows: Sequence[Row]) -> list[str]:
    """The rows in Markdown, by size."""
    lines = [
        "| plan | bits per weight | predicted KL | measured KL | measured / predicted |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: (row.nbytes, row.mix)):
        name = "**mix**" if row.mix else f"`{row.name}`"
        share = row.kl / row.predicted if row.predicted else float("nan")
        lines.append(
            f"| {name} | {row.bits:.3f} | {row.predicted:.4f} | {row.kl:.4f} ± {row.noise:.4f} | {share:.2f} |"
        )
    return lines


def measured(
    engine: core.Engine, planner: core.Planner, reading: core.Reading, records: Path
) -> tuple[list[Row], core.Quality]:
    """Every plan, run on a text; the same plan is run once."""
    sizes = {f"mix {size:,}": size for size in budgets(planner)}
    mixes = {name: planner.within_nbytes(size) for name, size in sizes.items()}
    singles = {name: mix for name, mix in planner.uniforms() if name != core.KEEP}
    model = planner.decisions.model
    plans = {name: planner.plan(mix, name) for name, mix in {**singles, **mixes}.items()}
    alike: dict[str, str] = {}
    for name, plan in plans.items():
        alike.setdefault(plan.prediction.weights, name)
    candidates = [core.as_planned(model, plans[name], name) for name in alike.values()]
    with closing(core.evaluate(engine, core.as_stored(model), candidates, reading, folder=records)) as events:
        quality = next(event.quality for event in events if isinstance(event, core.EvaluationDone))
    kl = {row.name: row.kl for row in quality.models}
    rows = []
    for name, mix in {**singles, **mixes}.items():
        found = kl[alike[plans[name].prediction.weights]]
        bits = 8 * mix.nbytes / model.count
        budget = sizes.get(name, mix.nbytes)
        rows.append(Row(name, name in mixes, budget, bits, mix.nbytes, mix.kl, found.value, found.noise))
    return rows, quality


def main() -> int:
    """Print the table of one model and what it says."""
    parser = argparse.ArgumentParser(prog="python -m tests.planning")
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, default=core.evaluation_text())
    parser.add_argument("--probe-text", type=Path, help="default: other windows of the text")
    parser.add_argument("--statistics", type=Path)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512, help="tokens of a window that plans are measured on")
    parser.add_argument("--probe-windows", type=int, default=8)
    parser.add_argument("--parts", type=int, default=core.MOST_PARTS)
    parser.add_argument("--forbid", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    statistics = options.statistics or gathered(options.model, core.calibration_text(), 64)
    with core.open_model(options.model) as plain, core.start(core.Machine(), plain) as engine:
        model = core.with_statistics(plain, core.open_statistics(statistics, plain))
        decisions = core.decide(model, core.preset("linear"), *core.layout_for("mlx", ""), frozenset(options.forbid))
        costs = ended(core.price(engine, decisions))
        probed = core.Reading((options.probe_text or options.text,), options.probe_windows, seed=1)
        probing = core.Probing(costs, probed, parts=options.parts)
        planner = core.Planner(costs, ended(probing.run(engine)), parts=options.parts)
        reading = core.Reading((options.text,), options.windows, options.length)
        rows, quality = measured(engine, planner, reading, Path("build/planning").absolute())
    mixes, found = [row for row in rows if row.mix], losses(rows)
    order, whole = correlation(mixes), correlation(rows)
    print(f"{options.model.name}, {quality.text.name}: {quality.text.windows} x {quality.text.length} tokens")
    print("\n".join(table(rows)))
    print(f"rank correlation of predicted and measured KL: {order:.3f} of {len(mixes)} mixes, {whole:.3f} of all plans")
    print("\n".join(found) or "every mix is as good as each single format that its budget has room for, or better")
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.figure:
        options.figure.write_text(figure(options.model.name, rows, planner.curve(), model.count))
    return int(order < WANTED or bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
