"""What is mutated: a small good checkpoint of every layout, and files beside one, each with the code that reads it."""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from studio import core
from studio.core.containers.files import SourceFile
from studio.core.containers.gguf import TYPES, GgmlType
from studio.core.containers.safetensors import read_header
from studio.core.exporting.contents import MANIFEST
from studio.core.reporting.quality_report import quality_html
from studio.core.statistics.guides import context_of
from tests.core.checkpoints import BF16, CONFIG, DISK_NAMES, E8M0, FP8, INDEX, checkpoint, llama, shard_name
from tests.core.gguf_models import PAIRS
from tests.core.quality.test_results import WINDOWS, quality
from tests.core.sources.test_hostile_integers import LAYER, SECTIONS, STORED
from tests.core.statistics_files import statistics_of
from tests.faults.mutants import Document

Tensors = Mapping[str, Any]
_MODEL = "model.safetensors"
_NAMES = Path(__file__).parents[1] / "core" / "architectures" / "names.tsv"
READ_ROWS = 4
"""Rows of a layer that are read where its codes can be."""


@dataclass(frozen=True)
class Target:
    """Documents that are mutated, by the names of their files; files that stay; and what reads them all."""

    name: str
    documents: Mapping[str, Document]
    read: Callable[[Path], Any]
    files: Mapping[str, bytes]


def targets(place: Path) -> Iterator[Target]:
    """All targets; `place` is an empty folder that belongs to them."""
    yield from (_layout(name, *made) for name, made in _layouts().items())
    yield Target("config", {"config.json": _json(CONFIG)}, look, {_MODEL: _tensors(_plain()).rendered()})
    yield _sharded()
    yield from _gguf_files()
    yield from _beside_a_model(place)
    yield _exported(place)


def words() -> list[str]:
    """Names and texts that documents of checkpoints hold, of all layouts, and of all architectures that are known."""
    found = dict.fromkeys(DISK_NAMES.values())
    for tensors, config, beside in _layouts().values():
        found |= dict.fromkeys([*tensors, *_texts(config), *_texts(beside)])
    with _NAMES.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            found |= dict.fromkeys((line["model_type"], line["tensor"]))
    return [*found, *_texts(PAIRS), *_texts(_linear().to_json())]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def look(path: Path) -> list[str]:
    """Open a checkpoint, ask what is known of its layers, and read some rows; returns what was said of it."""
    with core.open_model(path) as model:
        return _look_at(model)


def _look_at(model: core.Model) -> list[str]:
    said = [model.quantized_by, *model.warnings, model.read_by, model.architecture]
    for layer in model.layers:
        assert layer.matrices or layer.obstacle
        said.append(f"{layer.role} {layer.source.meaning} {layer.obstacle}")
        assert min(layer.nbytes, layer.kept_nbytes, layer.source.bits, layer.count) >= 0
    assert model.block_count >= 0
    said.append(f"{model.is_tied} {model.generates}")
    with suppress(core.PlanError):
        core.resolve(_linear(), model)
    with suppress(core.CheckpointError):
        _read(model)
        said += [document.name for document in model.documents if document.content]
    return said


@cache
def _linear() -> core.Plan:
    return core.preset("linear")


def _read(model: core.Model) -> None:
    for layer in islice((layer for layer in model.layers if layer.source.meaning != layer.dtype), 2):
        for matrix in layer.matrices[:2]:
            layer.source.rows(matrix, 0, min(matrix.rows, READ_ROWS))


def _layout(name: str, tensors: Tensors, config: Any, beside: Mapping[str, Any]) -> Target:
    documents = {_MODEL: _tensors(tensors), "config.json": _json(config)}
    return Target(name, documents | {file: _json(told) for file, told in beside.items()}, look, {})


def _json(value: Any) -> Document:
    return Document("json", json.dumps(value))


