"""mlx-lm: integers of MLX, MXFP4, MXFP8, NVFP4 in two tiers and, of experts, in three; alone and mixed."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

from tests.interop.making import Made, Maker

_AFFINE = {f"affine {bits} x {group}": (bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)}
_FLOATS = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
_OLD_FIELDS = {"num_experts": 4, "rope_theta": 50000.0}
"""Of config.json, which transformers 5 calls otherwise."""


def _all_alike(bits: int, group: int, mode: str) -> dict[str, Any]:
    return {"group_size": group, "bits": bits, "mode": mode}


def _mixed(path: str, _module: Any) -> bool | dict[str, Any]:
    choices = {"v_proj": _all_alike(8, 32, "mxfp8"), "down_proj": _all_alike(6, 64, "affine"), "o_proj": False}
    choices |= {"up_proj": _all_alike(4, 16, "nvfp4"), "gate": _all_alike(8, 64, "affine")}
    return choices.get(path.rpartition(".")[2], True)


def _make(name: str, options: Mapping[str, Any], sources: Path, target: Path) -> Made:
    target.mkdir()
    model, config = load_model(sources / name, model_config=_OLD_FIELDS)
    model, config = quantize_model(model, config, **options)
    save_model(target, model)
    save_config(config, target / "config.json")
    loaded, _ = load_model(target)
    modules = loaded.named_modules()
    return Made(dict(item for path, module in modules for item in _weights(path, module)), "mx.dequantize in float32")


def _weights(path: str, module: Any) -> list[tuple[str, np.ndarray]]:
    plain = {name: value for name, value in module.items() if isinstance(value, mx.array)}
    if "scales" in plain:
        plain = {"weight": _decoded(module), **({"bias": plain["bias"]} if "bias" in plain else {})}
    return [(f"{path}.{name}", np.array(value.astype(mx.float32))) for name, value in plain.items()]


def _decoded(module: Any) -> mx.array:
    wide = {name: module[name].astype(mx.float32) for name in ("scales", "biases") if name in module}
    how = {"group_size": module.group_size, "bits": module.bits, "mode": module.mode}
    if module.mode != "affine":
        wide = {"scales": module.scales}
    if "global_scale" not in module:
        return mx.dequantize(module.weight, **wide, **how)
    experts = zip(module.weight, module.scales, module.global_scale, strict=True)
    return mx.stack([mx.dequantize(weight, scales, global_scale=g, **how) for weight, scales, g in experts])


CASES: dict[str, Maker] = {
    **{name: partial(_make, "llama", _all_alike(*row, "affine")) for name, row in _AFFINE.items()},
    **{mode: partial(_make, "llama", _all_alike(*row, mode)) for mode, row in _FLOATS.items()},
    **{f"{mode}, experts": partial(_make, "moe", _all_alike(*row, mode)) for mode, row in _FLOATS.items()},
    "affine 4 x 64, experts": partial(_make, "moe", _all_alike(4, 64, "affine")),
    "nvfp4, experts in three tiers": partial(_make, "moe", {**_all_alike(4, 16, "nvfp4"), "global_scale": True}),
    "mixed": partial(_make, "llama", {**_all_alike(4, 64, "affine"), "quant_predicate": _mixed}),
    "mixed, experts": partial(_make, "moe", {**_all_alike(4, 32, "mxfp4"), "quant_predicate": _mixed}),
}
