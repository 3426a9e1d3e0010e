"""The methods as data: how the codes of a weight are chosen, and what each must know of the layer's inputs."""

from dataclasses import dataclass
from typing import Literal

Need = Literal["", "importance", "moments", "factor"]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to choose scales and codes; the file's format is the same for all.

    `needs`: what of a `Context` it works with. A matrix without that is quantized by `otherwise`.
    """

    name: str
    title: str
    needs: Need = ""
    otherwise: str = ""


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method("max", "the largest weight of a block becomes the largest code"),
        Method("four-six", "the largest weight becomes code 6 or 4, whichever has the smaller squared error"),
        Method("search", "the block scale with the smallest squared error, of eight around that of max"),
        Method("importance", "as search, each column weighted by its mean square input", "importance", "search"),
        Method(
            "hessian",
            "as search, by the squared error of the output of each block, whose codes are then gone over once more",
            "moments",
            "importance",
        ),
        Method(
            "feedback", "scales as hessian, then each column makes up for the errors of the others", "factor", "hessian"
        ),
    )
}
"""In the order of what they cost."""

STORED = "stored"
"""In place of a method, for codes that are taken over from a checkpoint as they are."""

_TAKEN_OVER = Method(STORED, "codes and scales as the checkpoint has them")


def method_of(name: str) -> Method:
    """The method called `name`, or what stands in its place. Raises KeyError for an unknown one."""
    return _TAKEN_OVER if name == STORED else METHODS[name]


def settled(method: str, scale: str, bits: int) -> str:
    """What a method comes to in a format whose scales are `scale` and whose codes have `bits` bits.

    E4M3 scales (NVFP4) take every method; others have only `search` beside `max`, and eight-bit floats `max` alone.
    Integers are searched only when that is asked for: nearer weights were worse in tokens on one model of two.
    Raises ValueError for an unknown method.
    """
    if method == STORED:
        return STORED
    if method not in METHODS:
        raise ValueError(f"[recipe] unknown method {method!r}, choose one of {', '.join(METHODS)}")
    if scale == "e4m3" or method == "max":
        return method
    if scale == "float32":
        return "max"
    if scale == "e8m0":
        return "max" if bits == 8 else "search"
    return "search" if method == "search" else "max"


def available(method: str, known: frozenset[str]) -> str:
    """The method that is used where only `known` of a `Context` is there."""
    while METHODS[method].needs and METHODS[method].needs not in known:
        method = METHODS[method].otherwise
    return method
