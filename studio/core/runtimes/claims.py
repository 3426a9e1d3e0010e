"""Claims: which runtimes run an export, computed from what is in it, with evidence or what would have to change."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from studio.core.architectures.config import model_types
from studio.core.layouts import Layout
from studio.core.model import Model
from studio.core.names import printable
from studio.core.plan import Choice
from studio.core.resources import resources
from studio.core.runtimes.table import GGUF_BLOCK, GRAPHS_WITH_SCALES, RUNTIMES, Runtime

Verdict = Literal["runs", "fails", "untried"]

_COLUMNS = {"mlx": {True: "mlx-3t", False: "mlx-2t"}, "compressed-tensors": {True: "ct-3t", False: "ct-2t"}}


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of an export in one runtime.

    evidence: what was seen, with version and date, for one that runs. reason: why it fails, or what is unknown. change:
    what to export instead.
    """

    runtime: str
    verdict: Verdict
    evidence: str = ""
    reason: str = ""
    change: str = ""

    def __str__(self) -> str:
        if self.verdict == "runs":
            return f"{self.runtime}: runs ({self.evidence})"
        told = f"{self.runtime}: {'does not run it' if self.verdict == 'fails' else 'not tried'}, {self.reason}"
        return f"{told}; {self.change}" if self.change else told


def claims(model: Model, choices: Sequence[Choice], layout: Layout) -> tuple[Claim, ...]:
    """A claim per runtime that reads the layout; none for a checkpoint without config.json, which nothing loads."""
    if not model.config.get("model_type"):
        return ()
    return tuple(_claim(RUNTIMES[name], model, choices, layout) for name in layout.readers)


def claim_sentences(found: Iterable[Claim]) -> list[str]:
    """Sentences for people: what runs it, and what does not or was not tried."""
    return [str(claim) for claim in found] or ["no runtime is named: a checkpoint without config.json loads nowhere"]


def _claim(runtime: Runtime, model: Model, choices: Sequence[Choice], layout: Layout) -> Claim:
    title = f"{runtime.title} {runtime.version}" + (f" ({runtime.note})" if runtime.note else "")
    for reason, change in _obstacles(runtime.name, model, choices, layout):
        return Claim(title, "fails", reason=reason, change=change)
    kind = model_types(model.config)[0]
    proven = runtime.proven.get(layout.name, frozenset()) | _measured(runtime.name, layout.name, _tiered(choices))
    if kind in proven:
        return Claim(title, "runs", evidence=f"{kind}, {runtime.how}, {runtime.date}")
    return Claim(title, "untried", reason=f"no {printable(kind, 60)} was run there")


def _tiered(choices: Sequence[Choice]) -> bool:
    return any(choice.recipe and choice.recipe.format.tensor_scale for choice in choices)


@lru_cache(maxsize=1)
def _evidence() -> Mapping[str, Mapping[str, str]]:
    path = resources() / "evidence" / "architectures.json"
    return json.loads(path.read_text(encoding="utf-8"))["verdicts"] if path.exists() else {}


@lru_cache(maxsize=16)
def _measured(runtime: str, layout: str, tiered: bool) -> frozenset[str]:
    """Model types that `make architectures` found right in a runtime and layout."""
    column = _COLUMNS.get(layout, {}).get(tiered, "")
    if runtime not in ("mlx-lm", "transformers"):
        return frozenset()
    return frozenset(kind for kind, columns in _evidence().items() if columns.get(column) == "right")


def _obstacles(name: str, model: Model, choices: Sequence[Choice], layout: Layout) -> Iterator[tuple[str, str]]:
    quantized = [choice for choice in choices if choice.recipe]
    if name == "transformers":
        yield from _transformers(model, quantized)
    if name == "llama.cpp":
        yield from _llama_cpp(model, choices, quantized)
    if name == "mlx-vlm" and layout.name == "mlx" and "qwen2_moe" in model_types(model.config) and _tiered(choices):
        yield "its loader stops at the shared experts", "export two tiers: --format nvfp4-2t"


def _transformers(model: Model, quantized: Sequence[Choice]) -> Iterator[tuple[str, str]]:
    names = model.family.transformers
    experts = [choice for choice in quantized if choice.layer.role == "expert"]
    if names.refused:
        yield names.refused, "load it with vLLM"
    if any(choice.recipe and choice.recipe.format.tensor_scale for choice in experts):
        yield "it drops the tensor scale of experts", "--for transformers stores those in two tiers"
    if names.kept and experts:
        yield names.why, "--for transformers keeps those"


def _llama_cpp(model: Model, choices: Sequence[Choice], quantized: Sequence[Choice]) -> Iterator[tuple[str, str]]:
    kinds = model_types(model.config)
    if _tiered(quantized) and not any(kind in GRAPHS_WITH_SCALES for kind in kinds):
        yield f"its graph of {kinds[-1]} ignores tensor scales and gives NaN", "export two tiers: --format nvfp4-2t"
    ragged = (m for c in quantized for m in c.layer.matrices if m.columns % GGUF_BLOCK)
    if found := next(ragged, None):
        yield f"rows of {found.columns:,} weights are no multiple of {GGUF_BLOCK}", "keep those layers"
    names = [choice.layer.name for choice in quantized]
    if any(".block_sparse_moe.experts." in name for name in names):
        yield "its converter does not know the names of these experts", ""
    if any(name.endswith(".kv_b_proj") for name in names):
        yield "it wants kv_b_proj plain", "--exclude '*kv_b_proj'"
    biased = any(".mlp." in layer.tensor.name and layer.tensor.name.endswith("_proj.bias") for layer in model.layers)
    if "llama" in kinds and biased:
        yield "it can not add biases in a quantized MLP", ""
    single = [c for c in choices if c.layer.role == "expert"]
    if single and 0 < sum(c.recipe is None for c in single) < len(single):
        yield "its converter wants all experts of a block or none", ""
