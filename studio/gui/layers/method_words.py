"""What is said of methods: what one looks at, why a layer takes another than the one asked for; no Qt."""

from pathlib import Path

from studio import core

NEEDS = {
    "importance": "the size of each input column",
    "moments": "how input columns of a block vary together",
    "factor": "how all input columns vary together",
}
GAIN = "Statistics of this model's inputs would lower the damage further: Run ▸ Calibrate…"


def method_lines(choice: core.Choice, wanted: str, statistics: Path | None) -> list[str]:
    """What the method of a layer looks at, where its inputs are known from, and why it is not the one `wanted`."""
    row = core.method_of(choice.method)
    guide = choice.guide
    seen = f"Inputs are known from {_origin(guide.origin, statistics)}." if guide else ""
    if choice.layer.guide is None:
        seen = "Nothing is known of its inputs."
    instead = [why_not(choice, wanted)] if wanted != choice.method else []
    return [line for line in (f"{row.name}: {row.title}", seen, *instead) if line]


def _origin(origin: str, statistics: Path | None) -> str:
    named = core.printable(statistics.name, 60) if statistics else "a file"
    return f"statistics {named}" if origin == "statistics" else f"the {origin} in front"


def plan_lines(method: str, statistics: Path | None) -> list[str]:
    """What the method of a plan does, and which statistics it may look at."""
    told = f"Statistics in use: {core.printable(statistics.name, 60)}" if statistics else GAIN
    return [f"{method}: {core.method_of(method).title}", told]


def why_not(choice: core.Choice, wanted: str) -> str:
    """Why a layer that is quantized takes another method than `wanted`."""
    need, guide = core.method_of(wanted).needs, choice.layer.guide
    if need and need not in (guide.known if guide else ()):
        return f"{wanted} needs to know {NEEDS[need]}: {choice.method} takes its place."
    return f"{choice.format} has no {wanted}: {choice.method} takes its place."
