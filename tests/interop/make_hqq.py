"""HQQ: its linear modules in safetensors; this program refuses them by name."""

from functools import partial
from pathlib import Path

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from safetensors.torch import save_file

from tests.interop.making import Made, Maker
from tests.interop.torch_models import load


def _make(bits: int, axis: int, sources: Path, target: Path) -> Made:
    model = load(sources / "wide")
    stored = {name: value.clone() for name, value in model.state_dict().items() if "proj" not in name}
    how = BaseQuantizeConfig(nbits=bits, group_size=64, axis=axis)
    for path, module in model.named_modules():
        if "proj" in path:
            made = HQQLinear(module, how, compute_dtype=torch.bfloat16, device="cpu")
            stored |= {f"{path}.{key}": value.contiguous() for key, value in made.state_dict().items()}
    model.config.quantization_config = {"quant_method": "hqq"}
    model.config.save_pretrained(target)
    save_file(stored, target / "model.safetensors", {"format": "pt"})
    return Made({}, "", refusal="hqq")


CASES: dict[str, Maker] = {
    f"{bits} bits, axis {axis}": partial(_make, bits, axis) for bits in (4, 8) for axis in (0, 1)
}
