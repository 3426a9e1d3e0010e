"""How the world names scales: of weights, of activations and caches, and what only looks like one."""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, takewhile

_ACTIVATION = re.compile(
    r"(^|[._])(input_scale|input_scale_2|input_scale_ub|input_global_scale|input_zero_point"
    r"|activation_scale|activation_scale_ub|output_scale|qscale_act|[qkv]_scale|kv_scale|kv_cache_scale|prob_scale)$"
)
_WEIGHT = re.compile(r"(^|[._])(weight_scale|weight_scale_inv|qscale_weight)$|_scale_inv$")
_SUSPECT = re.compile(r"scale|zero_point|amax|lora")
_SUFFIXES = ("_weight_scale", "_scale_inv", "_scale")


def scale_names(weight: str) -> list[str]:
    """Names that the scale of a weight can have: DeepSeek's, Mistral's own, and those of fused experts among them."""
    names = [weight + suffix for suffix in _SUFFIXES]
    if weight.endswith(".weight"):
        module = weight.removesuffix("weight")
        names += [f"{module}scale", f"{module}qscale_weight"]
    return names


def owner_of(scale: str) -> str:
    """The weight that a scale would belong to by its name."""
    suffix = next((suffix for suffix in _SUFFIXES if scale.endswith(suffix)), "")
    return scale.removesuffix(suffix) if suffix else f"{scale.rpartition('.')[0]}.weight"


def is_weight_scale(name: str) -> bool:
    """True for names that only scales of weights have; `.scale` is the name of many a parameter."""
    return bool(_WEIGHT.search(name))


def is_activation_scale(name: str) -> bool:
    """True for scales of activations and of caches, which a weight does not need."""
    return bool(_ACTIVATION.search(name))


class Suspects:
    """Tensors whose names speak of scales, by module; those of activations and caches apart."""

    def __init__(self, names: Iterable[str]) -> None:
        self.idle: list[str] = []
        self._by_module: dict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            module, _, leaf = name.rpartition(".")
            if _SUSPECT.search(leaf):
                (self.idle if is_activation_scale(name) else self._by_module[module]).append(name)

    def of_weights(self) -> Iterator[str]:
        """All that may tell something of a weight."""
        return chain.from_iterable(self._by_module.values())

    def in_module(self, weight: str) -> Iterator[str]:
        """Those in the module of a weight."""
        return iter(self._by_module.get(weight.rpartition(".")[0], ()))

    def beside(self, weight: str) -> Iterator[str]:
        """Those that are named after a weight, or after its module where it is the `weight` of one."""
        if weight.rpartition(".")[2] == "weight":
            return self.in_module(weight)
        near = self._by_module.get(weight.rpartition(".")[0], [])
        longer = (near[place] for place in range(bisect_left(near, f"{weight}_"), len(near)))
        named = takewhile(lambda name: name.startswith(f"{weight}_"), longer)
        return chain(self._by_module.get(weight, ()), named)
