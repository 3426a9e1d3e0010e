"""Several: what to say when more than one checkpoint is dropped or given, as a window shows one."""

from collections.abc import Callable, Sequence
from pathlib import Path

from studio import core
from studio.gui.shell.cards import Message

LISTED = 5


def about_several(paths: Sequence[Path], compare: Callable[[Path, Path], object] | None) -> Message:
    """Says that the first of `paths` is opened and the others are not; offers to `compare` two exports, if it can."""
    rest = [core.printable(path.name, 60) for path in paths[1:]]
    more = f" and {len(rest) - LISTED:,} more" if len(rest) > LISTED else ""
    text = f"{core.printable(paths[0].name, 60)} is opened. Not opened: {', '.join(rest[:LISTED])}{more}."
    if compare is not None:
        hint = "Both are exports of the same layers: compare them layer by layer."
        fix = ("Compare them", lambda: compare(paths[0], paths[1]))
        return Message("info", "One window shows one checkpoint", text, hint, fixes=(fix,))
    hint = "Drop one at a time, or start nvfp4-studio --new for another window."
    return Message("warning", "One window shows one checkpoint", text, hint)


def of_same_layers(exports: Sequence[Sequence[core.LayerResult]]) -> bool:
    """True when all exports hold the same layers."""
    return len({frozenset((layer.name, layer.shape) for layer in results) for results in exports}) == 1
