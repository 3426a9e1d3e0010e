"""Fitting: choices changed to what the readers of a layout can load, each with the reason."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from kernels import recipe
from studio.core.architectures.family import pattern
from studio.core.counting import counted
from studio.core.names import printable
from studio.core.planning.plan import KEEP, Choice


def changes(before: Sequence[Choice], after: Sequence[Choice]) -> list[str]:
    """A sentence per reason for which choices were changed, with their number and an example."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for old, new in zip(before, after, strict=True):
        if old.format != new.format:
            found[new.format, new.reason].append(printable(new.layer.name))
    return [
        f"{_layers(names)} {'kept' if name == KEEP else f'stored as {name}'}: {reason}"
        for (name, reason), names in found.items()
    ]


def _layers(names: Sequence[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{counted(len(names), 'layer')} like {names[0]} are"


def named(choice: Choice, text: str) -> bool:
    """True when a quantized layer, or one of its matrices, matches the regular expression `text`."""
    if not text or choice.recipe is None:
        return False
    found = pattern(text)
    return bool(found.search(choice.layer.name) or any(found.search(m.name) for m in choice.layer.matrices[:1]))


def kept(choice: Choice, reason: str) -> Choice:
    """The choice with its layer kept, because of `reason`."""
    return replace(choice, recipe=None, multipliers=(), input_scales=(), rounds_inputs=False, reason=reason)


def with_format(choice: Choice, name: str, reason: str) -> Choice:
    """The choice with another format, because of `reason`."""
    exponent, method = (choice.recipe.exponent, choice.recipe.method) if choice.recipe else ("ceil", "max")
    found = recipe(name, exponent, method)
    multipliers = choice.multipliers if found.format.tensor_scale else ()
    return replace(choice, recipe=found, multipliers=multipliers, reason=reason)


def whole_tiles(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """The choices as vLLM takes tiles: never cut off along a row, nor over two matrices that it joins."""
    return tuple(kept(c, f"vLLM runs {c.format} in whole tiles only") if _is_cut(c) else c for c in choices)


def _is_cut(choice: Choice) -> bool:
    if choice.recipe is None or choice.recipe.format.scale != "float32":
        return False
    down, across = (edge or 1 for edge in choice.recipe.format.tile)
    joined = [matrix for matrix in choice.layer.matrices if matrix.group or matrix.expert is not None]
    return any(m.rows % down for m in joined) or any(m.columns % across for m in choice.layer.matrices)


def whole_groups(choices: Sequence[Choice], title: str) -> tuple[Choice, ...]:
    """The choices with no fused group and no set of experts quantized in part: the rest of it is kept, too."""
    fitted = tuple(choices)
    while broken := _broken_groups(fitted):
        fitted = tuple(
            kept(choice, f"{title} loads it as one with {other}, which is kept")
            if choice.recipe and (other := next(filter(None, map(broken.get, _keys(choice))), None))
            else choice
            for choice in fitted
        )
    return fitted


def _broken_groups(choices: Sequence[Choice]) -> dict[str, str]:
    """The groups that are quantized in part, each with the name of a member that is kept."""
    kept_member: dict[str, str] = {}
    quantized: set[str] = set()
    for choice in choices:
        for key in _keys(choice):
            if choice.recipe is None:
                kept_member.setdefault(key, choice.layer.name)
            else:
                quantized.add(key)
    return {key: name for key, name in kept_member.items() if key in quantized}


def mixed_groups(choices: Sequence[Choice], title: str) -> list[str]:
    """A sentence per fused group or set of experts whose members have different formats."""
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for choice in choices:
        for key in _keys(choice) if choice.recipe else ():
            groups[key].setdefault(choice.format, choice.layer.name)
    return [
        f"{title} loads {' and '.join(found.values())} as one, which {' and '.join(found)} can not be"
        for found in groups.values()
        if len(found) > 1
    ]


def _keys(choice: Choice) -> list[str]:
    layer = choice.layer
    stacks = {matrix.stack for matrix in layer.matrices[:1] if matrix.expert is not None}
    return [*([f"group {layer.group}"] if layer.group else []), *(f"experts of {stack}" for stack in stacks)]
