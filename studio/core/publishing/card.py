"""The model card of a repository: that of the export, with what a hub reads in front and what an evaluation found."""

import json
from collections.abc import Iterable

from studio.core.errors import PlanError
from studio.core.layouts import Layout
from studio.core.names import is_plain_path, printable
from studio.core.quality.results import Quality
from studio.core.reporting.pages import markdown
from studio.core.reporting.report import TABLE, TOKENS, quality_lines

LIBRARIES = {"mlx-lm": "mlx", "mlx-vlm": "mlx", "transformers": "transformers", "vllm": "vllm"}
"""Runtime -> how a hub calls its library."""


def check_base_model(name: str) -> None:
    """Raise PlanError unless `name` is that of a repository, ORG/NAME, or ""."""
    if name and not (name.count("/") == 1 and is_plain_path(name) and name.isascii() and name.isprintable()):
        raise PlanError(f"{printable(name)} is no name of a repository", hint="give the base model as ORG/NAME")


def hub_card(card: str, layout: Layout, formats: Iterable[str], base_model: str, quality: Quality | None) -> bytes:
    """README.md of a repository, from that of the export in these formats.

    Raises PlanError for an evaluation of another model.
    """
    lines = card.split("\n")
    if quality:
        lines = _evaluated(lines, quality)
    if base_model:
        lines.insert(
            _first(lines, "- "), f"- Base model: [{markdown(base_model)}](https://huggingface.co/{base_model})"
        )
    return "\n".join([*_front(layout, sorted(set(formats)), base_model), *lines]).encode()


def _front(layout: Layout, formats: list[str], base_model: str) -> list[str]:
    """What a hub reads; texts are written as JSON, which YAML is as well."""
    library = next((LIBRARIES[reader] for reader in layout.readers if reader in LIBRARIES), "")
    told = {
        "base_model": base_model,
        "base_model_relation": "quantized" if base_model and formats else "",
        "library_name": library,
        "tags": ["nvfp4-studio", *dict.fromkeys(name.partition("-")[0] for name in formats)],
    }
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in told.items() if value), "---", ""]


def _evaluated(lines: list[str], quality: Quality) -> list[str]:
    """The lines with what an evaluation found, in the place of what an earlier one did."""
    source = quality.source.name if quality.source else ""
    if lines[0] != f"# {markdown(source)}, quantized":
        hint = "evaluate it with --against SRC, and give what --out wrote"
        raise PlanError(f"the evaluation is of {printable(source or 'a model without its source')}", hint=hint)
    table = _first(lines, TABLE)
    start = lines.index(TOKENS) if TOKENS in lines else table
    return [*lines[:start], *quality_lines(quality), *lines[table:]]


def _first(lines: list[str], start: str) -> int:
    return next(i for i, line in enumerate(lines) if line.startswith(start))
