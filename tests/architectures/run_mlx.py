"""Runs checkpoints and exports in stock mlx-lm, in float32."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from tests.architectures.rows import TOKENS
from tests.runtimes.answering import answer_jobs


class RunFailedError(Exception):
    """The model was loaded and does not run."""


def logits(folder: str, file: str, trust: bool = False) -> dict[str, Any]:
    """Write float32 logits to `file`; how many layers run quantized."""
    model, _ = load_model(Path(folder), trust_remote_code=trust)
    layers = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
    quantized = sum(hasattr(layer, "scales") for _, layer in layers)
    model.set_dtype(mx.float32)
    model.eval()
    np.save(file, _run(model))
    return {"quantized": quantized}


def _run(model: nn.Module) -> np.ndarray:
    try:
        found = model(mx.array([TOKENS]))
        return np.array(getattr(found, "logits", found).astype(mx.float32))[0]
    except Exception as error:
        raise RunFailedError(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    answer_jobs({"logits": logits})
