"""Quantized inputs in transformers: what goes into a weight with an input scale passes through its format."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from studio.core.model import Model
from studio.lm.input_scales import InputScales, Quantizing, check_reached, quantized, scales_by_place
from studio.lm.names import Place, torch_places
from studio.lm.torch_running import operands, storage_of


class QuantizedInputs(TorchFunctionMode):
    """Products in it have quantized inputs."""

    def __init__(self, module: Any, model: Model, scales: InputScales) -> None:
        """Raises CheckpointError when a matrix of `scales` is in no parameter, see `scales_by_place`."""
        super().__init__()
        with suppress(AttributeError, ValueError):
            module.set_experts_implementation("eager")
        parameters = dict(module.named_parameters())
        shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        self._scales = scales_by_place(torch_places(model, shapes), scales, model.folder)
        self._folder, self._reached = model.folder, set[str]()
        self._weights = {storage_of(p): (name.removesuffix(".weight"), p) for name, p in parameters.items()}

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        if error is None:
            check_reached(self._scales, self._reached, self._folder)

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        weight, x = operands(func, args, named)
        place = self._place(weight) if weight is not None else ("", None)
        self._reached.add(place[0])
        how = self._scales.get(place)
        if how is None:
            return func(*args, **named)
        rounded = _rounded(x, how)
        same = tuple(rounded if part is x else part for part in args)
        return func(*same, **{key: rounded if part is x else part for key, part in named.items()})

    def _place(self, weight: torch.Tensor) -> Place:
        name, parameter = self._weights.get(storage_of(weight), ("", nn.Parameter(torch.empty(0))))
        one = parameter.dim() == 3 and weight.dim() == 2
        whole = "" if parameter.dim() == 3 and not one else name
        return whole, weight.storage_offset() // parameter[0].numel() if one else None


def _rounded(x: torch.Tensor, how: Quantizing) -> torch.Tensor:
    rows: Any = x.detach().float().cpu().numpy().astype(np.float32, copy=False)
    return torch.from_numpy(quantized(rows, how)).to(x.device, x.dtype)
