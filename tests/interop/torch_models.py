"""Models in torch and transformers, and their weights under the names of a plain checkpoint."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

_STACK = re.compile(r"(.+\.experts)\.(gate_up|down)_proj")


def load(folder: Path, dtype: torch.dtype = torch.bfloat16, **options: Any) -> Any:
    """The model of a folder on the processor."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map="cpu", **options).eval()


def weights(model: Any) -> dict[str, np.ndarray]:
    """All weights in float32, experts one by one; scales and whatever else belongs to codes is left out."""
    tied = model.config.tie_word_embeddings
    state = {name: tensor for name, tensor in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    return {key: array for name, tensor in state.items() for key, array in _plain(name, tensor)}


def _plain(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, np.ndarray]]:
    if stack := _STACK.fullmatch(name):
        parts = tensor.chunk(2, dim=1) if stack[2] == "gate_up" else (tensor,)
        for part, stacked in zip(("gate", "up") if len(parts) == 2 else ("down",), parts, strict=True):
            for expert, matrix in enumerate(stacked):
                yield f"{stack[1]}.{expert}.{part}_proj.weight", as_numpy(matrix)
    elif name.endswith(".weight"):
        yield name, as_numpy(tensor)


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor in float32."""
    found: np.ndarray = tensor.detach().float().cpu().numpy()
    return found
