"""Runs exports in transformers with compressed-tensors, and compares them with weights that were decoded here."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressed_tensors.entrypoints.convert import convert_checkpoint
from compressed_tensors.entrypoints.convert.converters.modelopt_nvfp4 import ModelOptNvfp4Converter
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.quantization_config import CompressedTensorsConfig

from tests.runtimes.answering import answer_jobs
from tests.runtimes.decoding import Arrays, compressed_tensors_weights, divided_weight, read_arrays

_EXPERT = re.compile(r"(?P<stack>.*\.experts)\.(?P<expert>\d+)\.(?P<part>\w+)_proj\.weight")


def compare(folder: str, tokens: list[int], dequantize: bool = True, logits_file: str = "") -> dict[str, Any]:
    """Load an export and the decoded weights; what they have in common."""
    model, report = _load(folder, dequantize)
    logits = _logits(model, tokens)
    arrays = read_arrays(Path(folder))
    decoded = compressed_tensors_weights(arrays)
    expected_model = _decoded_model(folder, decoded)
    expected = _logits(expected_model, tokens)
    if logits_file:
        np.save(logits_file, expected)
    generated = model.generate(torch.tensor([tokens[:4]]), max_new_tokens=8, do_sample=False)
    weights = _weights(model, arrays, decoded) if dequantize else {}
    quantized = sorted(name for name, module in model.named_modules() if hasattr(module, "quantization_scheme"))
    rounded = _logits(expected_model.to(torch.bfloat16).float(), tokens)
    widened = _logits(model.float(), tokens) if dequantize else logits
    return {
        **weights,
        "generated": generated[0].tolist(),
        "difference": float(np.abs(logits - expected).max() / np.abs(expected).max()),
        "widened_difference": float(np.abs(widened - rounded).max() / np.abs(rounded).max()),
        "argmax": float((logits.argmax(-1) == expected.argmax(-1)).mean()),
        "quantized": quantized,
        "report": {key: sorted(str(name) for name in names) for key, names in report.items() if names},
    }


def convert(folder: str, target: str, targets: list[str]) -> bool:
    """Turn a ModelOpt export into one of compressed-tensors with the converter of that package."""
    convert_checkpoint(folder, target, _WeightOnlyConverter(targets=targets), max_workers=1)
    return True


def convert_as_it_is(folder: str, target: str, targets: list[str]) -> bool:
    """The same with the unchanged converter, which asks for activation scales."""
    convert_checkpoint(folder, target, ModelOptNvfp4Converter(targets=targets), max_workers=1)
    return True


class _WeightOnlyConverter(ModelOptNvfp4Converter):
    """Maps the tensors as the package does, but expects no activation scales: weights alone are quantized."""

    def get_dependencies(self, weight_name: str) -> set[str]:
        return {name for name in super().get_dependencies(weight_name) if not name.endswith(".input_scale")}

    def _build_quant_config(self) -> Any:
        config = super()._build_quant_config()
        for scheme in config.config_groups.values():
            scheme.input_activations = None
        return config


def load(folder: str) -> bool:
    """Only load."""
    _load(folder, dequantize=False)
    return True


def _load(folder: str, dequantize: bool) -> tuple[Any, dict[str, Any]]:
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if dequantize else {}
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True, **how)
    return model.eval(), {key: list(value) for key, value in report.items() if hasattr(value, "__iter__")}


def _weights(model: Any, arrays: Arrays, decoded: Arrays) -> dict[str, Any]:
    """How far the loaded weights are from ours, in bfloat16."""
    loaded = model.state_dict()
    modules = [name.removesuffix(".weight_packed") for name in arrays if name.endswith(".weight_packed")]
    differing: dict[str, float] = {}
    elsewhere = steps = count = 0
    for module in modules:
        weight = _stored(loaded, f"{module}.weight")
        ours = _bfloat16(decoded[f"{module}.weight"])
        elsewhere += int((weight != ours).sum())
        steps = max(steps, int((_ordinal(weight) - _ordinal(ours)).abs().max()))
        count += weight.numel()
        if not torch.equal(weight, _bfloat16(divided_weight(arrays, module))):
            differing[module] = float(weight.float().norm() / ours.float().norm())
    return {"differing": differing, "elsewhere": elsewhere, "steps": steps, "count": count, "modules": modules}


def _stored(loaded: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """The weight `name` of a state dict that keeps experts in stacks."""
    expert = _EXPERT.fullmatch(name)
    if not expert:
        return loaded[name]
    if expert["part"] == "down":
        return loaded[f"{expert['stack']}.down_proj"][int(expert["expert"])]
    gate, up = loaded[f"{expert['stack']}.gate_up_proj"][int(expert["expert"])].chunk(2)
    return gate if expert["part"] == "gate" else up


def _bfloat16(weight: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(weight)).to(torch.bfloat16)


def _ordinal(weight: torch.Tensor) -> torch.Tensor:
    """Integers in the order of the bfloat16 numbers, without gaps."""
    bits = weight.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def _decoded_model(folder: str, decoded: Arrays) -> Any:
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        state = model.state_dict()
        for name, weight in decoded.items():
            _stored(state, name).copy_(torch.from_numpy(np.ascontiguousarray(weight)))
    return model


def _logits(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


if __name__ == "__main__":
    torch.set_num_threads(2)
    answer_jobs({"compare": compare, "convert": convert, "convert_as_it_is": convert_as_it_is, "load": load})
