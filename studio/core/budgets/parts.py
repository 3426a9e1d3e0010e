"""Parts: decisions of one kind whose damage is alike, and whose sensitivity is found together.

What a mix leaves in few bits is what looks harmless. Layers that see a few tokens with huge inputs, as the first one
has in many models, look so: next to these, what is lost of all other tokens is small. Their damage is a fraction of
that of others of their kind, and does many times as much for its size; one sensitivity for both would be wrong for
each. Where damages are alike, parts are stretches of the depth.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from studio.core.budgets.costs import Costs
from studio.core.budgets.decisions import KEPT, Decision, Option
from studio.core.planning.plan import KEEP

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST_PARTS = 24
"""Sets of layers whose sensitivity is found apart."""

_DEPTH = 0.1
"""How far the first block is from the last one, beside damages of which one is e times the other."""

_LEAST_GAIN = 1e-9

_COARSE = 1.125
"""How many times the size of its smallest option one may be that counts as few bits."""


def coarse(costs: Costs, item: Decision) -> Option:
    """The option that mixes leave in few bits: of those not much larger than the smallest, that with least damage.

    KEPT where there is none but to keep it. What a part does in another option of few bits tells less: one that knows
    nothing of the inputs does its harm elsewhere.
    """
    damages, _ = costs.damages(item)
    known = [n for n, option in enumerate(item.options) if option.format != KEEP and np.isfinite(damages[n])]
    most = _COARSE * min((item.options[n].nbytes for n in known), default=0)
    small = (n for n in known if item.options[n].nbytes <= most)
    best = min(small, key=lambda number: float(damages[number]), default=None)
    return KEPT if best is None else item.options[best]


def part_names(costs: Costs, most: int = MOST_PARTS) -> list[str]:
    """The part that each decision belongs to, of each kind those of the least damage first.

    There are at most `most` parts, or as many as there are kinds.
    """
    items = costs.decisions.items
    places = _places(costs)
    kinds: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        kinds[item.kind].append(number)
    parts = _cut([np.array(members) for members in kinds.values()], places, most)
    found = [""] * len(items)
    for kind in kinds:
        mine = [part for part in parts if items[part[0]].kind == kind]
        for number, part in enumerate(sorted(mine, key=lambda part: places[part].mean(axis=0).tolist()), 1):
            for place in part.tolist():
                found[place] = f"{kind} {number}/{len(mine)}"
    return found


def _places(costs: Costs) -> Floats:
    """Where decisions lie beside each other, [decisions, 2]: by the logarithm of damage, and by depth."""
    items = costs.decisions.items
    options = [coarse(costs, item) for item in items]
    known = zip(items, options, strict=True)
    damages = np.array([0.0 if option is KEPT else costs.damage(item, option) for item, option in known])
    depths = np.array([-1.0 if item.block is None else item.block for item in items])
    least = damages[damages > 0].min(initial=1.0)
    span = np.ptp(depths) or 1.0
    return np.stack([np.log(np.maximum(damages, least)), _DEPTH * depths / span], axis=1)


def _cut(parts: list[Integers], places: Floats, most: int) -> list[Integers]:
    """The parts, those with the widest spread divided until there are `most`."""
    cuts = [_best_cut(part, places) for part in parts]
    while len(parts) < most:
        widest = max(range(len(parts)), key=lambda number: cuts[number][0])
        gain, left, right = cuts[widest]
        if gain <= _LEAST_GAIN:
            break
        parts = [*parts[:widest], left, right, *parts[widest + 1 :]]
        cuts = [*cuts[:widest], _best_cut(left, places), _best_cut(right, places), *cuts[widest + 1 :]]
    return parts


def _best_cut(part: Integers, places: Floats) -> tuple[float, Integers, Integers]:
    """By how much less squares of distances to the middles add up to in two parts, and these."""
    best = 0.0, part, part[:0]
    whole = _spreads(places[part])[-1]
    for along in range(places.shape[1]):
        order = part[np.argsort(places[part, along], kind="stable")]
        before, after = _spreads(places[order]), _spreads(places[order[::-1]])[::-1]
        gains = whole - before[:-1] - after[1:]
        if len(gains) and gains.max() > best[0] + _LEAST_GAIN:
            at = int(gains.argmax()) + 1
            best = float(gains.max()), order[:at], order[at:]
    return best


def _spreads(places: Floats) -> Floats:
    """Squares of distances to the middle of the first 1, 2, ... places, added up."""
    centred = places - places.mean(axis=0)
    counts = np.arange(1, len(places) + 1)[:, None]
    found: Floats = (np.cumsum(centred**2, axis=0) - np.cumsum(centred, axis=0) ** 2 / counts).sum(axis=1)
    return found
