"""What choices come to, in words: their formats and methods, those of most weights first."""

from collections import Counter
from collections.abc import Callable, Iterable

from studio.core.planning.plan import Choice


def formats_of(choices: Iterable[Choice]) -> str:
    """The formats, of weights and of inputs where these are quantized too; "" where nothing is quantized."""
    return _ranked(choices, _format_of)


def _format_of(choice: Choice) -> str:
    if not choice.input_scales and not choice.rounds_inputs:
        return choice.format
    return f"{choice.format} with inputs in {'fp8' if choice.format.startswith('fp8') else 'fp4'}"


def methods_of(choices: Iterable[Choice]) -> str:
    """The methods, "" where nothing is quantized."""
    return _ranked(choices, lambda choice: choice.method)


def _ranked(choices: Iterable[Choice], name: Callable[[Choice], str]) -> str:
    counts: Counter[str] = Counter()
    for choice in choices:
        if choice.recipe:
            counts[name(choice)] += choice.layer.count
    return ", ".join(found for found, _ in counts.most_common())
