"""Builds a checkpoint of a row with transformers: random weights that all matter, saved as transformers saves them."""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)

from tests.architectures.hub_config import hub_config
from tests.architectures.others import OTHERS
from tests.architectures.rows import ROWS, SIZES, model_type
from tests.architectures.shrinking import small
from tests.architectures.variants import VARIANTS

_STRUCTURED = ("A_log", ".D", "decay", "slopes", "inv_freq", "dt_bias", "dt_proj.bias", "recurrent_param")
"""Parts of names of parameters whose values follow a rule; they are only moved a little."""

_LEGACY = ("global_head_dim", "num_global_key_value_heads", "layer_types", "head_dim")
"""Arguments that configurations take though they are no fields of theirs."""


_WHOLE = (
    (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, AutoModelForImageTextToText),
    (MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, AutoModelForSeq2SeqLM),
    (MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES, AutoModelForSpeechSeq2Seq),
    (MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES, AutoModelForMultimodalLM),
)
"""Model types with more than a decoder of text, and the class that loads all of it."""


def build(name: str, folder: str) -> None:
    """Write the checkpoint of a row to `folder`."""
    torch.manual_seed(zlib.crc32(name.encode()))
    is_other = name in OTHERS
    config = small(name, OTHERS[name]) if is_other else configuration(model_type(name), ROWS[name])
    model = model_class(config).from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict(keep_vars=True).items():
            if tensor.is_floating_point():
                _fill(model, key, tensor.data)
    if is_other:
        model.to(torch.bfloat16).save_pretrained(Path(folder) / "hub")
    else:
        _save(name, model.to(torch.bfloat16), Path(folder))


def _save(name: str, model: Any, folder: Path) -> None:
    """As transformers saves it in `saved`, and with the fields and tensors of hub checkpoints in `hub`."""
    saved, hub = folder / "saved", folder / "hub"
    model.save_pretrained(saved)
    hub.mkdir(exist_ok=True)
    path = saved / "model.safetensors"
    tensors = VARIANTS[name](load_file(path)) if name in VARIANTS else load_file(path)
    for place in (saved, hub):
        save_file(tensors, place / "model.safetensors", {"format": "pt"})
    written = json.loads((saved / "config.json").read_text(encoding="utf-8"))
    text = json.dumps(hub_config(name, model.config, written), indent=2)
    (hub / "config.json").write_text(text, encoding="utf-8")


def configuration(kind: str, arguments: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration of an architecture; its language model gets the sizes that its row does not give."""
    known = AutoConfig.for_model(kind)
    if "text_config" in arguments:
        text = dict(arguments["text_config"])
        inner = text.pop("model_type", None) or known.get_text_config().model_type
        return type(known)(**{**arguments, "text_config": {**_sized(AutoConfig.for_model(inner), text)}})
    return type(known)(**_sized(known, arguments))


def _sized(known: PreTrainedConfig, arguments: Mapping[str, Any]) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(known)}
    own = {key: value for key, value in SIZES.items() if key in fields and key not in arguments}
    rope = own.get("rope_parameters")
    if rope and isinstance(known.rope_parameters, dict) and "full_attention" in known.rope_parameters:
        own.pop("rope_parameters")
    given = {key: value for key, value in arguments.items() if key in fields or key in _LEGACY}
    return {**own, **given, "model_type": known.model_type}


def model_class(config: PreTrainedConfig) -> Any:
    """The class of transformers that loads a model with all of its parts."""
    kind = config.model_type
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not hasattr(config, "text_config") and not _has_encoder(kind):
        return AutoModelForCausalLM
    return next((found for kinds, found in _WHOLE if kind in kinds), AutoModelForCausalLM)


def _has_encoder(kind: str) -> bool:
    return kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES or kind in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES


def _fill(model: torch.nn.Module, key: str, tensor: torch.Tensor) -> None:
    """Random numbers of the size that the layer's inputs call for, around what transformers starts with."""
    noise = torch.randn(tensor.shape)
    if any(part in key for part in _STRUCTURED):
        tensor.add_(0.05 * noise)
    elif tensor.ndim < 2:
        tensor.add_(0.1 * noise)
    elif isinstance(model.get_submodule(key.rpartition(".")[0]), torch.nn.Embedding):
        tensor.copy_(noise)
    else:
        inputs = tensor[0].numel() if tensor.ndim != 3 or tensor.shape[1] == 1 else tensor.shape[-1]
        tensor.copy_(noise / inputs**0.5)
