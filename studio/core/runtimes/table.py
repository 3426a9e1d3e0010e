"""Runtimes: the programs that load exports, and what was seen of each. Facts carry a version and a date."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Runtime:
    """A program that loads exports.

    version: the one that was tried, on `date`. proven: model types that ran with the numbers of the decoded weights,
    by layout. how: what was compared. note: what a user must know of it in any case.
    """

    name: str
    title: str
    version: str
    date: str
    how: str
    proven: dict[str, frozenset[str]] = field(default_factory=dict)
    note: str = ""


def _types(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VLLM = _types(
    "llama qwen2 gemma3 gemma3_text qwen2_5_vl qwen3_vl phi3 gpt_neox "
    "qwen3_moe mixtral olmoe glm4_moe granitemoe llama4 gpt_oss"
)
_MLX_VLM = _types("llama qwen2 qwen3 qwen3_moe mixtral granite smollm3 phi3 qwen3_vl")
_CONVERTED = _types("llama qwen3_moe mistral qwen3")

RUNTIMES: dict[str, Runtime] = {
    row.name: row
    for row in (
        Runtime("mlx-lm", "mlx-lm", "0.32.2", "2026-11-28", "logits of `make architectures`"),
        Runtime("transformers", "transformers", "5.23.0", "2026-11-28", "logits of `make architectures`"),
        Runtime(
            "vllm",
            "vLLM",
            "0.25.1",
            "2026-11-28",
            "loss on an NVIDIA H200, weight only",
            {"modelopt": _VLLM, "compressed-tensors": _VLLM},
        ),
        Runtime(
            "mlx-vlm",
            "mlx-vlm",
            "0.7.10",
            "2026-11-27",
            "loss of `make consumers`",
            {"mlx": _MLX_VLM, "modelopt": _MLX_VLM, "compressed-tensors": _MLX_VLM},
        ),
        Runtime(
            "llama.cpp",
            "llama.cpp",
            "b11549",
            "2026-11-27",
            "loss of `make consumers`",
            {"modelopt": _CONVERTED, "compressed-tensors": _CONVERTED},
            note="after its conversion to GGUF; ollama takes the result",
        ),
    )
}

GRAPHS_WITH_SCALES = _types(
    "bitnet cohere2 cohere2_moe deepseek_v32 gemma4 gemma4_text glm_moe_dsa llama mellum mistral mistral3 ministral3 "
    "nanbeige nemotron_h qwen3 qwen3_5 qwen3_5_moe qwen3_5_text qwen3_moe qwen3_next"
)
"""Model types whose graph in llama.cpp applies the tensor scale; others ignore it and give NaN. Source: its code."""

GGUF_BLOCK = 64
"""llama.cpp packs NVFP4 rows in units of this many weights."""
