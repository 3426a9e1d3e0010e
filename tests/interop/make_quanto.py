"""optimum-quanto: a state in safetensors, as it decodes it; without biases it does not tell the shapes of few bits."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from optimum.quanto import QTensor, freeze, qfloat8, qfloat8_e5m2, qint2, qint4, qint8, quantize
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy, load


def _make(kind: Any, biased: bool, refusal: str, sources: Path, target: Path) -> Made:
    model = _biased(sources / "wide") if biased else load(sources / "wide")
    quantize(model, weights=kind, exclude="lm_head")
    freeze(model)
    state = {name: value.contiguous() for name, value in model.state_dict().items() if hasattr(value, "contiguous")}
    model.config.save_pretrained(target)
    save_file(state, target / "model.safetensors", {"format": "pt"})
    if refusal:
        return Made({}, "", refusal=refusal)
    found = {name: _decoded(value) for name, value in model.named_parameters()}
    return Made(found, "its dequantize", "F32" if biased else "BF16")


def _biased(folder: Path) -> Any:
    """A model like that of a folder, with biases everywhere, in float32."""
    config = AutoConfig.from_pretrained(folder)
    config.attention_bias = config.mlp_bias = True
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def _decoded(value: torch.Tensor) -> Any:
    return as_numpy(value.dequantize() if isinstance(value, QTensor) else value)


CASES: dict[str, Maker] = {
    **{kind.name: partial(_make, kind, False, "") for kind in (qint8, qfloat8)},
    **{f"{kind.name}, biased": partial(_make, kind, True, "") for kind in (qint2, qint4)},
    "qint4": partial(_make, qint4, False, "nothing tells the shape"),
    "qfloat8_e5m2": partial(_make, qfloat8_e5m2, False, "quanto"),
}
