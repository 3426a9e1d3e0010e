"""Builds checkpoints with transformers, as it saves them, and puts the tokenizer of the demo beside them."""

import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig

from tests.consumers.models import BUILT, DEMO, HUB_FIELDS, SIZES, TOKENIZER_CLASSES
from tests.runtimes.answering import answer_jobs

_TOKENS = {f"{token}_token": "<|end|>" for token in ("bos", "eos", "pad", "unk")}
"""Without these, readers guess tokens that the vocabulary does not hold."""


def build(name: str, folder: str, demo: str) -> bool:
    """Write the checkpoint of a model to `folder`."""
    target = Path(folder)
    shutil.rmtree(target, ignore_errors=True)
    if name == DEMO:
        shutil.copytree(demo, target)
    else:
        _save(name, target)
        shutil.copy(Path(demo) / "tokenizer.json", target)
    tokenizer = {"tokenizer_class": TOKENIZER_CLASSES.get(name, "PreTrainedTokenizerFast"), **_TOKENS}
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2), encoding="utf-8")
    return True


def _save(name: str, folder: Path) -> None:
    torch.manual_seed(zlib.crc32(name.encode()))
    config = _configuration(name.partition("-")[0], BUILT[name])
    kind = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    model = kind.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            _fill(parameter_name, parameter)
    model.to(torch.bfloat16).save_pretrained(folder)
    path = folder / "config.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    for section, values in HUB_FIELDS.get(name, {}).items():
        data[section] |= values
    path.write_text(json.dumps(data, indent=2), encoding="utf-8")


def _configuration(name: str, fields: Mapping[str, Any]) -> PreTrainedConfig:
    if "text_config" not in fields:
        return AutoConfig.for_model(name, **_sized(name, fields))
    text = AutoConfig.for_model(name).get_text_config().model_type
    return AutoConfig.for_model(name, **{**fields, "text_config": _sized(text, fields["text_config"])})


def _sized(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    known = AutoConfig.for_model(kind).to_dict()
    return {**{key: value for key, value in SIZES.items() if key in known}, **fields}


def _fill(name: str, parameter: torch.nn.Parameter) -> None:
    """Random numbers that keep the size of what they are multiplied with; norms and biases around their start."""
    noise = torch.randn(parameter.shape)
    if parameter.ndim < 2:
        parameter.add_(0.1 * noise)
    elif "embed_tokens" in name:
        parameter.copy_(0.2 * noise)
    else:
        inputs = parameter.shape[-1] if parameter.ndim < 4 else parameter[0].numel()
        parameter.copy_(noise / inputs**0.5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    answer_jobs({"build": build})
