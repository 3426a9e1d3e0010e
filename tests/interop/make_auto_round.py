"""auto-round: its schemes without tuning, stored as auto-round, GPTQ, AWQ and compressed-tensors have them."""

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from auto_round import AutoRound
from auto_round.export.export_to_awq.utils import dequantize_gemm
from auto_round_extension.torch.qlinear_torch_zp import QuantLinear
from compressed_tensors.quantization import preset_name_to_scheme
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast
from transformers.utils.quantization_config import CompressedTensorsConfig

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy, load, weights

_TOKENS = torch.arange(64).reshape(2, 32) * 37 % 4096
_QUICK = {"iters": 0, "disable_opt_rtn": True, "nsamples": 2, "seqlen": 32, "batch_size": 1, "device_map": "cpu"}
Parts = Mapping[str, torch.Tensor]


def _make(scheme: str, form: str, options: Mapping[str, Any], sources: Path, target: Path) -> Made:
    source = sources / "wide"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"))
    text = [{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in _TOKENS]
    maker = AutoRound(load(source), tokenizer, scheme=scheme, dataset=text, **{**_QUICK, **options})
    maker.quantize_and_save(str(target), format=form)
    for file in list(target.glob("*/*")):
        shutil.move(file, target / file.name)
    stored = {key: value for path in target.glob("*.safetensors") for key, value in load_file(path).items()}
    if not any(key.endswith(".qweight") for key in stored):
        how = CompressedTensorsConfig(dequantize=True)
        dtype = torch.float32 if scheme.startswith("INT8") else torch.bfloat16  # or scales would be rounded, too
        loaded = load(_as_compressed(target), dtype, quantization_config=how)
        alone = ("not-excluded",) if scheme == "FP8_STATIC" else ()  # its list leaves out the head, which is plain
        rounded = "F16" if dtype == torch.float32 else "BF16"
        return Made(weights(loaded), "transformers, dequantized", rounded, alarms=alone)
    said = json.loads((target / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    plain = {key: as_numpy(value) for key, value in stored.items() if key.endswith(".weight")}
    paths = [key.removesuffix(".qweight") for key in stored if key.endswith(".qweight")]
    codes = {path: {part: stored[f"{path}.{part}"] for part in ("qweight", "qzeros", "scales")} for path in paths}
    decode = _awq if "awq" in f"{said.get('packing_format')}{said['quant_method']}" else _gptq
    decoded = {f"{path}.weight": as_numpy(decode(parts, said)) for path, parts in codes.items()}
    return Made({**plain, **decoded}, "its modules", "F32" if decode is _awq else "F16")


def _as_compressed(target: Path) -> Path:
    """A folder whose config says of block floats what compressed-tensors says, whose names auto-round uses."""
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    said = config["quantization_config"]
    if said["quant_method"] == "compressed-tensors":
        return target
    scheme = preset_name_to_scheme({16: "NVFP4A16", 32: "MXFP4A16"}[said["group_size"]], ["Linear"])
    groups = {"group_0": scheme.model_dump(mode="json")}
    form = {16: "nvfp4-pack-quantized", 32: "mxfp4-pack-quantized"}[said["group_size"]]
    told = {"config_groups": groups, "format": form, "ignore": ["lm_head"], "quantization_status": "compressed"}
    other = target.with_name("as-compressed")
    shutil.copytree(target, other)
    config["quantization_config"] = {**told, "quant_method": "compressed-tensors"}
    (other / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")
    (other / "quantization_config.json").unlink(missing_ok=True)
    return other


def _awq(parts: Parts, said: Mapping[str, Any]) -> torch.Tensor:
    columns, groups = parts["qweight"].shape[0], parts["scales"].shape[0]
    scales = parts["scales"].float()
    return dequantize_gemm(parts["qweight"], parts["qzeros"], scales, said["bits"], columns // groups).T


def _gptq(parts: Parts, said: Mapping[str, Any]) -> torch.Tensor:
    """What the module makes of one input at a time."""
    columns, rows = parts["qweight"].shape[0] * 32 // said["bits"], parts["scales"].shape[1]
    module = QuantLinear(said["bits"], columns // parts["scales"].shape[0], columns, rows, bias=False)
    module.device, module.dequant_dtype = "cpu", torch.int32
    for name, value in parts.items():
        setattr(module, name, value)
    return module(torch.eye(columns).half()).T


_GPTQ, _AWQ = (2, 3, 4, 8), (4, 5, 6, 7)
_ASYMMETRIC = {"sym": False}
CASES: dict[str, Maker] = {
    **{f"W{bits}A16, auto_round": partial(_make, f"W{bits}A16", "auto_round", {}) for bits in _GPTQ},
    **{f"W{bits}A16, auto_round:auto_awq": partial(_make, f"W{bits}A16", "auto_round:auto_awq", {}) for bits in _AWQ},
    **{f"W{bits}A16 asymmetric, gptq": partial(_make, f"W{bits}A16", "auto_gptq", _ASYMMETRIC) for bits in (2, 3, 4)},
    "W8A16, gptq": partial(_make, "W8A16", "auto_gptq", {}),
    "W4A16 asymmetric, awq": partial(_make, "W4A16", "auto_awq", _ASYMMETRIC),
    "W4A16 asymmetric, auto_round": partial(_make, "W4A16", "auto_round", _ASYMMETRIC),
    "NVFP4, auto_round": partial(_make, "NVFP4", "auto_round", {}),
    "NVFP4, llm_compressor": partial(_make, "NVFP4", "llm_compressor", {}),
    "MXFP4, auto_round": partial(_make, "MXFP4", "auto_round", {}),
    "MXFP4, llm_compressor": partial(_make, "MXFP4", "llm_compressor", {}),
    "MXFP8, llm_compressor": partial(_make, "MXFP8", "llm_compressor", {}),
    "FP8_STATIC, llm_compressor": partial(_make, "FP8_STATIC", "llm_compressor", {}),
    "INT8_W8A8, llm_compressor": partial(_make, "INT8_W8A8", "llm_compressor", {}),
}
