"""auto-round: its schemes without tuning, stored as auto-round, GPTQ, AWQ and compressed-tensors have them."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from auto_round import AutoRound
from transformers import PreTrainedTokenizerFast

from tests.interop.making import Made, Maker
from tests.interop.torch_models import load, weights

_QUICK = {"iters": 0, "disable_opt_rtn": True, "nsamples": 4, "seqlen": 32, "device_map": "cpu"}


def _make(scheme: str, form: str, options: Mapping[str, Any], sources: Path, target: Path) -> Made:
    source = sources / "wide"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"))
    maker = AutoRound(load(source), tokenizer, scheme=scheme, **{**_QUICK, **options})
    maker.quantize_and_save(str(target), format=form)
    loaded = load(target, torch.float32)
    return Made(weights(loaded), "transformers", "BF16")


_INTEGERS = [f"W{bits}A16" for bits in (2, 3, 4, 8)]
_ASYMMETRIC = {"sym": False}
CASES: dict[str, Maker] = {
    **{f"{scheme}, auto_round": partial(_make, scheme, "auto_round", {}) for scheme in _INTEGERS},
}
