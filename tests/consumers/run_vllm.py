"""Runs checkpoints and exports in vLLM on a CPU.

What no CPU has is replaced: the NVFP4 product of linear layers and of experts, by decoding after loading and vLLM's own
dense product. All else is vLLM's: config, names, fused shards, scales.
"""

import os

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}

import gc
from typing import Any

import numpy as np
import torch
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.kernels.linear.nvfp4.marlin import MarlinNvFp4LinearKernel
from vllm.model_executor.layers.fused_moe.config import FusedMoEQuantConfig
from vllm.model_executor.layers.fused_moe.oracle import unquantized
from vllm.model_executor.layers.fused_moe.oracle.nvfp4 import NvFp4MoeBackend
from vllm.model_executor.layers.quantization import modelopt
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w4a4_nvfp4,
)

from tests.runtimes.answering import answer_jobs

_VALUES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
_VOCABULARY = 4096


def logits(folder: str, file: str, tokens: list[int]) -> bool:
    """Write log probabilities [tokens, vocabulary] of what follows each token to `file`."""
    model = LLM(
        model=folder,
        dtype="bfloat16",
        enforce_eager=True,
        max_logprobs=_VOCABULARY,
        max_model_len=512,
        max_num_seqs=2,
        skip_tokenizer_init=True,
        limit_mm_per_prompt={"image": 0, "video": 0},
    )
    try:
        np.save(file, _answered(model, tokens))
    finally:
        del model
        gc.collect()
        cleanup_dist_env_and_memory()
    return True


def _answered(model: LLM, tokens: list[int]) -> np.ndarray:
    how = SamplingParams(prompt_logprobs=_VOCABULARY, logprobs=_VOCABULARY, max_tokens=1, detokenize=False)
    (answer,) = model.generate([{"prompt_token_ids": tokens}], how, use_tqdm=False)
    rows = [*answer.prompt_logprobs[1:], answer.outputs[0].logprobs[0]]
    found = np.full((len(rows), _VOCABULARY), np.nan, np.float32)
    for place, row in enumerate(rows):
        for token, item in row.items():
            found[place, token] = item.logprob
    return found


def _decoded(packed: torch.Tensor, scales: torch.Tensor, multiplier: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights [..., outputs, inputs] of codes [..., outputs, inputs / 2], the even one in the low half of a byte."""
    codes = torch.stack([packed & 15, packed >> 4], -1).flatten(-2).long()
    values = _VALUES[codes].unflatten(-1, (-1, 16)) * scales.float()[..., None]
    return (values.flatten(-2) * multiplier.float().reshape(-1, *[1] * (packed.ndim - 1))).to(dtype)


def _keep_dense(_: Any, layer: torch.nn.Module) -> None:
    multiplier = layer.weight_global_scale.reshape(1)
    dense = _decoded(layer.weight.data, layer.weight_scale.data, multiplier, torch.bfloat16)
    layer.weight = torch.nn.Parameter(dense.reshape(layer.weight.shape[0], -1), requires_grad=False)


def _multiply(_: Any, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return torch.nn.functional.linear(x, layer.weight, bias)


def _choose(config: Any, **_: Any) -> tuple[NvFp4MoeBackend, Any]:
    return NvFp4MoeBackend.MARLIN, unquantized.select_unquantized_moe_backend(moe_config=config)[1]


def _dense_experts(layer: Any, **parts: Any) -> tuple[Any, ...]:
    dense = [
        _decoded(parts[name].data, parts[f"{name}_scale"].data, parts[f"{name}_scale_2"], torch.bfloat16)
        for name in ("w13", "w2")
    ]
    backend = unquantized.select_unquantized_moe_backend(moe_config=layer.moe_config)[0]
    w13, w2 = unquantized.convert_to_unquantized_kernel_format(
        backend, moe_config=layer.moe_config, w13_weight=dense[0], w2_weight=dense[1], layer=layer
    )
    names = ("w13_scale", "w13_scale_2", "a13_scale", "w2_scale", "w2_scale_2", "a2_scale")
    one, two, three, four, five, six = (parts[name] for name in names)
    return w13, one, two, three, w2, four, five, six


def _dense_kernel(moe_quant_config: Any, moe_config: Any, experts_cls: Any, routing_tables: Any, **_: Any) -> Any:
    backend = unquantized.select_unquantized_moe_backend(moe_config=moe_config)[0]
    return unquantized.make_unquantized_moe_kernel(
        moe_quant_config, moe_config, backend, experts_cls, routing_tables=routing_tables
    )


def _stand_in() -> None:
    MarlinNvFp4LinearKernel.is_supported = lambda *_: (True, None)
    MarlinNvFp4LinearKernel.process_weights_after_loading = _keep_dense
    MarlinNvFp4LinearKernel.apply_weights = _multiply
    for module in (modelopt, compressed_tensors_moe_w4a4_nvfp4):
        module.select_nvfp4_moe_backend = _choose
        module.convert_to_nvfp4_moe_kernel_format = _dense_experts
        module.make_nvfp4_moe_quant_config = lambda **_: FusedMoEQuantConfig.make()
        module.make_nvfp4_moe_kernel = _dense_kernel


if __name__ == "__main__":
    torch.set_num_threads(2)
    _stand_in()
    answer_jobs({"logits": logits})
