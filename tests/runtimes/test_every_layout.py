"""Every checkpoint through every format and layout: exported and verified, or refused with those that can."""

import hashlib

import pytest

from kernels import FORMATS, MLX_FORMATS
from studio import core
from tests.runtimes.decoding import mlx_weights, modelopt_weights, read_arrays

NVFP4 = ("nvfp4-2t", "nvfp4-3t")
CHECKPOINTS = ("demo", "llama", "moe", "stacked")
UNREAD = {("moe", "int4-sym-g128"), ("moe", "int8-sym-g128")}
"""Formats whose groups are wider than the experts, which stay plain: transformers finds none beside packed layers."""

STORABLE = [
    (layout.name, row)
    for layout in core.LAYOUTS.values()
    for row in FORMATS
    if row in layout.formats and row not in layout.static_inputs
]
REFUSED = [(layout, row) for layout in core.LAYOUTS for row in FORMATS if row not in core.LAYOUTS[layout].formats]


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("layout", "row"), STORABLE)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_an_export_is_whole_and_its_errors_are_the_ones_it_states(name, layout, row, export, checkpoints):
    if (name, row) in UNREAD:
        with pytest.raises(core.PlanError, match="finds no plain experts"):
            export(name, layout, row)
        return
    folder = export(name, layout, row)

    with core.open_model(checkpoints[name]) as source, core.start(core.Machine(threads=2), source) as engine:
        events = list(core.verify(engine, folder, source))

    quantized = [result for result in events[-1].outcome.layers if result.format == row]
    assert quantized
    assert all(0 < result.rel_err < 0.2 for result in quantized)


@pytest.mark.parametrize(("layout", "row"), REFUSED)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_format_that_a_layout_can_not_store_is_refused_with_the_layouts_that_can(name, layout, row, export):
    with pytest.raises(core.PlanError, match=f"layout {layout} can not store {row}") as refusal:
        export(name, layout, row)
    able = [other.name for other in core.LAYOUTS.values() if row in other.formats and (name, row) not in UNREAD]
    stored = f"layouts that store this plan: {', '.join(able)}"
    assert refusal.value.hint == (stored if able else "no layout stores this plan: change or keep them")


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_a_quantized_embedding_is_refused_where_readers_expect_linear_layers_only(layout, export):
    with pytest.raises(core.PlanError, match=r"model\.embed_tokens is an embedding"):
        export("demo", layout, "nvfp4-3t", "all")


@pytest.mark.parametrize("row", MLX_FORMATS)
def test_experts_stored_apart_and_stacked_end_in_the_same_mlx_tensors(row, export):
    apart, stacked = (_digests(export(name, "mlx", row)) for name in ("moe", "stacked"))
    assert apart == stacked


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
@pytest.mark.parametrize("row", NVFP4)
def test_experts_stored_apart_and_stacked_end_in_the_same_modules(layout, row, export):
    apart, stacked = (_digests(export(name, layout, row)) for name in ("moe", "stacked"))
    assert apart == stacked


def test_mlx_and_modelopt_exports_decode_to_the_same_weights(export):
    stock = mlx_weights(read_arrays(export("demo", "mlx", "nvfp4-2t")), [["*", "nvfp4-2t"]])
    modules = modelopt_weights(read_arrays(export("demo", "modelopt", "nvfp4-2t")))
    assert stock.keys() == modules.keys()
    assert all((stock[name] == modules[name]).all() for name in stock)


def _digests(folder):
    return {
        name: (array.shape, hashlib.sha256(array.tobytes()).hexdigest()) for name, array in read_arrays(folder).items()
    }
