"""What is said of methods: what one looks at, why a layer takes another than the one asked for; no Qt."""

from studio import core

NEEDS = {
    "importance": "the size of each input column",
    "moments": "how input columns of a block vary together",
    "factor": "how all input columns vary together",
}
ORIGINS = {"norm": "the norm in front of it", "statistics": "the statistics in use"}
UNKNOWN = "Nothing is known of its inputs."


def method_lines(choice: core.Choice, wanted: str) -> list[str]:
    """What the method of a layer looks at, where its inputs are known from, and why it is not the one `wanted`."""
    row = core.METHODS[choice.method]
    guide = choice.guide
    seen = f"Inputs are known from {ORIGINS[guide.origin]}." if guide else ""
    instead = [why_not(choice, wanted)] if wanted != choice.method else []
    return [line for line in (f"{row.name}: {row.title}", seen, *instead) if line]


def why_not(choice: core.Choice, wanted: str) -> str:
    """Why a layer that is quantized takes another method than `wanted`."""
    need, guide = core.METHODS[wanted].needs, choice.layer.guide
    if need and need not in (guide.known if guide else ()):
        return f"{wanted} needs to know {NEEDS[need]}: {choice.method} takes its place."
    return f"{choice.format} has no {wanted}: {choice.method} takes its place."
