"""Exact lifting: powers of two moved between tensors, so that two tiers lose no more than three.

A norm in front of matrices is divided by what they are multiplied by, the outputs of a matrix are divided by what the
inputs of its reader are multiplied by. Powers of two change no bit of a significand: the model computes the same.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kernels import FORMATS
from studio.core.counting import counted
from studio.core.errors import PlanError
from studio.core.model import Model
from studio.core.names import printable
from studio.core.planning.lift_groups import Group, Product, lift_groups
from studio.core.planning.plan import Choice

LIFTED = "nvfp4-2t"
"""The format that gains: its block scales are E4M3 numbers alone."""

LARGEST = 6 * 448 / 2
"""Largest weight after lifting: an octave is left for methods that choose larger scales than max/6."""

REACH = 40
"""Exponents -40 .. 40 are tried."""

_EXPONENTS = np.arange(-REACH, REACH + 1)
PER_OCTAVE = 1e-6
"""What an octave costs in relative squared error, of which four bits have 0.009: what gains less stays as it is."""


@dataclass(frozen=True, slots=True)
class Lifting:
    """exponents: layer name -> power of two that it is multiplied by. refused: layer name -> why it is not lifted."""

    exponents: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def cautions(self) -> list[str]:
        """What users of what was lifted must know."""
        if not self.exponents:
            return []
        return [
            "lifted: values between layers are smaller by powers of two: run it neither in float16 "
            "nor with a cache of 8-bit floats"
        ]

    def sentences(self) -> list[str]:
        """What was lifted, and a sentence for each reason for which something was not."""
        found = []
        if self.exponents:
            low, high = min(self.exponents.values()), max(self.exponents.values())
            tensors = counted(len(self.exponents), "tensor")
            found.append(f"{tensors} multiplied by powers of two, 2**{low} to 2**{high}, that undo each other")
        else:
            found.append(f"nothing is lifted: no layer in {LIFTED} would lose less")
        return found + _refusals(self.refused)


def _refusals(refused: Mapping[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for name, reason in refused.items():
        reasons[reason].append(printable(name))
    return [f"{_layers(names)} not lifted: {reason}" for reason, names in reasons.items()]


def _layers(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{counted(len(names), 'layer')} like {names[0]}"


@dataclass(frozen=True, slots=True)
class Magnitudes:
    """Sizes of the weights of a layer, or of a part of it.

    smallest, largest: exponents of the smallest other than zero and of the largest, -127 for those below 2**-126;
    peak: the largest, 0 when all are zero. octaves: exponent -> blocks of 16 whose largest weight has it. finite: False
    when there is NaN or Inf, and nothing else is known then.
    """

    smallest: int = 128
    largest: int = -127
    peak: float = 0.0
    octaves: Mapping[int, int] = field(default_factory=dict)
    finite: bool = True

    def merged(self, other: "Magnitudes") -> "Magnitudes":
        """Those of both parts together."""
        return Magnitudes(
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
            max(self.peak, other.peak),
            Counter(self.octaves) + Counter(other.octaves),
            self.finite and other.finite,
        )


def check_liftable(choices: Sequence[Choice]) -> None:
    """Raise PlanError for formats that have a tensor scale, or when no layer can gain."""
    chosen = [choice for choice in choices if choice.recipe]
    if scaled := next((choice for choice in chosen if choice.recipe and choice.recipe.format.tensor_scale), None):
        what = f"--lift is for formats without a tensor scale, {printable(scaled.layer.name)} is in {scaled.format}"
        raise PlanError(what, hint=f"--format {LIFTED}, or leave --lift out: a tensor scale does all that it could do")
    if not any(choice.format == LIFTED for choice in chosen):
        raise PlanError(f"--lift has nothing to do: no layer is in {LIFTED}", hint=f"--format {LIFTED}")


def exponents(group: Group, formats: Mapping[str, str], sizes: Mapping[str, Magnitudes]) -> dict[str, int]:
    """The exponents that let the block scales of a group lose least: layer name -> power of two, zeros left out.

    formats: format of each layer, sizes: of every layer of the group.
    """
    costs = {layer.name: _costs(formats.get(layer.name, ""), sizes[layer.name]) for layer in group.layers}
    given = {product.giver.name for product in group.products}
    total = _reversed_sum(costs[layer.name] for layer in group.norm)
    for layer in group.readers:
        if layer.name not in given:
            total = total + costs[layer.name]
    best = [_best_products(costs, product) for product in group.products]
    for cost, _ in best:
        total = total + cost
    at = int(np.argmin(total))
    lift = int(_EXPONENTS[at])
    found = {layer.name: -lift for layer in group.norm} | {layer.name: lift for layer in group.readers}
    for product, (_, inner) in zip(group.products, best, strict=True):
        found |= _product_exponents(product, lift, int(inner[at]))
    return {name: exponent for name, exponent in found.items() if exponent}


def _product_exponents(product: Product, lift: int, inner: int) -> dict[str, int]:
    """What the two matrices of a product are multiplied by: `inner` moves from the giver to the reader."""
    biases = {bias.name: -inner for bias in product.biases}
    return {product.giver.name: lift - inner, product.reader.name: inner} | biases


def _best_products(
    costs: Mapping[str, NDArray[np.float64]], product: Product
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each exponent of the norm: the least cost of the product, and the exponent of its reader that has it."""
    moved = costs[product.reader.name] + _reversed_sum(costs[bias.name] for bias in product.biases)
    padded = np.pad(costs[product.giver.name], 2 * REACH, constant_values=np.inf)
    places = _EXPONENTS[:, None] - _EXPONENTS[None, :] + 3 * REACH
    table = padded[places] + moved[None, :]
    inner = table.argmin(axis=1)
    return table[np.arange(len(table)), inner], _EXPONENTS[inner]


