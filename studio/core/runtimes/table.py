"""Runtimes: the programs that load exports, and what was seen of each. Facts carry a version and a date."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Runtime:
    """A program that loads exports.

    version: the one that was tried, on `date`. proven: model types that ran with the numbers of the decoded weights,
    by layout. how: what was compared. note: what a user must know of it in any case. inputs: those that ran with
    inputs quantized too. formats: what those that ran were stored in, by layout, where that is not all that it stores.
    tried: model types that ran in others than NVFP4. mixed: layouts of which mixes of formats ran. rounded: what was
    compared where it quantizes the inputs of layers in FP8 as it runs; only_rounded: they ran in no other way. unread:
    formats that it does not load, by layout.
    """

    name: str
    title: str
    version: str
    date: str
    how: str
    proven: dict[str, frozenset[str]] = field(default_factory=dict)
    note: str = ""
    inputs: frozenset[str] = frozenset()
    formats: dict[str, frozenset[str]] = field(default_factory=dict)
    tried: frozenset[str] = frozenset()
    mixed: frozenset[str] = frozenset()
    rounded: str = ""
    only_rounded: bool = False
    unread: dict[str, frozenset[str]] = field(default_factory=dict)


def _types(text: str) -> frozenset[str]:
    return frozenset(text.split())


NVFP4 = _types("nvfp4-2t nvfp4-3t")
FP8 = _types("fp8-tensor fp8-channel fp8-block")
_SERVERS = _types("mxfp4 mxfp8 fp8-tensor fp8-channel fp8-block int4-sym-g32 int4-sym-g128 int8-sym-g128")
_BOTH = {"modelopt": NVFP4, "compressed-tensors": NVFP4}
_VLLM = _types(
    "llama qwen2 gemma3 gemma3_text qwen2_5_vl qwen3_vl phi3 gpt_neox "
    "qwen3_moe mixtral olmoe glm4_moe granitemoe llama4 gpt_oss"
)
_VLLM_CPU = _types("mistral qwen3 smollm3 granite qwen2_moe")
_MLX_VLM = _types(
    "llama mistral qwen2 qwen3 gemma3_text phi3 smollm3 granite qwen3_moe mixtral glm4_moe olmoe qwen2_moe qwen3_vl"
)
_CONVERTED = _types("llama mistral qwen2 qwen3 gemma3_text phi3 smollm3 granite qwen3_moe qwen2_moe olmoe qwen3_vl")

RUNTIMES: dict[str, Runtime] = {
    row.name: row
    for row in (
        Runtime("mlx-lm", "mlx-lm", "0.32.2", "2026-11-28", "logits equal those of the decoded weights"),
        Runtime(
            "transformers",
            "transformers",
            "5.23.0",
            "2026-11-28",
            "logits equal those of the decoded weights",
            inputs=_types("llama"),
            formats={"compressed-tensors": NVFP4 | _SERVERS},
            tried=_types("llama qwen3_moe"),
            mixed=_types("compressed-tensors"),
            rounded="logits equal those of the decoded weights with inputs quantized as it runs (a llama)",
        ),
        Runtime(
            "vllm",
            "vLLM",
            "0.25.1",
            "2026-11-28 and 29",
            "loss of the decoded weights on an NVIDIA H200, weight only",
            {"modelopt": _VLLM, "compressed-tensors": _VLLM},
            formats={
                "modelopt": NVFP4 | _types("mxfp8 fp8-channel fp8-block"),
                "compressed-tensors": NVFP4 | _SERVERS,
            },
            tried=_types("llama qwen3_moe"),
            mixed=_types("compressed-tensors"),
            rounded="loss within 0.01 of that of the decoded weights on an NVIDIA H200, inputs quantized as it runs",
            only_rounded=True,
        ),
        Runtime(
            "mlx-vlm",
            "mlx-vlm",
            "0.7.10",
            "2026-11-28",
            "logits equal those of the decoded weights",
            {"mlx": _MLX_VLM, "modelopt": _MLX_VLM, "compressed-tensors": _MLX_VLM},
            formats={
                "modelopt": NVFP4,
                "compressed-tensors": NVFP4 | _types("fp8-channel fp8-block int4-sym-g32 int8-sym-g128"),
            },
            tried=_types("llama"),
            unread={
                "modelopt": _types("mxfp8 fp8-channel fp8-block"),
                "compressed-tensors": _types("mxfp4 mxfp8"),
            },
        ),
        Runtime(
            "llama.cpp",
            "llama.cpp",
            "b11549",
            "2026-11-28",
            "logits equal those of the decoded weights",
            {"modelopt": _CONVERTED, "compressed-tensors": _CONVERTED},
            formats=_BOTH,
            note="after its conversion to GGUF; ollama takes the result",
        ),
    )
}
