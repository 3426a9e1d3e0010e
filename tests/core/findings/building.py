"""Folders for the doctor: good ones of three layouts as other programs write them, and plain ones.

Weights are normal with columns of different sizes, 256 wide, so that statistics of scales mean something. The encoder
and the names are written here from the formats' descriptions and share nothing with the code under test.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tests.core.checkpoints import BF16, CONFIG, FP8, INDEX, TOKENIZER, header_of, shard_name, write_json, write_raw

Array = NDArray[Any]
HIDDEN, INNER, VOCABULARY, EXPERTS = 256, 512, 320, 4
LEVELS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
HF_QUANT = "hf_quant_config.json"
FUSED = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
WHERE = "model.layers.1.self_attn.o_proj"
"""A matrix that stands alone, in the middle."""


@dataclass
class Draft:
    """A folder before it is written: tensors and documents, to be spoilt."""

    layout: str
    tensors: dict[str, Array]
    config: dict[str, Any]
    beside: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=lambda: {"tokenizer.json": TOKENIZER})
    shards: int = 1

    def part(self, name: str, *, matrix: str = WHERE) -> str:
        """The tensor that holds the codes, scales, third or input of a matrix."""
        return f"{matrix}.{PARTS[self.layout][name]}"

    def section(self) -> dict[str, Any]:
        """The section of config.json."""
        found: dict[str, Any] = self.config["quantization" if self.layout == "mlx" else "quantization_config"]
        return found

    def write(self, folder: Path) -> Path:
        """The folder, written."""
        write_json(folder / "config.json", self.config)
        if self.beside:
            write_json(folder / HF_QUANT, self.beside)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        names, metadata = list(self.tensors), {"format": "mlx" if self.layout == "mlx" else "pt"}
        weight_map = {}
        for number in range(self.shards):
            low, high = (len(names) * n // self.shards for n in (number, number + 1))
            part = {name: self.tensors[name] for name in names[low:high]}
            file = "model.safetensors" if self.shards == 1 else shard_name(number, self.shards)
            data = b"".join(array.tobytes() for array in part.values())
            write_raw(folder / file, {"__metadata__": metadata, **header_of(part)}, data)
            weight_map |= dict.fromkeys(part, file)
        if self.shards > 1:
            size = sum(array.nbytes for array in self.tensors.values())
            write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
        return folder


PARTS = {
    "modelopt": {"codes": "weight", "scales": "weight_scale", "third": "weight_scale_2", "input": "input_scale"},
    "compressed-tensors": {
        "codes": "weight_packed",
        "scales": "weight_scale",
        "third": "weight_global_scale",
        "input": "input_global_scale",
    },
    "mlx": {"codes": "weight", "scales": "scales"},
}


def weights(seed: int, *shape: int, sigma: float = 0.02) -> Array:
    """Normal weights of which some columns are larger than others, float32."""
    random = np.random.default_rng([seed, *shape])
    return (random.standard_normal(shape) * sigma * np.exp(0.3 * random.standard_normal(shape[-1]))).astype(np.float32)


def llama(*, experts: int = 0, blocks: int = 3, sigma: float = 0.02) -> dict[str, Array]:
    """The weights of a small llama, or of a mixture of experts with the same names."""
    shapes = {f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
    places = [f"mlp.experts.{expert}" for expert in range(experts)] or ["mlp"]
    for place in places:
        shapes |= {f"{place}.{name}_proj": (INNER, HIDDEN) for name in ("gate", "up")}
        shapes[f"{place}.down_proj"] = (HIDDEN, INNER)
    if experts:
        shapes["mlp.gate"] = (experts, HIDDEN)
    found = {"model.embed_tokens": weights(1, VOCABULARY, HIDDEN, sigma=sigma)}
    for block in range(blocks):
        for number, (name, shape) in enumerate(shapes.items()):
            found[f"model.layers.{block}.{name}"] = weights(100 * block + number, *shape, sigma=sigma)
        found |= {
            f"model.layers.{block}.{name}_layernorm": np.ones(HIDDEN, np.float32)
            for name in ("input", "post_attention")
        }
    return {**found, "model.norm": np.ones(HIDDEN, np.float32), "lm_head": weights(2, VOCABULARY, HIDDEN, sigma=sigma)}


def config(*, experts: int = 0) -> dict[str, Any]:
    """The config of `llama`."""
    sizes = {"hidden_size": HIDDEN, "intermediate_size": INNER, "vocab_size": VOCABULARY, "num_hidden_layers": 3}
    found = copy.deepcopy({**CONFIG, **sizes, "num_key_value_heads": 4, "dtype": "bfloat16"})
    if experts:
        kind = {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
        found |= {**kind, "num_experts": experts, "moe_intermediate_size": INNER}
    return found


def e4m3(values: Array) -> Array:
    """Bytes of E4M3, rounded to nearest even."""
    return np.minimum(values, 448).astype(np.float32).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def encode(weight: Array, g: float, block: int = 16) -> tuple[Array, Array]:
    """(codes [rows, K / 2], E4M3 bytes [rows, K / 16]) of NVFP4; `block` 32 is what MLX 0.32.0 did."""
    amax = np.abs(weight).reshape(len(weight), -1, block).max(-1).repeat(block // 16, -1)
    scales = e4m3(amax / 6 / g)
    values = scales.view(ml_dtypes.float8_e4m3fn).astype(np.float32).repeat(16, -1) * np.float32(g)
    ratio = np.abs(weight) / np.where(values, values, 1)
    index = np.abs(ratio[..., None] - LEVELS).argmin(-1).astype(np.uint8)
    codes = index | ((weight < 0) & (index > 0)).astype(np.uint8) << 3
    return codes[:, ::2] | codes[:, 1::2] << 4, scales


def decode(codes: Array, scales: Array, g: float) -> Array:
    """Weights [rows, K], float32."""
    indexes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1)
    values = scales.view(ml_dtypes.float8_e4m3fn).astype(np.float32).repeat(16, -1) * np.float32(g)
    return LEVELS[indexes & 7] * np.where(indexes & 8, -1, 1).astype(np.float32) * values


def packed(layout: str, weight: Array, g: float, *, block: int = 16, inputs: bool = False) -> dict[str, Array]:
    """The tensors of a matrix by leaf."""
    codes, scales = encode(weight, 1.0 if layout == "mlx" else g, block)
    match layout:
        case "mlx":
            return {"weight": codes.view(np.uint32), "scales": scales}
        case "modelopt":
            found = {"weight": codes, "weight_scale": scales.view(FP8), "weight_scale_2": np.float32(g).reshape(())}
            return {**found, "input_scale": np.array(0.003, np.float32)} if inputs else found
    found = {"weight_packed": codes, "weight_scale": scales.view(FP8)}
    found["weight_global_scale"] = np.array([1 / g], np.float32)
    return {**found, "input_global_scale": np.array([300.0], np.float32)} if inputs else found


def draft(layout: str, *, experts: int = 0, inputs: bool = False, sigma: float = 0.02, shards: int = 1) -> Draft:
    """A good folder of a layout, as another program writes it; "plain" for one that is not quantized."""
    given = llama(experts=experts, sigma=sigma)
    chosen = [name for name in given if name.endswith("_proj")] if layout != "plain" else []
    shared = _tensor_scales(given, chosen)
    tensors: dict[str, Array] = {}
    for name, weight in given.items():
        if name in shared:
            parts = packed(layout, weight, shared[name], inputs=inputs)
            tensors |= {f"{name}.{leaf}": array for leaf, array in parts.items()}
        else:
            tensors[f"{name}.weight"] = weight.astype(BF16)
    made = Draft(layout, tensors, config(experts=experts), shards=shards)
    kept = [name for name, weight in given.items() if name not in shared and weight.ndim > 1]
    _declare(made, kept, inputs=inputs)
    return made


def _tensor_scales(given: dict[str, Array], chosen: list[str]) -> dict[str, float]:
    """g of each matrix, one for those that are joined."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name in chosen:
        parent, _, leaf = name.rpartition(".")
        place = next((number for number, members in enumerate(FUSED) if leaf in members), None)
        groups.setdefault((parent if place is not None else name, place if place is not None else -1), []).append(name)
    found = {}
    for names in groups.values():
        g = max(float(np.abs(given[name]).max()) for name in names) / 2688
        found |= dict.fromkeys(names, float(np.float32(g)))
    return found