def _reversed_sum(costs: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The cost, by exponent, of what is divided by what the others are multiplied by."""
    total: NDArray[np.float64] = sum((cost[::-1] for cost in costs), np.zeros(len(_EXPONENTS)))
    return total


def _costs(format_name: str, sizes: Magnitudes) -> NDArray[np.float64]:
    """What each exponent costs a layer, infinite where it would change a bit of a significand or saturate a scale."""
    low, high = _range(format_name, sizes)
    costs = PER_OCTAVE * np.abs(_EXPONENTS)
    if format_name == LIFTED and sizes.octaves:
        costs = costs + _lost(sizes.octaves)
    costs[: max(REACH + min(low, 0), 0)] = np.inf
    costs[REACH + max(high, 0) + 1 :] = np.inf
    return costs


def _range(format_name: str, sizes: Magnitudes) -> tuple[int, int]:
    if not sizes.finite:
        return 0, 0
    if not sizes.peak:
        return -REACH, REACH
    low, high = -126 - sizes.smallest, 127 - sizes.largest
    if format_name == LIFTED:
        high = min(high, math.floor(math.log2(LARGEST / sizes.peak)))
    elif format_name in FORMATS and FORMATS[format_name].affine:
        low = 0  # their scale has a least value
    return low, high


def _lost(octaves: Mapping[int, int]) -> NDArray[np.float64]:
    """Estimated relative squared error, by exponent, that block scales below 2**-6 add.

    Their step is 2**-9 there; a scale that is off by a share r adds about r**2 / 64, and a block that vanishes all.
    """
    exponent = np.array(list(octaves), np.float64)
    energy = np.array(list(octaves.values())) * 4.0 ** (exponent - exponent.max())
    scale = exponent[None, :] + _EXPONENTS[:, None] - 2  # of max|w| / 6, rounded to a power of two
    share = np.where(scale < -6, np.minimum(4.0 ** np.minimum(-9 - scale, 4) / 64, 1), 0)
    lost: NDArray[np.float64] = share @ energy / energy.sum()
    return lost


def liftable(model: Model, choices: Sequence[Choice]) -> list[str]:
    """How many of the layers that gain may be lifted, and why the others are not. Raises PlanError."""
    check_liftable(choices)
    groups, refused = lift_groups(model)
    names = {choice.layer.name for choice in choices if choice.format == LIFTED}
    reached = names & {layer.name for group in groups for layer in group.layers}
    count = f"{len(reached):,} of {counted(len(names), 'layer')} in {LIFTED} may be lifted"
    told = [f"{count}; quantize --lift --dry-run reads them and says how far"]
    return told + _refusals({name: why for name, why in refused.items() if name in names})


def lifted(model: Model, choices: Sequence[Choice], lifting: Lifting) -> tuple[Model, tuple[Choice, ...]]:
    """The model and the choices with layers multiplied by their powers of two, and the reason where one is not."""
    layers = tuple(replace(layer, lift=lifting.exponents.get(layer.name, 0)) for layer in model.layers)
    by_name = {layer.name: layer for layer in layers}
    found = (replace(choice, layer=by_name[choice.layer.name]) for choice in choices)
    return replace(model, layers=layers), tuple(_told(choice, lifting.refused) for choice in found)


def _told(choice: Choice, refused: Mapping[str, str]) -> Choice:
    why = refused.get(choice.layer.name)
    return replace(choice, reason=choice.reason or f"not lifted: {why}") if why else choice


def unbalanced(model: Model, powers: Mapping[str, int]) -> str:
    """The name of a layer whose power of two nothing undoes, "" when all of them cancel."""
    left = dict(powers)
    for group in lift_groups(model)[0]:
        for name, exponent in balanced(group, powers).items():
            if left.pop(name, 0) != exponent:
                return name
    return next((name for name, exponent in left.items() if exponent), "")


def balanced(group: Group, powers: Mapping[str, int]) -> dict[str, int]:
    """The exponents of a group that follow from those of its norm and of the readers of its products."""
    lift = -powers.get(group.norm[0].name, 0)
    found = {layer.name: -lift for layer in group.norm} | {layer.name: lift for layer in group.readers}
    for product in group.products:
        found |= _product_exponents(product, lift, powers.get(product.reader.name, 0))
    return found
