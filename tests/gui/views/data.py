"""Results and details for tests of views: measured once from small weights, and multiplied where many are needed."""

import math
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from studio import core
from tests.core.checkpoints import checkpoint, gaussian

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROWS, COLUMNS = 32, 128


def name_of(place: int) -> str:
    """Name of the layer at a place in file order."""
    block, kind = divmod(place, len(KINDS))
    return f"model.layers.{block}.{'mlp' if kind > 3 else 'self_attn'}.{KINDS[kind]}"


@lru_cache(maxsize=1)
def _measured() -> tuple[
    tuple[core.LayerResult, ...], tuple[core.LayerResult, ...], tuple[core.LayerDetail, ...], core.BlockDetail
]:
    tensors = {}
    for place in range(14):
        weight = gaussian(ROWS, COLUMNS, seed=place, sigma=0.001 * (place + 1)).astype(np.float32)
        weight[place, ::40] *= 12
        tensors[f"{name_of(place)}.weight"] = weight.astype(gaussian(1, 16).dtype)
    tensors["model.norm.weight"] = gaussian(COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(Path(folder), tensors)
        with core.open_model(Path(folder)) as model, core.start(core.Machine("cpu", 1), model) as engine:
            runs = []
            for form in ("nvfp4-3t", "mxfp4"):
                choices = core.resolve(core.preset("linear").with_format(form), model)
                events = core.measure(engine, model, choices)
                runs.append(tuple(event.result for event in events if isinstance(event, core.LayerDone)))
            layer = model.by_name[name_of(0)]
            choice, other = (core.choose_format(layer, name) for name in ("nvfp4-3t", "nvfp4-2t"))
            kept = core.choose_format(layer, core.KEEP)
            details = (
                core.inspect_layer(engine, choice, other),
                core.inspect_layer(engine, choice),
                core.inspect_layer(engine, kept),
                core.inspect_layer(engine, core.choose_format(layer, "int8-g64"), choice),
            )
            block = core.inspect_block(engine, choice, 0, 3, 2)
    return runs[0], runs[1], details, block


def layers() -> list[core.LayerResult]:
    """Fourteen layers in NVFP4 with three tiers, and one that is kept."""
    return list(_measured()[0])


def layers_in_mxfp4() -> list[core.LayerResult]:
    """The same in MXFP4."""
    return list(_measured()[1])


def detail() -> core.LayerDetail:
    """The first layer, in NVFP4 with three tiers (A) and two (B)."""
    return _measured()[2][0]


def detail_alone() -> core.LayerDetail:
    """The same without a B."""
    return _measured()[2][1]


def detail_kept() -> core.LayerDetail:
    """The same layer, kept as it is."""
    return _measured()[2][2]


def detail_int8() -> core.LayerDetail:
    """The same layer in INT8, with NVFP4 as B."""
    return _measured()[2][3]


def block() -> core.BlockDetail:
    """Block 2 of row 3 of the first layer."""
    return _measured()[3]


@lru_cache(maxsize=2)
def many(count: int) -> tuple[core.LayerResult, ...]:
    """So many layers, all a little different."""
    some = [layer for layer in layers() if layer.quantized]
    errors = 0.094 * np.exp(np.random.default_rng(0).normal(0, 0.05, count))
    found = []
    for place, error in enumerate(errors):
        source = some[place % len(some)]
        changed = replace(source, name=name_of(place), block=place // len(KINDS))
        found.append(replace(changed, sum_error=math.pow(float(error), 2) * source.sum_squares))
    return tuple(found)


MIXTURE_BLOCKS, EXPERTS = 48, 32


@lru_cache(maxsize=2)
def mixture(blocks: int = MIXTURE_BLOCKS, experts: int = EXPERTS) -> tuple[core.LayerResult, ...]:
    """A mixture of experts: in each block q, k, v, o, and gate, up and down of each expert; the head.

    Errors grow with the block; expert 5 is bad in all blocks, and expert 9 of block 7 stands out.
    """
    names = []
    for block in range(blocks):
        names += [f"model.layers.{block}.self_attn.{kind}" for kind in KINDS[:4]]
        names += [
            f"model.layers.{block}.mlp.experts.{expert}.{kind}" for expert in range(experts) for kind in KINDS[4:]
        ]
    noise = np.random.default_rng(1).normal(0, 0.02, len(names) + 1)
    return tuple(_placed(name, noise[i]) for i, name in enumerate([*names, "lm_head"]))


def _placed(name: str, noise: float) -> core.LayerResult:
    block = int(name.split(".")[2]) if name.startswith("model.layers.") else None
    error = 0.094 * math.exp(noise + 0.001 * (block or 0))
    error *= 1.08 if ".experts.5." in name else 1.3 if ".7.mlp.experts.9.down" in name else 1.0
    place = KINDS.index(name.rpartition(".")[2]) if block is not None else 0
    source = [layer for layer in layers() if layer.quantized][place]
    role = "expert" if ".experts." in name else "linear" if block is not None else "head"
    changed = replace(source, name=name, block=block, role=role)
    return replace(changed, sum_error=error**2 * source.sum_squares)
