"""Defects to plant in good folders: what is spoilt, in which layouts, and under which name it is found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.core.checkpoints import BF16, INDEX, shard_name, tensors_of
from tests.core.findings.building import FP8, WHERE, Draft, decode, encode, llama, packed

TORCH = ("modelopt", "compressed-tensors")
PACKED = (*TORCH, "mlx")
QUERY = "model.layers.1.self_attn.q_proj"

Spoil = Callable[[Draft], None]


def set_part(part: str, change: Callable[[Any], Any], matrix: str = WHERE) -> Spoil:
    def spoil(made: Draft) -> None:
        name = made.part(part, matrix=matrix)
        made.tensors[name] = change(made.tensors[name])

    return spoil


def _drop(*parts: str, matrix: str = WHERE) -> Spoil:
    def spoil(made: Draft) -> None:
        for part in parts:
            del made.tensors[made.part(part, matrix=matrix)]

    return spoil


def byte(value: int, share: float = 0.01) -> Callable[[Any], Any]:
    """Some block scales made this byte."""

    def change(scales: Any) -> Any:
        spoilt = scales.view(np.uint8).copy()
        spoilt.reshape(-1)[: max(int(spoilt.size * share), 1)] = value
        return spoilt.view(scales.dtype)

    return change


def _lane_bug(made: Draft) -> None:
    weight = llama()[WHERE]
    g = float(np.abs(weight).max()) / 2688
    made.tensors |= {f"{WHERE}.{leaf}": array for leaf, array in packed(made.layout, weight, g, block=32).items()}


def _plain(matrix: str) -> Spoil:
    """A packed matrix stored plain."""

    def spoil(made: Draft) -> None:
        for name in [name for name in made.tensors if name.startswith(f"{matrix}.")]:
            del made.tensors[name]
        made.tensors[f"{matrix}.weight"] = llama()[matrix].astype(BF16)

    return spoil


def _pack(matrix: str) -> Spoil:
    """A plain matrix stored packed."""

    def spoil(made: Draft) -> None:
        weight = llama()[matrix]
        del made.tensors[f"{matrix}.weight"]
        parts = packed(made.layout, weight, float(np.abs(weight).max()) / 2688)
        made.tensors |= {f"{matrix}.{leaf}": array for leaf, array in parts.items()}

    return spoil


def _list_of(made: Draft) -> list[str]:
    listed: list[str] = made.section()["ignore"]
    return listed


def _pack_listed_head(made: Draft) -> None:
    _pack("lm_head")(made)
    _list_of(made).remove("lm_head")
    if made.beside:
        made.beside["quantization"]["exclude_modules"] = _list_of(made)


def _pack_tied_head(made: Draft) -> None:
    _pack("lm_head")(made)
    made.config["tie_word_embeddings"] = True


def _eight_bits(made: Draft) -> None:
    codes = made.tensors[made.part("codes")]
    made.tensors[made.part("codes")] = np.repeat(codes, 2, axis=1)


def as_fp8(made: Draft) -> None:
    for name in [name for name in made.tensors if name.startswith(f"{WHERE}.")]:
        del made.tensors[name]
    made.tensors[f"{WHERE}.weight"] = (llama()[WHERE] * 100).astype(FP8)
    made.tensors[f"{WHERE}.weight_scale"] = np.array([0.01], np.float32)


def _section(**content: Any) -> Spoil:
    def spoil(made: Draft) -> None:
        made.config["quantization_config"] = content

    return spoil


def _old_gptq(made: Draft) -> None:
    """What AutoGPTQ wrote beside, left over."""
    made.files["quantize_config.json"] = b'{"bits": 4, "group_size": 128, "desc_act": false, "sym": true}'


def _undeclared(made: Draft) -> None:
    for key in ("quantization", "quantization_config"):
        made.config.pop(key, None)
    made.beside = {}


def entry(text: str) -> Spoil:
    def spoil(made: Draft) -> None:
        _list_of(made).append(text)
        if made.beside:
            made.beside["quantization"]["exclude_modules"] = _list_of(made)

    return spoil


def _stale_list(made: Draft) -> None:
    _list_of(made)[:] = ["transformer.output"]
    if made.beside:
        made.beside["quantization"]["exclude_modules"] = _list_of(made)


def _no_expert_input(made: Draft) -> None:
    del made.tensors[made.part("input", matrix="model.layers.0.mlp.experts.2.up_proj")]


def _no_inputs(made: Draft) -> None:
    for name in [name for name in made.tensors if "input_" in name and "layernorm" not in name]:
        del made.tensors[name]


def _config(**values: Any) -> Spoil:
    def spoil(made: Draft) -> None:
        made.config |= values

    return spoil


def third(value: float) -> Callable[[Any], Any]:
    return lambda stored: np.full_like(stored, value)


def _override(said: Any, path: str) -> Spoil:
    def spoil(made: Draft) -> None:
        made.config["quantization"][path] = said

    return spoil


def _global_scale(made: Draft) -> None:
    made.tensors[f"{WHERE}.global_scale"] = np.array(2688.0, np.float32)


def _no_head(made: Draft) -> None:
    del made.tensors["lm_head.weight"]


def _plain_part(change: Callable[[Any], Any], name: str = "lm_head.weight") -> Spoil:
    def spoil(made: Draft) -> None:
        made.tensors[name] = change(made.tensors[name])

    return spoil


def _one(value: float) -> Callable[[Any], Any]:
    def change(weights: Any) -> Any:
        spoilt = weights.copy()
        spoilt[-1, -1] = value
        return spoilt

    return change


def _as_nvfp4(weights: Any) -> Any:
    """What a checkpoint that was decoded holds."""
    return decode(*encode(weights.astype(np.float32), 1e-5), 1e-5).astype(weights.dtype)


def _as_int4(weights: Any) -> Any:
    groups = weights.astype(np.float32).reshape(len(weights), -1, 64)
    low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
    step = (high - low) / 15
    return (np.rint((groups - low) / step) * step + low).reshape(weights.shape).astype(weights.dtype)


def _as_decoded_fp8(weights: Any) -> Any:
    values = weights.astype(np.float32)
    scale = np.abs(values).max() / 448
    return ((values / scale).astype(FP8).astype(np.float32) * scale).astype(weights.dtype)


def _mostly_plain(made: Draft) -> None:
    names = [name for name in llama() if name.endswith("_proj") and not name.startswith("model.layers.0.")]
    for name in names:
        _plain(name)(made)
    for listed in [_list_of(made)] if made.layout != "mlx" else []:
        listed += names
        made.beside = {} if made.layout == "modelopt" else made.beside


def _twice_the_head(made: Draft) -> None:
    made.tensors["lm_head.weight"] = made.tensors["model.embed_tokens.weight"].copy()


def _weights_of_group(**said: Any) -> Spoil:
    """What the one group says of its weights; of MLX the section itself."""

    def spoil(made: Draft) -> None:
        if made.layout == "mlx":
            made.section().update(said)
        else:
            made.section()["config_groups"]["group_0"]["weights"] |= said

    return spoil


def _group(**said: Any) -> Spoil:
    def spoil(made: Draft) -> None:
        made.section()["config_groups"]["group_0"] |= said

    return spoil


def _algorithm(made: Draft) -> None:
    made.beside["quantization"]["quant_algo"] = "FP8"


def _all_inputs(change: Callable[[Any], Any]) -> Spoil:
    def spoil(made: Draft) -> None:
        for name in [name for name in made.tensors if name.endswith((".input_scale", ".input_global_scale"))]:
            made.tensors[name] = change(made.tensors[name])

    return spoil


def _undeclared_inputs(made: Draft) -> None:
    made.section()["config_groups"]["group_0"]["input_activations"] = None


def _zero(made: Draft) -> None:
    for part in ("codes", "scales"):
        set_part(part, lambda array: np.zeros_like(array.view(np.uint8)).view(array.dtype))(made)


def _without(*starts: str) -> Spoil:
    """Whatever begins with these names left out."""

    def spoil(made: Draft) -> None:
        for name in [name for name in made.tensors if name.startswith(starts)]:
            del made.tensors[name]

    return spoil


def _file(name: str, content: bytes) -> Spoil:
    def spoil(made: Draft) -> None:
        made.files[name] = content

    return spoil


def _as_dtype(dtype: Any) -> Callable[[Any], Any]:
    return lambda array: array.view(np.uint8).view(dtype)


_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n"
_DOWN = "model.layers.2.mlp.down_proj"

DEFECTS: list[tuple[str, tuple[str, ...], Spoil, dict[str, Any]]] = [
    ("scales-nan", PACKED, set_part("scales", byte(0x7F)), {}),
    ("scales-nan", PACKED, set_part("scales", byte(0xFF, 0)), {}),
    ("scales-negative", PACKED, set_part("scales", byte(0xB8)), {}),
    ("scales-zero", PACKED, set_part("scales", byte(0x00)), {}),
    ("scales-saturated", PACKED, set_part("scales", byte(0x7E, 0.2)), {}),
    ("lane-bug", PACKED, _lane_bug, {}),
    ("tensor-scale-missing", TORCH, _drop("third"), {}),
    ("tensor-scale-unusable", TORCH, set_part("third", third(0)), {}),
    ("tensor-scale-unusable", TORCH, set_part("third", third(-1e-5)), {}),
    ("tensor-scale-unusable", TORCH, set_part("third", third(float("nan"))), {}),
    ("tensor-scale-unusable", TORCH, set_part("third", third(float("inf"))), {}),
    ("tensor-scale-meaning", TORCH, set_part("third", lambda stored: 1 / stored), {}),
    ("tensor-scale-meaning", ("modelopt",), set_part("third", lambda stored: stored * np.float32(2688)), {}),
    ("tensor-scale-meaning", ("compressed-tensors",), set_part("third", lambda stored: 2688 / stored), {}),
    ("fused-scales", TORCH, set_part("third", lambda stored: stored * np.float32(1.25), QUERY), {}),
    ("fused-partly", TORCH, _plain(QUERY), {}),
    ("codes-without-scales", PACKED[1:], _drop("scales"), {}),
    ("scale-shape", TORCH, set_part("scales", lambda scales: scales[:, :-1].copy()), {}),
    ("scale-shape", TORCH, set_part("scales", lambda scales: scales[:-1].copy()), {}),
    ("scale-shape", TORCH, set_part("scales", lambda scales: scales.reshape(-1)[0]), {}),
    ("claims-other-bits", TORCH, _eight_bits, {}),
    ("claims-other-bits", TORCH, as_fp8, {}),
    ("not-excluded", TORCH, _plain(WHERE), {}),
    ("not-excluded", TORCH, lambda made: _list_of(made).remove("lm_head"), {}),
    ("excluded-packed", TORCH, entry(WHERE), {}),
    ("excluded-packed", ("compressed-tensors",), entry(r"re:.*layers\.1\..*o_proj$"), {}),
    ("excluded-packed", ("modelopt",), entry("model.layers.1.*"), {}),
    ("exclusions-idle", TORCH, _stale_list, {}),
    ("exclusion-malformed", ("compressed-tensors",), entry("re:(lm_head"), {}),
    ("section-leftover", ("plain",), _section(quant_method="compressed-tensors", config_groups={}), {}),
    ("section-leftover", ("plain",), _section(quant_method="modelopt", quant_algo="NVFP4"), {}),
    ("section-leftover", ("plain",), _old_gptq, {}),
    ("section-missing", PACKED, _undeclared, {}),
    ("section-contradicts", PACKED[1:], _section(quant_method="modelopt", quant_algo="NVFP4"), {}),
    ("section-contradicts", PACKED, _section(quant_method="gptq", bits=4, group_size=128), {}),
    ("section-contradicts", ("modelopt",), _section(quant_method="modelopt", producer={}), {}),
    ("head-untargeted", ("compressed-tensors",), _pack_listed_head, {}),
    ("head-tied-packed", PACKED, _pack_tied_head, {}),
    ("head-missing", ("plain", *PACKED), _no_head, {}),
    ("embedding-packed", TORCH, _pack("model.embed_tokens"), {}),
    ("inputs-missing", TORCH, _no_inputs, {"inputs": True}),
    ("inputs-unusable", TORCH, set_part("input", third(0)), {"inputs": True}),
    ("experts-unrouted", TORCH, _no_expert_input, {"inputs": True, "experts": 4}),
    ("mlx-tensor-scale", ("mlx",), _global_scale, {}),
    ("mlx-model-file", ("mlx",), _config(model_file="tiers.py"), {}),
    ("mlx-override", ("mlx",), _override(False, WHERE), {}),
    ("mlx-override", ("mlx",), _override({"group_size": 64, "bits": 8}, "lm_head"), {}),
    ("mlx-must-be-plain", ("mlx",), lambda made: _as_mla(made), {}),
    ("tokenizer-missing", ("plain", *PACKED), lambda made: made.files.clear(), {}),
    ("config-dtype", ("plain", *PACKED), _config(dtype="float16"), {}),
    ("weights-nan", ("plain", *PACKED), _plain_part(_one(float("nan"))), {}),
    ("weights-nan", ("plain", *PACKED), _plain_part(_one(float("-inf")), "model.embed_tokens.weight"), {}),
    ("float16-overflow", ("plain", *PACKED), _plain_part(_one(-1e6)), {}),
    ("float16-overflow", ("modelopt",), set_part("third", third(30.0)), {}),
    ("coarse-weights", ("plain", *PACKED), _plain_part(_as_nvfp4), {}),
    ("coarse-weights", ("plain",), _plain_part(_as_int4), {}),
    ("coarse-weights", ("plain",), _plain_part(_as_decoded_fp8), {}),
    ("mostly-plain", PACKED, _mostly_plain, {}),
    ("head-duplicate", ("plain", *PACKED), _twice_the_head, {}),
    ("head-differs", ("plain",), _config(tie_word_embeddings=True), {}),
    ("scale-dtype", TORCH, set_part("scales", _as_dtype(np.uint8), _DOWN), {}),
    ("scale-dtype", ("mlx",), set_part("scales", _as_dtype(FP8)), {}),
    ("scale-dtype", ("modelopt",), set_part("scales", lambda scales: scales.astype(np.float32).astype(BF16)), {}),
    ("scale-dtype", ("compressed-tensors",), set_part("scales", _as_dtype(ml_dtypes.float8_e8m0fnu)), {}),
    ("scale-shape", ("mlx",), set_part("scales", lambda scales: scales.T.copy(), _DOWN), {}),
    ("scales-without-codes", ("modelopt",), _drop("codes", matrix=_DOWN), {}),
    ("tensor-scale-form", ("modelopt",), set_part("third", lambda stored: stored.astype(BF16)), {}),
    ("tensor-scale-form", ("compressed-tensors",), set_part("third", lambda stored: stored.repeat(2)), {}),
    ("tensor-scale-odd", ("modelopt",), set_part("third", lambda stored: stored * np.float32(448)), {}),
    ("tensor-scale-odd", ("compressed-tensors",), set_part("third", np.square), {}),
    ("claims-other-format", PACKED, _weights_of_group(group_size=32), {}),
    ("claims-other-format", ("compressed-tensors",), _group(format="pack-quantized"), {}),
    ("claims-other-format", ("mlx",), _weights_of_group(mode="affine"), {}),
    ("claims-other-format", ("mlx",), _weights_of_group(mode="mxfp4"), {}),
    ("sections-disagree", ("modelopt",), _algorithm, {}),
    ("sections-disagree", ("modelopt",), _weights_of_group(type="int"), {}),
    ("weight-shape", ("plain",), _plain_part(lambda weights: weights[:-8].copy(), f"{WHERE}.weight"), {}),
    ("not-targeted", ("compressed-tensors",), _group(targets=[r"re:transformer\.h.*"]), {}),
    ("inputs-implausible", TORCH, _all_inputs(lambda stored: 1 / stored), {"inputs": True}),
    ("inputs-undeclared", ("compressed-tensors",), _undeclared_inputs, {"inputs": True}),
    ("fused-inputs", TORCH, set_part("input", lambda stored: stored * np.float32(9), QUERY), {"inputs": True}),
    ("weights-zero", PACKED, _zero, {}),
    ("weights-zero", ("plain",), _plain_part(np.zeros_like), {}),
    ("weight-missing", ("plain",), _without("model.layers.1.input_layernorm"), {}),
    ("weight-missing", ("mlx",), _without(f"{_DOWN}."), {}),
    ("weight-missing", ("plain",), _without("model.embed_tokens"), {}),
    ("blocks-missing", ("plain",), _config(num_hidden_layers=5), {}),
    ("blocks-missing", ("modelopt",), _without("model.layers.1."), {}),
    ("config-sizes", ("plain",), _config(vocab_size=999), {}),
    ("config-sizes", ("plain",), _config(hidden_size=384), {}),
    ("tokenizer-unreadable", ("modelopt",), _file("tokenizer.json", _LFS), {}),
    ("document-unreadable", ("plain",), _file("generation_config.json", b"{"), {}),
    (
        "tokenizer-missing",
        ("plain",),
        lambda made: made.files.update({"tokenizer_config.json": made.files.popitem()[1]}),
        {},
    ),
    ("exclusion-idle", TORCH, entry("model.layers.9.mlp.down_proj"), {}),
    ("scales-coarse", ("mlx",), lambda _made: None, {"sigma": 0.004}),
]


def _as_mla(made: Draft) -> None:
    made.config |= {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}
    for leaf in ("weight", "scales"):
        made.tensors[f"model.layers.1.self_attn.kv_b_proj.{leaf}"] = made.tensors.pop(f"{WHERE}.{leaf}")


def _cut(folder: Path) -> None:
    path = folder / shard_name(1, 3)
    path.write_bytes(path.read_bytes()[:-100])


def _lfs(folder: Path) -> None:
    (folder / shard_name(1, 3)).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


def _index(size: int = 0, **changes: str | None) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / INDEX
        content = json.loads(path.read_text())
        content["metadata"] |= {"total_size": size} if size else {}
        for name, file in changes.items():
            if file is None:
                del content["weight_map"][name.replace("__", ".")]
            else:
                content["weight_map"][name.replace("__", ".")] = file
        path.write_text(json.dumps(content))

    return spoil


def _twice(folder: Path) -> None:
    """The first tensor of the second shard in the third, too, with the same content."""
    name, first = next(iter(tensors_of(folder / shard_name(1, 3)).items()))
    data = (folder / shard_name(1, 3)).read_bytes()[first.start : first.start + first.nbytes]
    path = folder / shard_name(2, 3)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, end = json.loads(raw[8 : 8 + length]), len(raw) - 8 - length
    header[name] = {"dtype": first.dtype, "shape": list(first.shape), "data_offsets": [end, end + len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :] + data)


def _header(metadata: dict[str, str], number: int) -> Callable[[Path], None]:
    """A shard with other metadata."""

    def spoil(folder: Path) -> None:
        path = folder / shard_name(number, 3)
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.dumps({**json.loads(raw[8 : 8 + length]), "__metadata__": metadata}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])

    return spoil


BROKEN: list[tuple[str, Callable[[Path], Any]]] = [
    ("shard-unreadable", _cut),
    ("shard-unreadable", _lfs),
    ("shard-missing", lambda folder: (folder / shard_name(1, 3)).unlink()),
    ("index-unreadable", lambda folder: (folder / INDEX).write_text("{")),
    ("index-unreadable", lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": 1}}')),
    ("index-size", _index(77)),
    ("tensor-missing", _index(lost__weight=shard_name(0, 3))),
    ("tensor-moved", _index(lm_head__weight=shard_name(0, 3))),
    ("tensor-unlisted", _index(lm_head__weight=None)),
    ("tensor-twice", _twice),
    ("shard-unlisted", lambda folder: shutil.copy(folder / shard_name(0, 3), folder / "model-old.safetensors")),
    ("metadata-format", _header({"by": "hand"}, 1)),
    ("metadata-format", _header({"format": "np"}, 0)),
    ("shard-foreign", _header({"format": "mlx"}, 2)),
    ("config-missing", lambda folder: (folder / "config.json").unlink()),
    ("config-unreadable", lambda folder: (folder / "config.json").write_text("{]")),
]


def flip(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return spoil


def swap_nibbles(codes: Any) -> Any:
    pairs = codes.view(np.uint8)
    return (pairs << 4 | pairs >> 4).view(codes.dtype)