def _tensors(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Document:
    header: dict[str, Any] = {"__metadata__": metadata or {"format": "pt"}}
    header |= {name: {"dtype": DISK_NAMES[a.dtype], "shape": list(a.shape)} for name, a in tensors.items()}
    return Document("safetensors", json.dumps(header), {name: array.tobytes() for name, array in tensors.items()})


def _bytes(dtype: Any, *shape: int) -> Any:
    """Numbers around one, or any bytes, the same each time."""
    if np.dtype(dtype) in (BF16, FP8, np.float32):
        return np.random.default_rng(len(shape)).uniform(0.5, 2, shape).astype(dtype)
    return np.random.default_rng(len(shape)).integers(0, 127, shape).astype(np.uint8).view(dtype)


def _words(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 1 << 31, shape).astype(np.uint32)


def _plain(blocks: int = 1) -> dict[str, Any]:
    return dict(llama(blocks, 16, 32, 16))


def _module(leaves: Mapping[str, Any], module: str = LAYER) -> dict[str, Any]:
    """A module in parts, one of the same kind that is joined with it, and a plain one."""
    other = module.replace("up_proj", "gate_proj")
    found = {f"{name}.{leaf}": array for name in (module, other) for leaf, array in leaves.items()}
    return found | {"model.norm.weight": _bytes(BF16, 64), "lm_head.weight": _bytes(BF16, 8, 64)}


def _layouts() -> dict[str, tuple[Tensors, Any, Mapping[str, Any]]]:
    """By name: tensors, config, and documents beside it."""
    codes, scales, one = _bytes("u1", 16, 32), _bytes(FP8, 16, 4), _bytes(np.float32, 1)
    fp8 = _bytes(FP8, 16, 64)
    of_modelopt = {"quant_algo": "NVFP4", "kv_cache_quant_algo": None, "group_size": 16, "exclude_modules": ["lm_head"]}
    mixed = {f"{LAYER}": {"quant_algo": "FP8"}, "lm_head": {"quant_algo": "W4A16_NVFP4", "group_size": 16}}
    whole = {"type": "float", "num_bits": 4, "group_size": 16, "strategy": "tensor_group", "symmetric": True}
    group = {"targets": ["Linear"], "weights": whole, "input_activations": None}
    packed = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"]}
    mlx = {"group_size": 64, "bits": 4, "mode": "affine", "lm_head": False, LAYER: {"group_size": 32, "bits": 8}}
    made: dict[str, tuple[Tensors, Any]] = {
        "plain": (_plain(), {}),
        "mlx integers": (
            _module({"weight": _words(16, 8), "scales": _bytes(BF16, 16, 1), "biases": _bytes(BF16, 16, 1)}),
            {"quantization": mlx, "quantization_config": mlx},
        ),
        "mlx nvfp4": (
            _module({"weight": _words(16, 8), "scales": _bytes("u1", 16, 4), "global_scale": one}),
            {"quantization": {"group_size": 16, "bits": 4, "mode": "nvfp4"}},
        ),
        "mlx mxfp8": (
            _module({"weight": _words(16, 16), "scales": _bytes("u1", 16, 2)}),
            {"quantization": {"group_size": 32, "bits": 8, "mode": "mxfp8"}},
        ),
        "modelopt": (
            _module({"weight": codes, "weight_scale": scales, "weight_scale_2": one[0], "input_scale": one[0]}),
            {"quantization_config": {"quant_method": "modelopt", **of_modelopt}},
        ),
        "modelopt fp8": (
            _module({"weight": fp8, "weight_scale": one[0], "input_scale": one[0]}),
            {"quantization_config": {"quant_method": "modelopt", "quant_algo": "MIXED", "quantized_layers": mixed}},
        ),
        "compressed-tensors": (
            _module({"weight_packed": codes, "weight_scale": scales, "weight_global_scale": one})
            | {f"{LAYER}.input_global_scale": one},
            {"quantization_config": {**packed, "format": "nvfp4-pack-quantized"}},
        ),
        "compressed-tensors fp8": (
            _module({"weight": fp8, "weight_scale": _bytes(BF16, 16, 1)}),
            {"quantization_config": {**packed, "format": "float-quantized"}},
        ),
        "gpt-oss": (
            {
                "model.layers.0.mlp.experts.gate_up_proj_blocks": _bytes("u1", 2, 32, 2, 16),
                "model.layers.0.mlp.experts.gate_up_proj_scales": _bytes("u1", 2, 32, 2),
                "model.layers.0.mlp.experts.gate_up_proj_bias": _bytes(BF16, 2, 32),
            },
            {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": []}},
        ),
        "torchao": (
            _module({"_weight_qdata": codes, "_weight_scale": scales, "_weight_per_tensor_scale": one[0]}),
            {"quantization_config": {"quant_method": "torchao"}},
        ),
        "deepseek v3": (
            _module({"weight": fp8, "weight_scale_inv": _bytes(np.float32, 1, 1)}),
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}},
        ),
        "deepseek v4": (
            _module({"weight": _bytes("i1", 16, 32), "scale": _bytes(E8M0, 16, 2)}),
            {"quantization_config": {"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [1, 32]}},
        ),
    }
    made |= _of_few_bits(codes, scales, one)
    quark = {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}}}
    made["quark mxfp4"] = (
        _module({"weight": codes, "weight_scale": _bytes("u1", 16, 2)}),
        {"quantization_config": quark},
    )
    of_integers = {"awq": 2, "gptq": 0, "compressed-tensors": 4, "eight bits": 5, "quark": 6, "nf4": 8, "int8": 8}
    for kind, number in of_integers.items():
        made[f"integers, {kind}"] = (STORED[kind], {"quantization_config": SECTIONS[number]})
    beside = {
        "modelopt": {"hf_quant_config.json": {"producer": {"name": "modelopt"}, "quantization": of_modelopt}},
        "integers, gptq": {"quantize_config.json": {"bits": 4, "group_size": 32, "desc_act": False, "sym": True}},
        "integers, awq": {"quant_config.json": {"w_bit": 4, "q_group_size": 32, "zero_point": True}},
        "plain": {"generation_config.json": {"eos_token_id": 2}, "tokenizer_config.json": {"eos_token": "</s>"}},
    }
    return {name: (tensors, {**CONFIG, **config}, beside.get(name, {})) for name, (tensors, config) in made.items()}


