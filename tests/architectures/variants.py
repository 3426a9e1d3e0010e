"""What checkpoints of the hub store otherwise than transformers saves it."""

from collections.abc import Callable, Mapping

import torch

Tensors = dict[str, torch.Tensor]


def _without_prefix(tensors: Tensors) -> Tensors:
    """gpt2: names without `transformer.`, and the mask that old versions of transformers stored."""
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items() if name != "lm_head.weight"}
    mask = torch.ones(1, 1, 512, 512, dtype=torch.bool).tril().to(torch.float32)
    return bare | {f"h.{block}.attn.bias": mask.clone() for block in range(2)}


def _stacked(tensors: Tensors) -> Tensors:
    """The projections of all experts in one tensor each, gate above up."""
    kept = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    stacks = {name.partition(".experts.")[0] + ".experts" for name in tensors if ".experts." in name}
    for stack in sorted(stacks):
        gate, up, down = (_stack(tensors, stack, part) for part in ("gate", "up", "down"))
        kept |= {f"{stack}.gate_up_proj": torch.cat([gate, up], dim=1), f"{stack}.down_proj": down}
    return kept


def _stack(tensors: Tensors, stack: str, part: str) -> torch.Tensor:
    count = len({name for name in tensors if name.startswith(f"{stack}.") and name.endswith(f"{part}_proj.weight")})
    return torch.stack([tensors[f"{stack}.{expert}.{part}_proj.weight"] for expert in range(count)])


def _input_first(tensors: Tensors) -> Tensors:
    """Stacks of experts as [experts, inputs, outputs]."""
    return {
        name: tensor.transpose(1, 2).contiguous() if ".experts." in name else tensor for name, tensor in tensors.items()
    }


def _within_a_whole(tensors: Tensors) -> Tensors:
    """The language model alone under the names that it has beside towers."""
    return {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in tensors.items()}


VARIANTS: Mapping[str, Callable[[Tensors], Tensors]] = {
    "gpt2-hub": _without_prefix,
    "qwen3_5_moe-fused": _stacked,
    "qwen3_vl_moe-inputfirst": _input_first,
    "gemma3n": _within_a_whole,
}
