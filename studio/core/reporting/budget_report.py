"""Reports of a plan for a budget: the curve, single formats beside the mix, how to do it again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kernels
from studio.core.budgets.planner import Mix, Planner, Reason, Trade, budget_title, statistics_digest
from studio.core.exporting.writing import check_writable, writing
from studio.core.model import Model
from studio.core.planning.plan import KEEP
from studio.core.reporting.charts import budget_chart
from studio.core.reporting.pages import page_templates
from studio.core.statistics.digest import model_digest

BUDGET_REPORTS = ("plan.json", "plan.html")


def check_budget_reports(folder: Path) -> None:
    """Raise ExportError when `write_budget` could not write into `folder`; leaves everything as it was."""
    check_writable(folder, BUDGET_REPORTS)


def write_budget(
    folder: Path, planner: Planner, mix: Mix, commands: Sequence[str] = (), texts: Sequence[Path] = ()
) -> list[Path]:
    """Write the files `BUDGET_REPORTS` into `folder`, which is made when it is missing.

    `commands` make the plan and what follows from it; `texts` were read by the probes. Raises ExportError when they can
    not be written.
    """
    found = budget_json(planner, mix, commands, texts)
    contents = dict(zip(BUDGET_REPORTS, (json.dumps(found, indent=1) + "\n", _page(planner, mix, found)), strict=True))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def budget_json(planner: Planner, mix: Mix, commands: Sequence[str], texts: Sequence[Path]) -> dict[str, Any]:
    """Everything that is known of a mix and of what else there could be, as one JSON object."""
    model, decisions = planner.decisions.model, planner.decisions
    nbytes, lost = planner.curve()
    return {
        "schema": 1,
        "program": {"name": "nvfp4-studio", "version": kernels.__version__},
        "model": {"name": model.name, "digest": model_digest(model), "weights": model.count},
        "layout": {"name": decisions.layout.name, "reader": decisions.reader},
        "statistics": statistics_digest(model),
        "texts": {path.name: _digest(path) for path in texts} if planner.sensitivity.is_known else {},
        "unit": _unit(planner),
        "curve": [[int(size), float(y)] for size, y in zip(nbytes, lost, strict=True)],
        "noise": [[int(size), float(kl), float(noise)] for size, kl, noise in zip(*planner.curve_noise(), strict=True)],
        "singles": {name: _figures(found, model) for name, found in planner.uniforms()},
        "mix": {**_figures(mix, model), "gap": mix.gap},
        "sensitivity": planner.sensitivity.to_json(),
        "decisions": [_decision(reason, model) for reason in planner.reasons(mix)],
        "plan": planner.plan(mix, title=budget_title(mix, model)).to_json(),
        "commands": list(commands),
    }


def _unit(planner: Planner) -> str:
    return "KL" if planner.sensitivity.is_known else "damage"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _figures(mix: Mix, model: Model) -> dict[str, Any]:
    bits = 8 * mix.nbytes / max(model.count, 1)
    return {
        "nbytes": mix.nbytes,
        "bits_per_weight": bits,
        "rel_err": mix.rel_err,
        "damage": mix.damage,
        "kl": mix.kl,
        "noise": mix.noise,
    }


def _decision(reason: Reason, model: Model) -> dict[str, Any]:
    return {
        "layers": [model.layers[index].name for index in reason.item.layers],
        "option": str(reason.option),
        "nbytes": reason.option.nbytes,
        "share": reason.share,
        "rel_err": reason.rel_err,
        "finer": _trade(reason.finer),
        "coarser": _trade(reason.coarser),
    }


def _trade(trade: Trade | None) -> dict[str, Any] | None:
    return None if trade is None else {"option": str(trade.option), "nbytes": trade.nbytes, "gain": trade.gain}


def _page(planner: Planner, mix: Mix, found: Mapping[str, Any]) -> str:
    """One self-contained page."""
    count = max(planner.decisions.model.count, 1)
    curve = [(8 * size / count, lost) for size, lost in found["curve"]]
    singles = [(name, 8 * one.nbytes / count, one.lost) for name, one in planner.uniforms() if name != KEEP]
    this = "this mix", 8 * mix.nbytes / count, mix.lost
    noise = [(8 * size / count, kl - error, kl + error) for size, kl, error in found["noise"]]
    chart = budget_chart(curve, singles, this, found["unit"], noise)
    known = {"model": planner.decisions.model, "mix": mix, "reasons": planner.reasons(mix)}
    return page_templates().get_template("plan.html").render(found=found, chart=chart, kernels=kernels, **known)
