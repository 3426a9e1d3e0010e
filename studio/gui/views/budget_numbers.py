"""Numbers of a budget: what a mix is made of, and what changes between two of them."""

from collections.abc import Sequence

from studio import core
from studio.gui.views.figure import Figure

UNLIKE = "The plan divides layers that are joined here: press Mark, move the budget, and see what changes."


def parts(planner: core.Planner, mix: core.Mix, there: core.Mix | None, where: str) -> Figure:
    """What a mix gives to how many layers, and how many have it in the mix that is `there`, called `where`."""
    had = {name: layers for name, layers, _ in planner.shares(there)} if there else {}
    rows: list[Sequence[object]] = [
        (name, layers, nbytes, had.pop(name, 0) if there else "") for name, layers, nbytes in planner.shares(mix)
    ]
    rows += [(name, 0, 0, layers) for name, layers in had.items()]
    return Figure("Budget", ("format and method", "layers", "bytes", f"layers {where}"), rows)


def what_changes(changes: Sequence[core.Change] | None, where: str, unit: str) -> Figure:
    """Changes from what is called `where`, None where that is no mix; `unit` is what their damage is counted in."""
    if changes is None:
        return Figure("What changes", ("nothing to compare with",), [(UNLIKE,)])
    heads = ("layer", "blocks", where, "here", "layers", "bytes more", f"{unit} more")
    rows = [(c.kind, c.blocks, c.old, c.new, len(c.layers), c.nbytes, c.damage) for c in changes]
    return Figure("What changes", heads, rows)
