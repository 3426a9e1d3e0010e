"""The results as lines for the console, and what they come to."""

from collections import Counter
from collections.abc import Sequence

from tests.interop.judging import NOT_INSTALLED, Result


def line(result: Result) -> str:
    """One line for a result; one that is not as it should be is marked."""
    what = f"{result.what}{f' {result.reason}' if result.reason else ''}"
    package = f"{result.package} {result.version}"
    tensors = f"{result.tensors:4} tensors" if result.tensors else ""
    mark = "" if result.is_right else " <- WRONG"
    return f"{package:28} {result.case:32} {tensors:13} {what}{mark}{f'  [{result.stored}]' if result.stored else ''}"


def totals(results: Sequence[Result]) -> str:
    """Counts of what became of them."""
    counts = Counter(result.what for result in results)
    skipped = sorted({result.package for result in results if result.what == NOT_INSTALLED})
    wrong = sum(not result.is_right for result in results)
    lines = [f"skipped, as it could not be installed: {', '.join(skipped)}"] if skipped else []
    said = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    return "\n".join([*lines, f"{len(results)} checkpoints: {said}; {wrong} wrong"])
