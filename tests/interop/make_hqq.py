"""HQQ: its linear modules in safetensors, decoded by its own quantizer in float32."""

from functools import partial
from pathlib import Path

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear, Quantizer
from safetensors.torch import save_file

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy, load


def _make(bits: int, axis: int, group: int | None, sources: Path, target: Path) -> Made:
    model = load(sources / "wide")
    plain = {name: value.clone() for name, value in model.state_dict().items() if "proj" not in name}
    stored, found = dict(plain), {name: as_numpy(value) for name, value in plain.items()}
    how = BaseQuantizeConfig(nbits=bits, group_size=group, axis=axis)
    for path, module in model.named_modules():
        if "proj" in path:
            made = HQQLinear(module, how, compute_dtype=torch.bfloat16, device="cpu")
            stored |= {f"{path}.{key}": value.contiguous() for key, value in made.state_dict().items()}
            wide = {key: value.float() if key in ("scale", "zero") else value for key, value in made.meta.items()}
            found[f"{path}.weight"] = as_numpy(Quantizer.dequantize(made.W_q, wide | {"compute_dtype": torch.float32}))
    model.config.quantization_config = {"quant_method": "hqq"}
    model.config.save_pretrained(target)
    save_file(stored, target / "model.safetensors", {"format": "pt"})
    return Made(found, "Quantizer.dequantize in float32")


CASES: dict[str, Maker] = {
    **{f"{bits} bits, axis {axis}": partial(_make, bits, axis, 64) for bits in (1, 2, 3, 4, 8) for axis in (0, 1)},
    "4 bits, rows": partial(_make, 4, 1, None),
}
