"""Runs checkpoints and exports in transformers, version 4 or 5, with compressed-tensors."""

import sys

import numpy as np

from tests.runtimes.answering import answer_jobs

sys.modules["kernels"] = None  # type: ignore[assignment] # transformers would take our package for that of Hugging Face


def logits(folder: str, file: str, tokens: list[int]) -> bool:
    """Write float32 logits [tokens, vocabulary] to `file`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging

    torch.set_num_threads(2)
    logging.disable_progress_bar()
    is_whole = hasattr(AutoConfig.from_pretrained(folder), "vision_config")
    kind = AutoModelForImageTextToText if is_whole else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        found = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    np.save(file, found.float().numpy())
    return True


if __name__ == "__main__":
    answer_jobs({"logits": logits})
