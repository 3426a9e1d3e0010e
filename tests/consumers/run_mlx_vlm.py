"""Runs checkpoints and exports in stock mlx-vlm, in float32 as `run_mlx_lm` does: text, of models with vision too."""

from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_vlm.utils import load_model

from tests.runtimes.answering import answer_jobs


def logits(folder: str, file: str, tokens: list[int]) -> bool:
    """Write float32 logits [tokens, vocabulary] to `file`."""
    model = load_model(Path(folder))
    model.set_dtype(mx.float32)
    found = model.language_model(mx.array([tokens]))
    np.save(file, np.array(getattr(found, "logits", found).astype(mx.float32))[0])
    return True


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    answer_jobs({"logits": logits})