def _of_few_bits(codes: Any, scales: Any, one: Any) -> dict[str, tuple[Tensors, Any]]:
    """Weights whose inputs are multiplied by a vector, and integers of ModelOpt and torchao."""
    factors, of_rows, bytes_of_rows = _bytes(BF16, 64), _bytes(BF16, 16, 1), _bytes("i1", 16, 64)
    smooth = {"weight": codes, "weight_scale": scales, "weight_scale_2": one[0], "pre_quant_scale": factors}
    awq = {"weight": _bytes("u1", 8, 64), "weight_scale": of_rows, "pre_quant_scale": factors}
    zeros = {"_weight_zero_point": _bytes("i1", 16, 1)}
    said = {
        algorithm: {"quantization_config": {"quant_method": "modelopt", "quant_algo": algorithm}}
        for algorithm in ("NVFP4_AWQ", "W4A16_AWQ")
    }
    by_torchao = {"quantization_config": {"quant_method": "torchao"}}
    return {
        "modelopt smoothed": (_module(smooth), said["NVFP4_AWQ"]),
        "modelopt integers": (_module(awq), said["W4A16_AWQ"]),
        "torchao integers": (_module({"_weight_qdata": bytes_of_rows, "_weight_scale": of_rows, **zeros}), by_torchao),
    }


def _sharded() -> Target:
    """Two shards and their index."""
    tensors, (first, second) = _plain(), (shard_name(number, 2) for number in range(2))
    owner = {name: (first, second)[number % 2] for number, name in enumerate(tensors)}
    shards = {
        shard: _tensors({name: tensors[name] for name in tensors if owner[name] == shard}) for shard in (first, second)
    }
    index = _json({"metadata": {"total_size": 1}, "weight_map": owner})
    files = {"config.json": json.dumps(CONFIG).encode(), second: shards[second].rendered()}
    return Target("index", {INDEX: index, first: shards[first]}, look, files)


def _gguf_files() -> Iterator[Target]:
    """A model in one file alone, and in a folder beside a config that takes the place of its own."""
    pairs = {**PAIRS, "llama.block_count": 1, "tokenizer.ggml.tokens": ["a", "b", "<s>", "ab"]}
    pairs |= {"tokenizer.ggml.token_type": [1, 1, 3, 1], "tokenizer.ggml.merges": ["a b"]}
    yield Target("gguf", {"m.gguf": _gguf(pairs)}, lambda folder: look(folder / "m.gguf"), {})
    config = json.dumps({**CONFIG, "num_hidden_layers": 1, "vocab_size": 4}).encode()
    yield Target("gguf folder", {"m.gguf": _gguf(pairs)}, look, {"config.json": config})


def _gguf(pairs: Mapping[str, Any]) -> Document:
    """Tensors of many types, all bytes zero."""
    kinds = {"attn_q": 0, "attn_k": 1, "attn_v": 2, "attn_output": 3, "ffn_gate": 40, "ffn_up": 8, "ffn_down": 39}
    shapes: dict[str, tuple[tuple[int, ...], int]] = {
        "token_embd.weight": ((4, 64), 30),
        "output_norm.weight": ((64,), 0),
    }
    for name, kind in kinds.items():
        shapes[f"blk.0.{name}.weight"] = ((32 if name in ("attn_k", "attn_v") else 64, 64), kind)
    shapes |= {"blk.0.ffn_gate.scale": ((1,), 0), "blk.0.attn_norm.weight": ((64,), 0), "rope_freqs.weight": ((8,), 0)}
    data = {name: _content(TYPES[kind], math.prod(shape)) for name, (shape, kind) in shapes.items()}
    told = {"pairs": dict(pairs), "infos": [[name, list(shape), kind, None] for name, (shape, kind) in shapes.items()]}
    return Document("gguf", json.dumps(told), data)


