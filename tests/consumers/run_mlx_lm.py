"""Runs checkpoints and exports in stock mlx-lm, with float32 activations: bfloat16 ones differ by as much as 3%."""

from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model

from tests.runtimes.answering import answer_jobs


def logits(folder: str, file: str, tokens: list[int]) -> bool:
    """Write float32 logits [tokens, vocabulary] to `file`."""
    model, _ = load_model(Path(folder), trust_remote_code=True)
    model.set_dtype(mx.float32)
    np.save(file, np.array(model(mx.array([tokens])).astype(mx.float32))[0])
    return True


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    answer_jobs({"logits": logits})
