"""Claims: which runtimes run an export, computed from what is in it, with evidence or what would have to change."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from studio.core.architectures.config import model_types
from studio.core.layouts import Layout, llama_cpp
from studio.core.layouts.completion import exported_config
from studio.core.layouts.compressed_tensors import OWN_INPUTS, lost_experts
from studio.core.model import Model
from studio.core.names import printable
from studio.core.planning.plan import Choice
from studio.core.resources import resources
from studio.core.runtimes.table import FP8, NVFP4, RUNTIMES, Runtime

Verdict = Literal["runs", "fails", "untried"]

_RAN = {"right": "", "cautioned": "decoded at once with CompressedTensorsConfig(dequantize=True)", "requantized": ""}
"""Verdicts of `make architectures` that mean that an export runs, and how."""

_STOPS_AT_EXPERTS = {"modelopt": ("qwen2_moe",), "compressed-tensors": ("qwen2_moe", "olmoe")}
"""Model types whose experts mlx-vlm does not find, by layout."""

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
    rounding = [choice for choice in choices if choice.rounds_inputs]
    fake = bool(rounding and runtime.rounded) and not runtime.only_rounded
    if (fake or any(choice.input_scales for choice in choices)) and kind not in runtime.inputs:
        return Claim(title, "untried", reason=f"no {printable(kind, 60)} was run there with quantized inputs")
    used = {choice.format for choice in choices if choice.recipe}
    known = runtime.formats.get(layout.name, used)
    if others := sorted(used - known):
        return Claim(title, "untried", reason=f"nothing in {', '.join(others)} was run there")
    if known is not used and not used <= NVFP4 and kind not in runtime.tried:
        others = sorted(used - NVFP4)
        return Claim(title, "untried", reason=f"no {printable(kind, 60)} in {', '.join(others)} was run there")
    if known is not used and len(used - NVFP4) + bool(used & NVFP4) > 1 and layout.name not in runtime.mixed:
        return Claim(title, "untried", reason="no mix of formats was run there in this layout")
    fp8 = [choice for choice in choices if choice.format in FP8]
    if runtime.only_rounded and layout.name == "compressed-tensors" and len(rounding) < len(fp8):
        what = "FP8 ran there with quantized inputs only"
        return Claim(title, "untried", reason=what, change="--for vllm asks for them")
    seen = _measured(runtime.name, layout.name, _tiered(choices), kind)
    if seen in _RAN or kind in runtime.proven.get(layout.name, frozenset()):
        seen_how = runtime.rounded if runtime.rounded and (rounding or (fp8 and runtime.only_rounded)) else runtime.how
        if kind in _evidence().get("by_weights", ()):
            seen_how = "its parameters are the decoded weights"
        evidence = f"{kind}, {seen_how}, {runtime.date}"
        return Claim(title, "runs", evidence=f"{evidence}, {_RAN[seen]}" if _RAN.get(seen) else evidence)
    if seen == "baseline broken":
        reason = f"it does not load {kind} as transformers saves it, not even unquantized"
        return Claim(title, "fails", reason=reason, change="a checkpoint of another form may load")
    return Claim(title, "untried", reason=f"no {printable(kind, 60)} was run there")


def _tiered(choices: Sequence[Choice]) -> bool:
    return any(choice.recipe and choice.recipe.format.tensor_scale for choice in choices)


@lru_cache(maxsize=1)
def _evidence() -> Mapping[str, Any]:
    path = resources() / "evidence" / "architectures.json"
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _measured(runtime: str, layout: str, tiered: bool, kind: str) -> str:
    """What `make architectures` found of a model type in a runtime and layout, "" when it was not tried."""
    if runtime not in ("mlx-lm", "transformers"):
        return ""
    columns = _evidence().get("verdicts", {}).get(kind, {})
    return str(columns.get(_COLUMNS.get(layout, {}).get(tiered, ""), ""))


def _obstacles(name: str, model: Model, choices: Sequence[Choice], layout: Layout) -> Iterator[tuple[str, str]]:
    quantized = [choice for choice in choices if choice.recipe]
    experts = [choice for choice in quantized if choice.layer.role == "expert"]
    unread = RUNTIMES[name].unread.get(layout.name, frozenset())
    if found := sorted(unread & {choice.format for choice in quantized}):
        yield f"it does not read {', '.join(found)} of {layout.title}", "--layout mlx, or other formats"
    match name:
        case "transformers":
            yield from _transformers(model, choices)
        case "llama.cpp":
            yield from llama_cpp.obstacles(model, choices)
        case "vllm" if model.family.vllm.kept and experts:
            yield model.family.vllm.why, "--for vllm keeps those"
        case "mlx-lm":
            yield from _mlx_lm(model)
        case "mlx-vlm" if model_types(model.config)[0] in _STOPS_AT_EXPERTS.get(layout.name, ()) and experts:
            yield "it does not know the names of these experts", "--layout mlx"


def _mlx_lm(model: Model) -> Iterator[tuple[str, str]]:
    """mlx-lm builds a model from config.json: without a field that has no default it can not."""
    known: Mapping[str, Sequence[str]] = _evidence().get("mlx_fields", {})
    kind = model_types(model.config)[0]
    if known and kind not in known:
        yield f"it has no model type {printable(kind, 60)}", "a newer version may"
    config = exported_config(model)
    missing = [field for field in known.get(kind, ()) if field not in config]
    if missing:
        names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        yield (
            f"config.json lacks {names}, which it asks for",
            f"add {'it' if len(missing) == 1 else 'them'} from the original checkpoint",
        )


_UNREAD_EXPERTS = frozenset({"mxfp8", "fp8-block"})


def _transformers(model: Model, choices: Sequence[Choice]) -> Iterator[tuple[str, str]]:
    names = model.family.transformers
    quantized = [choice for choice in choices if choice.recipe]
    if lost := lost_experts(model, choices):
        yield f"it finds {lost}", "quantize all experts, or use FP8"
    if found := sorted({c.format for c in quantized if c.layer.role == "expert"} & _UNREAD_EXPERTS):
        yield f"it does not read experts in {', '.join(found)}", "--for transformers keeps those"
    experts = [choice for choice in quantized if choice.layer.role == "expert"]
    if any(choice.rounds_inputs for choice in experts):
        yield f"it {OWN_INPUTS}", "--for transformers stores experts whose inputs stay as they are"
    if names.refused:
        yield names.refused, "load it with vLLM"
    if any(choice.recipe and choice.recipe.format.tensor_scale for choice in experts):
        yield "it drops the tensor scale of experts", "--for transformers stores those in two tiers"
    if names.kept and experts:
        yield names.why, "--for transformers keeps those"