def _content(kind: GgmlType, count: int) -> bytes:
    """Ones in float32, zeros in other types."""
    return np.ones(count, np.float32).tobytes() if kind.name == "F32" else bytes(kind.nbytes * count // kind.weights)


def _beside_a_model(place: Path) -> Iterator[Target]:
    """Plans, statistics, importance files of both forms, and evaluations."""
    model = core.open_model(checkpoint(place / "model", _plain(2), {**CONFIG, "hidden_size": 16}))
    plan = _linear().preceded_by([core.include_rule("*down_proj=mxfp8", ""), core.pin_rule("re:q_p=keep")])
    yield Target("plan", {"f": _json(plan.to_json())}, lambda folder: _resolved(folder / "f", model), {})
    statistics = _of_file(statistics_of(model, place / "statistics"))
    yield Target("statistics", {"f": statistics}, lambda folder: _guided(folder / "f", model), {})
    sums = {"blk.0.attn_q.weight": np.ones((1, 16), np.float32), "blk.1.ffn_down.weight": np.ones((1, 32), np.float32)}
    importance = _importance(sums)
    yield Target("imatrix", {"f": importance}, lambda folder: _guided(folder / "f", model), {})
    evaluation = _json(quality(WINDOWS).to_json())
    yield Target("evaluation", {"f": evaluation}, lambda folder: _evaluation(folder / "f"), {})


def _resolved(path: Path, model: core.Model) -> list[str]:
    plan = core.load_plan(path)
    return [choice.format for choice in core.resolve(plan, model)] + [str(rule) for rule in plan.rules]


def _guided(path: Path, model: core.Model) -> list[str]:
    """Everything that methods ask a file of statistics."""
    file = core.open_statistics(path, model)
    for layer in model.layers:
        for matrix in layer.matrices:
            file.tokens_of(layer, matrix), file.peak_of(layer, matrix)
            if found := file.of(layer, matrix):
                context_of(found)
    return [file.kind, *core.gaps(model, file), *map(repr, core.unseen(file, model)[1])]


def _evaluation(path: Path) -> list[str]:
    """An evaluation as a page and in tables."""
    found = core.load_quality(path)
    return [row.name for row in found.models] + core.exceeded(found, 0.1, 0.1) + [quality_html(found)[:0]]


def _importance(sums: Mapping[str, Any]) -> Document:
    tensors = {}
    for name, array in sums.items():
        tensors |= {f"{name}.in_sum2": array, f"{name}.counts": np.full((1, 1), 5, np.float32)}
    infos = [[name, list(array.shape), 0, None] for name, array in tensors.items()]
    told = {"pairs": {"general.type": "imatrix", "imatrix.chunk_count": 1}, "infos": infos}
    return Document("gguf", json.dumps(told), {name: array.tobytes() for name, array in tensors.items()})


def _of_file(path: Path) -> Document:
    """A file of tensors as a document."""
    raw = path.read_bytes()
    with SourceFile(path) as file:
        header = read_header(file)
    told: dict[str, Any] = {"__metadata__": header.metadata}
    told |= {name: {"dtype": tensor.dtype, "shape": tensor.shape} for name, tensor in header.tensors.items()}
    data = {name: raw[tensor.start : tensor.start + tensor.nbytes] for name, tensor in header.tensors.items()}
    return Document("safetensors", json.dumps(told), data)


def _exported(place: Path) -> Target:
    """An export of ours in three formats: its manifest, its config and its sums."""
    tensors = {name: array for name, array in llama(1, 32, 64, 16).items() if not re.search("[kvo]_proj|lm_head", name)}
    source, target = checkpoint(place / "source", tensors), place / "export"
    rules = [core.include_rule(text, "") for text in ("*down_proj=mxfp8", "*q_proj=int4-g32/search")]
    plan = _linear().preceded_by(rules)
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], target)
        for _ in core.export(engine, job):
            pass
    files = {path.name: path.read_bytes() for path in target.iterdir()}
    documents = {
        MANIFEST: Document("lines", files.pop(MANIFEST).decode()),
        "config.json": Document("json", files.pop("config.json").decode()),
        _MODEL: _of_file(target / _MODEL),
    }
    files.pop(_MODEL)
    return Target("export", documents, _look_at_export, files)


def _look_at_export(folder: Path) -> list[str]:
    with core.open_model(folder) as model:
        found = core.exported(model)
        return [*model.warnings, *([result.format for result in found.results] if found else _look_at(model))]
