"""Builds checkpoints with transformers, and runs them and their exports in it."""

import math
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig
from transformers.utils import logging
from transformers.utils.quantization_config import CompressedTensorsConfig

from tests.architectures.building import build, model_class
from tests.architectures.rows import TOKENS
from tests.runtimes.answering import answer_jobs


class RunFailedError(Exception):
    """The model was loaded and does not run."""


def logits(folder: str, file: str, dequantize: bool = False) -> dict[str, list[str]]:
    """Write float32 logits of a checkpoint or export, loaded in bfloat16, to `file`; what did not find its place."""
    model, report = _decompressed(folder, dequantize)
    _write(model, file)
    return report


def weights(folder: str, decoded: str, dequantize: bool = False) -> dict[str, Any]:
    """How far the parameters of an export are from those of a checkpoint of its decoded weights, both in bfloat16.

    `distance` is the largest relative L2 distance, of the parameter `farthest`; `lost` what did not find its place in
    the export alone, `broken` what the checkpoint itself misses.
    """
    expected, stock = _load(decoded, torch.bfloat16, {})
    known = {name: tensor.float() for name, tensor in expected.state_dict().items() if tensor.is_floating_point()}
    model, report = _decompressed(folder, dequantize)
    found = model.state_dict()
    lost = [name for key, names in report.items() for name in names if name not in stock[key]]
    apart = {name: _apart(found[name], tensor) for name, tensor in known.items() if name in found}
    farthest = max(apart, key=lambda name: apart[name])
    lost += sorted(set(known) - set(found))
    return {"distance": apart[farthest], "farthest": farthest, "lost": lost, "broken": stock["missing_keys"]}


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    if torch.equal(found, expected):
        return 0.0
    distance = float((found - expected).norm() / expected.norm())
    return distance if math.isfinite(distance) else math.inf


def _decompressed(folder: str, dequantize: bool) -> tuple[Any, dict[str, list[str]]]:
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if dequantize else {}
    model, report = _load(folder, torch.bfloat16, how)
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not dequantize:
        quantizer.compressor.decompress_model(model)
    # transformers forbids `model.float()` when a checkpoint was quantized
    return torch.nn.Module.float(model), report


def dense_logits(folder: str, file: str, rounded: bool = False) -> dict[str, list[str]]:
    """Write float32 logits of a checkpoint, whose weights are `rounded` to bfloat16 as those of exports are."""
    model, report = _load(folder, torch.bfloat16 if rounded else torch.float32, {})
    _write(model.float(), file)
    return report


def _load(folder: str, dtype: torch.dtype, how: dict[str, Any]) -> tuple[Any, dict[str, list[str]]]:
    kind = model_class(AutoConfig.from_pretrained(folder))
    model, report = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True, **how)
    lost = {key: sorted(map(str, report[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    return model.eval(), lost


def _write(model: Any, file: str) -> None:
    try:
        with torch.no_grad():
            found = model(input_ids=torch.tensor([TOKENS]), use_cache=False).logits[0]
    except Exception as error:
        raise RunFailedError(f"{type(error).__name__}: {error}") from error
    np.save(file, found.float().numpy())


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    answer_jobs({"build": build, "logits": logits, "dense_logits": dense_logits, "weights": weights})