def _declare(made: Draft, kept: list[str], *, inputs: bool) -> None:
    four = {"num_bits": 4, "type": "float", "group_size": 16}
    match made.layout:
        case "mlx":
            made.config["quantization"] = {"group_size": 16, "bits": 4, "mode": "nvfp4"}
            made.config["quantization_config"] = made.config["quantization"]
        case "modelopt":
            algorithm = {"quant_algo": "NVFP4" if inputs else "W4A16_NVFP4"}
            group = {"weights": four, "targets": ["Linear"], **({"input_activations": four} if inputs else {})}
            section = {"config_groups": {"group_0": group}, "ignore": kept, "quant_method": "modelopt", **algorithm}
            made.config["quantization_config"] = section
            inner = {**algorithm, "kv_cache_quant_algo": None, "group_size": 16, "exclude_modules": kept}
            made.beside = {"producer": {"name": "modelopt"}, "quantization": inner}
        case "compressed-tensors":
            name = "nvfp4-pack-quantized"
            activations = {**four, "dynamic": "local"} if inputs else None
            group = {"format": name, "targets": ["Linear"], "weights": four, "input_activations": activations}
            section = {
                "config_groups": {"group_0": group},
                "format": name,
                "ignore": [n for n in kept if "embed" not in n],
            }
            made.config["quantization_config"] = {**section, "quant_method": "compressed-tensors"}
