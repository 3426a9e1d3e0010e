"""What a model card says of a plan for a budget: the curve in numbers, what was chosen, how to do it again."""

import math

from studio.core.model import Model
from studio.core.planning.plan import Prediction
from studio.core.reporting.pages import markdown, size_text
from studio.core.statistics.digest import model_digest

BUDGET = "## What the budget bought"


def budget_lines(told: Prediction, model: Model, layout: str) -> list[str]:
    """The best mixes and single formats by size beside the one that was chosen, and the recipe for a layout by name."""
    chosen = told.damage if told.kl is None else told.kl
    noise = f" ± {told.noise:.2g}" if told.noise else ""
    rows = [(nbytes, f"{markdown(name)} everywhere", f"{lost:.4g}") for name, nbytes, lost in told.singles]
    rows += [(nbytes, "best mix", f"{lost:.4g}") for nbytes, lost in told.curve]
    rows.append((told.nbytes, "**this mix**", f"**{chosen:.4g}{noise}**"))
    return [
        BUDGET,
        "",
        f"Each group of layers has the format and method with which all of them together lose least in "
        f"{size_text(told.nbytes)}: where a byte more or less pays best. {_MEANING[told.kl is not None]}",
        "",
        f"| plan | size | bits per weight | {told.unit} |",
        "|---|---:|---:|---:|",
        *(
            f"| {what} | {size_text(nbytes)} | {8 * nbytes / max(model.count, 1):.3f} | {lost} |"
            for nbytes, what, lost in sorted(rows, key=lambda row: row[0])
        ),
        "",
        "```",
        *_commands(told, model, layout),
        "```",
        "",
        f"{', '.join(_digests(told, model))}. `nvfp4_studio.json` holds the plan.",
        "",
    ]


_MEANING = {
    True: "KL to the source per token in nats is predicted from short runs of parts of the model; ± is one standard "
    "error by the text of these runs. What was measured, if anything, stands below.",
    False: "Damage is the squared error of the outputs of layers over their squares, added up.",
}


def _commands(told: Prediction, model: Model, layout: str) -> list[str]:
    known = " --statistics STATS" if told.statistics else ""
    probes = " --probe" + (" --text TEXT" if told.texts else "") if told.kl is not None else ""
    bits = math.ceil(8e9 * told.nbytes / max(model.count, 1)) / 1e9
    return [
        f"nvfp4-studio plan SRC --bits {bits:.9f} --layout {layout}{known}{probes} --out plan.json",
        f"nvfp4-studio quantize SRC DST --layout {layout} --plan plan.json{known}",
        f"nvfp4-studio evaluate SRC --plans plan.json{known}",
    ]


def _digests(told: Prediction, model: Model) -> list[str]:
    found = [f"SRC {model_digest(model)[:16]}"]
    found += [f"STATS {told.statistics[:16]}"] if told.statistics else []
    return found + [f"TEXT {markdown(name)} {digest[:16]}" for name, digest in told.texts]
