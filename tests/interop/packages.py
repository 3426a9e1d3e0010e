"""Packages: those that make and load checkpoints, as data. Each lives in an environment of its own."""

from dataclasses import dataclass

from tests.consumers.environments import Environment

_TORCH = Environment(
    "torch",
    ("torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0", "sentencepiece==0.2.3", "ml_dtypes==0.5.4"),
)
"""With what this program itself asks for: transformers takes its folder `kernels` for the package of that name."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that stores weights.

    version: what is said of it in the table. module: makes checkpoints inside the environment, see `making`.
    """

    name: str
    version: str
    module: str
    environment: Environment


def _package(name: str, module: str, *packages: str, alone: tuple[str, ...] = (), bare: bool = False) -> Package:
    """A package by its own version, on top of torch and transformers unless it is `bare`."""
    version = next(text for text in (*packages, *alone) if text.partition("==")[0].partition("[")[0] == name)
    environment = Environment(name, packages, alone, upon=None if bare else _TORCH)
    return Package(name, version.partition("==")[2], module, environment)


_CONVERTER = Environment(
    "llama.cpp",
    ("protobuf==7.36.2", "pyyaml==6.0.4"),
    sources=("llama-cpp-python==0.3.36",),
    upon=_TORCH,
)

PACKAGES: dict[str, Package] = {
    row.name: row
    for row in (
        _package("mlx-lm", "make_mlx", "mlx[cpu]==0.32.4", "mlx-lm==0.32.2", "transformers==5.23.0", bare=True),
        _package("compressed-tensors", "make_compressed", "compressed-tensors==0.20.0"),
        _package("llmcompressor", "make_llmcompressor", "llmcompressor==0.14.0.1"),
        _package("nvidia-modelopt", "make_modelopt", "nvidia-modelopt[hf]==0.47.0"),
        _package("auto-round", "make_auto_round", "auto-round==0.16.1", "compressed-tensors==0.20.0"),
        _package("torchao", "make_torchao", "torchao==0.18.0"),
        _package("gguf", "make_gguf", "gguf==0.19.0", "xllamacpp==2026.10.11549", bare=True),
        Package("llama.cpp", "in llama-cpp-python 0.3.36", "make_llama_cpp", _CONVERTER),
        _package("transformers", "make_transformers", "transformers==5.23.0"),
        _package("bitsandbytes", "make_bitsandbytes", "bitsandbytes==0.50.2"),
        _package("hqq", "make_hqq", "hqq==0.2.8.post1"),
        _package("optimum-quanto", "make_quanto", "optimum-quanto==0.2.7"),
        _package("amd-quark", "make_quark", "amd-quark==0.13"),
    )
}
