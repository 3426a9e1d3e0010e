"""optimum-quanto: a state in safetensors; this program refuses it by name."""

from functools import partial
from pathlib import Path
from typing import Any

from optimum.quanto import freeze, qfloat8, qint4, qint8, quantize
from safetensors.torch import save_file

from tests.interop.making import Made, Maker
from tests.interop.torch_models import load


def _make(kind: Any, sources: Path, target: Path) -> Made:
    model = load(sources / "wide")
    quantize(model, weights=kind, exclude="lm_head")
    freeze(model)
    state = {name: value.contiguous() for name, value in model.state_dict().items() if hasattr(value, "contiguous")}
    model.config.save_pretrained(target)
    save_file(state, target / "model.safetensors", {"format": "pt"})
    return Made({}, "", refusal="quanto")


CASES: dict[str, Maker] = {kind.name: partial(_make, kind) for kind in (qint4, qint8, qfloat8)}
