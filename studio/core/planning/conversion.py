"""Transcoding: what a conversion does with every layer, and what it would lose."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from kernels import Format
from studio.core.counting import counted
from studio.core.errors import PlanError
from studio.core.model import Model
from studio.core.names import printable
from studio.core.planning.plan import Choice
from studio.core.sources.plain import PLAIN_BITS, Plain


@dataclass(frozen=True, slots=True)
class Loss:
    """What rounding the decoded weights of a layer to the dtype that it is kept in loses."""

    layer: str
    stored: str
    dtype: str
    exact: float
    rel_err: float

    def __str__(self) -> str:
        return f"{self.exact:.1%} of its weights are exact in {self.dtype}, relative error {self.rel_err:.2g}"


@dataclass(frozen=True, slots=True)
class Transcoding:
    """What a conversion does with every layer, and what it would lose; `reader` is the runtime that it is for.

    rounded_scales: tensor scales g that readers of the layout compute one unit in the last place of float32 off.
    inputs: why the scales of inputs that the checkpoint has are left out, if they are.
    """

    choices: tuple[Choice, ...]
    losses: tuple[Loss, ...] = ()
    reader: str = ""
    rounded_scales: int = 0
    inputs: str = ""

    def counts(self) -> dict[str, int]:
        """How many layers keep their codes, are cast, are decoded, and are copied as they are."""
        found = dict.fromkeys(("codes kept", "cast exactly", "decoded", "copied"), 0)
        for choice in self.choices:
            found[_how(choice)] += 1
        return found

    def sentences(self) -> list[str]:
        """What was done with how many layers, and why not all codes were kept."""
        counts = ", ".join(f"{count:,} {how}" for how, count in self.counts().items() if count)
        reasons: dict[str, list[str]] = defaultdict(list)
        for choice in self.choices:
            if choice.recipe is None and choice.layer.widened:
                reasons[choice.reason or choice.layer.source.meaning].append(choice.layer.name)
        why = [
            f"{counted(len(names), 'layer')} decoded, like {printable(names[0])}: {r}" for r, names in reasons.items()
        ]
        lost = [f"{printable(loss.layer)}: {loss}" for loss in self.losses[:3]]
        scales = f"{counted(self.rounded_scales, 'tensor scale')} read one unit in the last place of float32 off"
        return [
            f"layers: {counts}",
            *why,
            *lost,
            *([scales] if self.rounded_scales else []),
            *filter(None, [self.inputs]),
        ]

    def check(self) -> None:
        """Raise PlanError when it loses anything."""
        if not self.losses:
            return
        worst = min(self.losses, key=lambda loss: loss.exact)
        what = f"{counted(len(self.losses), 'layer')} can not be stored without a loss: "
        what += f"{printable(worst.layer)} ({worst.stored}): {worst}"
        raise PlanError(what, hint="--dtype float32 holds what they decode to; --allow-lossy rounds them")


def _how(choice: Choice) -> str:
    if choice.recipe is None:
        return "decoded" if choice.layer.widened else "copied"
    return "codes kept" if choice.recipe.format == choice.layer.source.format else "cast exactly"


def stored_codes(model: Model) -> dict[str, int]:
    """What quantized layers are stored as -> how many are stored so."""
    sources = (layer.source for layer in model.layers)
    codes = (source for source in sources if source.bits < PLAIN_BITS and not isinstance(source, Plain))
    return dict(Counter(source.meaning for source in codes))


def requantized(choices: Sequence[Choice]) -> list[str]:
    """A sentence per kind of codes that are to be chosen anew, though they could be handed on as they are stored."""
    found: dict[str, list[str]] = defaultdict(list)
    casts: dict[str, set[str]] = defaultdict(set)
    for choice in choices:
        own = choice.layer.source.format
        if choice.recipe and not choice.taken_over and own:
            found[choice.layer.source.meaning].append(choice.layer.name)
            casts[choice.layer.source.meaning] |= {choice.format} if _is_cast(own, choice.recipe.format) else set()
    offers: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for meaning, names in found.items():
        way = f"{meaning}: {counted(len(names), 'layer')} like {printable(names[0])}"
        offers[tuple(sorted(casts[meaning]))].append(way)
    return [_requantized(ways, offered) for offered, ways in offers.items()]


def _is_cast(own: Format, chosen: Format) -> bool:
    """True for formats of the same codes, whose block scales can be converted where that is exact."""
    return own != chosen and own.element == chosen.element == "e2m1"


def _requantized(ways: Sequence[str], casts: Sequence[str]) -> str:
    offer = f", or casts them to {' or '.join(casts)} where that is exact" if casts else ""
    what = f"quantized already, as {', as '.join(ways)}; errors are those against what is stored"
    return f"{what}; convert keeps the codes{offer}"
