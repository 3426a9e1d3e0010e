"""Comparison of two sets of results over the same layers: two formats, two plans, or two exported folders."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from kernels import FORMATS, METHODS
from studio.core.counting import counted, size_text
from studio.core.planning.plan import KEEP, choice_text
from studio.core.results import LayerResult, finite


@dataclass(frozen=True, slots=True)
class Pair:
    """One layer on both sides: format and method, relative error (0 where it is kept), bytes, and its weights."""

    name: str
    format_a: str
    format_b: str
    error_a: float
    error_b: float
    nbytes_a: int
    nbytes_b: int
    method_a: str = ""
    method_b: str = ""
    count: int = 0

    @property
    def bits(self) -> tuple[float, float]:
        """Bits per weight of both sides."""
        return 8 * self.nbytes_a / max(self.count, 1), 8 * self.nbytes_b / max(self.count, 1)

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON values; infinities become null."""
        return {key: finite(value) for key, value in asdict(self).items()}

    @property
    def title_a(self) -> str:
        """Format and method of A."""
        return choice_text(self.format_a, self.method_a)

    @property
    def title_b(self) -> str:
        """Format and method of B."""
        return choice_text(self.format_b, self.method_b)

    @property
    def methods(self) -> tuple[str, str]:
        """The methods of both sides, "" where one keeps the layer."""
        return self.method_a, self.method_b

    @property
    def gain(self) -> float:
        """Share of A's error that B takes away; below 0 where B is worse, -1 at least."""
        if self.error_a == self.error_b:
            return 0.0
        if self.error_a > self.error_b:
            return 1 - self.error_b / self.error_a
        return self.error_a / self.error_b - 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides, layer by layer, the largest gain first. Layers that both sides keep are left out.

    only_a, only_b: layers that only one of them has.
    """

    title_a: str
    title_b: str
    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()

    @property
    def better(self) -> int:
        """Number of layers where B has less error."""
        return sum(pair.error_b < pair.error_a for pair in self.pairs)

    @property
    def nbytes(self) -> int:
        """Bytes that B takes more than A."""
        return sum(pair.nbytes_b - pair.nbytes_a for pair in self.pairs)

    @property
    def _guided(self) -> str:
        """Methods of one side alone that look at the inputs of layers: error of weights is not what they lower."""
        methods = {method for pair in self.pairs for method in pair.methods if pair.method_a != pair.method_b}
        return " or ".join(name for name, row in METHODS.items() if row.needs and name in methods)

    def worth(self, gain: float) -> dict[str, str]:
        """Layer name -> format of B, or format/method of other methods, where B gains more than `gain` and differs.

        Formats that no plan knows are left out.
        """
        gaining = {pair.name for pair in self.pairs if pair.gain > gain}
        return {name: chosen for name, chosen in self.all_of_b().items() if name in gaining}

    def all_of_b(self) -> dict[str, str]:
        """What `worth` gives, of every layer where B differs, whatever it gains or loses."""
        known = [pair for pair in self.pairs if pair.format_b == KEEP or pair.format_b in FORMATS]
        found = [pair for pair in known if pair.title_a != pair.title_b]
        return {pair.name: pair.format_b if pair.method_a == pair.method_b else pair.title_b for pair in found}

    @property
    def alone(self) -> str:
        """How many layers only one side has, as the end of a sentence; "" for none."""
        alone = len(self.only_a) + len(self.only_b)
        return f", {counted(alone, 'layer is', 'layers are')} only in one of them" if alone else ""

    def sentence(self) -> str:
        """The comparison in one line."""
        if not self.pairs:
            return "A and B have no quantized layer in common."
        a, b = median(pair.error_a for pair in self.pairs), median(pair.error_b for pair in self.pairs)
        count = f"{self.better:,} of {counted(len(self.pairs), 'layer')}"
        change = f" ({b / a - 1:+.0%})" if a else ""
        size = "same size" if not self.nbytes else f"{'+' if self.nbytes > 0 else '−'}{size_text(abs(self.nbytes))}"
        rises = f"; {self._guided} lets the error of weights rise to lower that of outputs" if self._guided else ""
        missing = self.alone
        if all(pair.error_a == pair.error_b for pair in self.pairs):
            return (
                f"No difference in the errors of {counted(len(self.pairs), 'layer')}, median {a:.4f}, {size}{missing}"
            )
        errors = f"{a:.4f} → {b:.4f}{change.replace('-', '−')}"
        return f"B is better on {count}, median error {errors}, {size}{missing}{rises}"


def compare(
    title_a: str, results_a: Sequence[LayerResult], title_b: str, results_b: Sequence[LayerResult]
) -> Comparison:
    """Compare the layers that both sides have."""
    others = {layer.name: layer for layer in results_b}
    both = [(layer, others[layer.name]) for layer in results_a if layer.name in others]
    pairs = [_pair(a, b) for a, b in both if not a.format == b.format == KEEP]
    shared = {a.name for a, _ in both}
    only_a, only_b = (tuple(one.name for one in found if one.name not in shared) for found in (results_a, results_b))
    return Comparison(title_a, title_b, by_gain(pairs), only_a, only_b)


def by_gain(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """The pairs, the largest gain first."""
    return tuple(sorted(pairs, key=lambda pair: -pair.gain))


def _pair(a: LayerResult, b: LayerResult) -> Pair:
    error_a, error_b = (layer.rel_err if layer.measured else 0.0 for layer in (a, b))
    sizes = a.nbytes_out, b.nbytes_out
    return Pair(a.name, a.format, b.format, error_a, error_b, *sizes, a.method, b.method, a.count)
