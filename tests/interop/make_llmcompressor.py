"""llm-compressor: schemes of compressed-tensors by its observers, with and without calibration, alone and mixed."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import NVFP4PackedCompressor
from compressed_tensors.quantization import preset_name_to_scheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from safetensors.torch import load_file
from transformers.utils.quantization_config import CompressedTensorsConfig

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy, load, weights

_KEPT = ["lm_head", "re:.*mlp.gate$"]
_TOKENS = (torch.arange(128).reshape(4, 32) * 37 % 4096).tolist()


def _make(modifiers: Any, name: str, sources: Path, target: Path) -> Made:
    model = load(sources / name)
    text = Dataset.from_dict({"input_ids": _TOKENS, "attention_mask": [[1] * 32] * 4})
    oneshot(model=model, dataset=text, recipe=modifiers(), max_seq_length=32, num_calibration_samples=4)
    model.save_pretrained(target, save_compressed=True)
    loaded = load(target, quantization_config=CompressedTensorsConfig(dequantize=True))
    found = weights(loaded)
    if name == "moe":  # whose tensor scales transformers 5.23 leaves out
        found |= _experts_of_nvfp4(target)
    return Made(found, "transformers, dequantized", "BF16")


def _experts_of_nvfp4(target: Path) -> dict[str, Any]:
    """Experts, each decoded by compressed-tensors itself."""
    stored = {key: value for path in target.glob("*.safetensors") for key, value in load_file(path).items()}
    scheme, found = preset_name_to_scheme("NVFP4A16", ["Linear"]), {}
    for path in [key.removesuffix(".weight_packed") for key in stored if ".experts." in key and "_packed" in key]:
        parts = {leaf: stored[f"{path}.{leaf}"] for leaf in ("weight_packed", "weight_scale", "weight_global_scale")}
        found[f"{path}.weight"] = as_numpy(NVFP4PackedCompressor.decompress(parts, scheme)["weight"])
    return found


def _plain(scheme: str) -> Any:
    return QuantizationModifier(targets="Linear", scheme=scheme, ignore=_KEPT)


def _gptq(scheme: str) -> Any:
    return GPTQModifier(targets="Linear", scheme=scheme, ignore=_KEPT)


_SCHEMES = ("NVFP4", "NVFP4A16", "MXFP4A16", "FP8", "FP8_DYNAMIC", "FP8_BLOCK", "W8A8", "W8A16", "W4A16", "W4A16_ASYM")
CASES: dict[str, Maker] = {
    **{scheme: partial(_make, partial(_plain, scheme), "wide") for scheme in _SCHEMES},
    "W4A16 by GPTQ": partial(_make, partial(_gptq, "W4A16"), "wide"),
    "NVFP4, experts": partial(_make, partial(_plain, "NVFP4"), "moe"),
    "NVFP4A16, experts": partial(_make, partial(_plain, "NVFP4A16"), "moe"),
    "FP8_DYNAMIC, experts": partial(_make, partial(_plain, "FP8_DYNAMIC"), "moe"),
}
