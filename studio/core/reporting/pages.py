"""Pages: the templates of reports, and how figures are shown in them."""

import math
from typing import TYPE_CHECKING

from studio.core.counting import size_text
from studio.core.names import printable
from studio.core.quality.noise import Estimate
from studio.core.quality.results import Quality
from studio.core.resources import resources

if TYPE_CHECKING:
    from jinja2 import Environment

_LONGEST_BAR = 120
"""Pixels."""


def page_templates() -> "Environment":
    """The templates; what comes from a checkpoint is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(resources() / "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"size": size_text, "printable": printable, "noisy": noisy, "share": _bar}
    return environment


def noisy(found: Estimate, form: str, factor: float = 1, unit: str = "") -> str:
    """A figure times `factor`, and its noise where it is known, as `form` shows both."""
    noise = "" if found.noise is None else f" ± {form.replace('+', '') % (factor * found.noise)}"
    return form % (factor * found.value) + noise + unit


def _bar(kl: Estimate, quality: Quality) -> float:
    """Pixels of the bar of a KL; the largest of the evaluation has the longest."""
    known = [row.kl.value for row in quality.models if row.kl and math.isfinite(row.kl.value)]
    return _LONGEST_BAR * kl.value / max(known) if math.isfinite(kl.value) and max(known, default=0) > 0 else 0.0


def markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\`*{}[]<>#|!" else c for c in printable(text))
