"""Rules: what was decided, as an ordinary plan, by patterns and ranges of blocks where layers of a kind agree."""

import glob
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from studio.core.budgets.decisions import NUMBER, Decisions, Option
from studio.core.model import Model
from studio.core.planning.plan import KEEP, Choice, Plan, Rule, choose_by_rule, deciding_rules

_REASON = "kept within the budget"


def planned(decisions: Decisions, options: Sequence[Option], name: str = "", title: str = "") -> Plan:
    """The plan that gives each decision its option, by rules before those that the decisions come from."""
    wanted = decisions.choices(options)
    said = {index: str(option) for item, option in zip(decisions.items, options, strict=True) for index in item.layers}
    base = replace(decisions.plan, name=name, title=title)
    plans = (base.preceded_by(tuple(_rules(decisions.model, said, exact=exact))) for exact in (False, True))
    return next(plan for plan in plans if _comes_to(plan, decisions, wanted))


def _comes_to(plan: Plan, decisions: Decisions, wanted: Sequence[Choice]) -> bool:
    found: dict[tuple[int, int], Choice] = {}
    both = zip(deciding_rules(plan, decisions.model), decisions.alike, wanted, strict=True)
    for index, (rule, alike, choice) in enumerate(both):
        if (rule, alike) not in found:
            found[rule, alike] = choose_by_rule(plan, rule, choice.layer)
        recipe = None if index in decisions.settled else choice.recipe
        if found[rule, alike].recipe is not recipe and found[rule, alike].recipe != recipe:
            return False
    return True


def _rules(model: Model, said: Mapping[int, str], *, exact: bool) -> Iterator[Rule]:
    """A rule for each kind of layers and what it gets, in the blocks where all of them get it; names for the rest."""
    alike: dict[str, dict[int, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    names: dict[str, list[str]] = defaultdict(list)
    for index, layer in enumerate(model.layers):
        what = said.get(index, "")
        if layer.block is None:
            names[what].append(layer.name)
        else:
            alike[NUMBER.sub("*", layer.name)][layer.block][what].append(index)
    for kind, blocks in alike.items():
        whole: dict[str, list[int]] = defaultdict(list)
        for block, found in blocks.items():
            if len(found) == 1:
                whole[next(iter(found))].append(block)
                continue
            for what, indices in found.items():
                names[what] += [model.layers[index].name for index in indices]
        for what, where in whole.items():
            if what:
                yield _rule(what, [_pattern(kind, exact=exact)], block_ranges(where) if len(whole) > 1 else "")
    for what, left in names.items():
        if what:
            yield _rule(what, [glob.escape(name) for name in left])


def _rule(what: str, names: Iterable[str], blocks: str = "") -> Rule:
    name, _, method = what.partition("/")
    return Rule(tuple(names), blocks=blocks, format=name, method=method, reason=_REASON if name == KEEP else "")


def _pattern(kind: str, *, exact: bool) -> str:
    """What matches names of a kind, with any numbers; `exact`: with nothing but numbers."""
    parts = kind.split("*")
    return "re:^" + r"\d+".join(map(re.escape, parts)) + "$" if exact else "*".join(map(glob.escape, parts))


def block_ranges(blocks: Iterable[int]) -> str:
    """Blocks as a rule names them: "0-3,7"."""
    runs = groupby(enumerate(sorted(blocks)), lambda pair: pair[1] - pair[0])
    ends = [[block for _, block in run] for _, run in runs]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ends)
