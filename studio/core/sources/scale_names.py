"""How the world names scales: of weights, of activations and caches, and what only looks like one."""

import re
from collections import defaultdict
from collections.abc import Iterable

_ACTIVATION = re.compile(
    r"(^|[._])(input_scale|input_scale_ub|input_global_scale|input_zero_point|activation_scale|activation_scale_ub"
    r"|output_scale|qscale_act|[qkv]_scale|kv_scale|kv_cache_scale|prob_scale)$"
)
_WEIGHT = re.compile(r"(^|[._])(weight_scale|weight_scale_inv|qscale_weight)$|_scale_inv$")
_SUSPECT = re.compile(r"scale|zero_point|amax")
_SUFFIXES = ("_scale_inv", "_scale")


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
    """Tensors whose names speak of scales, by module."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_module: dict[str, list[str]] = defaultdict(list)
        for name in names:
            module, _, leaf = name.rpartition(".")
            if _SUSPECT.search(leaf):
                self._by_module[module].append(name)

    def every(self) -> list[str]:
        """All of them."""
        return [name for names in self._by_module.values() for name in names]

    def beside(self, weight: str) -> list[str]:
        """Those that may tell something of a weight, activations left out."""
        module, _, leaf = weight.rpartition(".")
        near = self._by_module.get(module, [])
        if leaf != "weight":
            near = [*self._by_module.get(weight, []), *(name for name in near if name.startswith(f"{weight}_"))]
        return [name for name in near if not is_activation_scale(name)]
