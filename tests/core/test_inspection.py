"""Inspection agrees with the definition: layers, blocks, maps, regimes and comparisons on small weights."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import recipe, reference
from studio import core
from studio.core.insight import inspection
from tests.core.checkpoints import checkpoint, gaussian, write_safetensors

NAME = "model.layers.0.self_attn.q_proj"
FORMATS = sorted(core.FORMATS)


def weights() -> NDArray[Any]:
    """Small weights with a column of outliers and a row of zeros."""
    weight = gaussian(48, 256, seed=3, sigma=0.004).astype(np.float32)
    weight[:, 7] *= 30
    weight[5] = 0
    return weight.astype(gaussian(1, 16).dtype)


@contextmanager
def opened(folder: Path, weight: NDArray[Any], slab_nbytes: int = 4096) -> Iterator[tuple[core.Engine, core.Layer]]:
    checkpoint(folder, {f"{NAME}.weight": weight})
    with core.open_model(folder) as model, core.start(core.Machine("reference", 2), model) as engine:
        yield core.Engine(engine.backend, engine.pool, slab_nbytes), model.by_name[NAME]


def looked_at(folder: Path, weight: NDArray[Any], a: str, b: str = "", slab_nbytes: int = 4096) -> core.LayerDetail:
    with opened(folder, weight, slab_nbytes) as (engine, layer):
        other = core.choose_format(layer, b) if b else None
        return core.inspect_layer(engine, core.choose_format(layer, a), other)


def defined(weight: NDArray[Any], name: str) -> tuple[Any, Any]:
    chosen = recipe(name)
    largest = float(np.abs(weight.astype(np.float32)).max())
    g = float(reference.multiplier(largest, chosen)) if chosen.format.tensor_scale else 1.0
    quantized = reference.encode(weight, chosen, g)
    return quantized, reference.fidelity(weight, quantized, blocks=True)


@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_is_what_the_definition_says(name: str, tmp_path: Path) -> None:
    weight = weights()
    quantized, fidelity = defined(weight, name)
    side = looked_at(tmp_path, weight, name).a
    assert side is not None
    assert side.format == name
    assert side.rel_err == pytest.approx(fidelity.rel_err, rel=1e-12)
    assert side.max_error == fidelity.max_error
    assert side.vanished == fidelity.vanished
    decoded = reference.decode(quantized)
    assert side.zeros == int((decoded == 0).sum())
    assert sum(side.histogram) + side.zeros == decoded.size
    rows = np.sqrt(fidelity.row_error / np.where(fidelity.row_squares > 0, fidelity.row_squares, 1))
    np.testing.assert_allclose(side.row_error, rows, rtol=1e-6)
    assert (np.diff(side.row_error[side.row_order]) <= 0).all()


@pytest.mark.parametrize("name", FORMATS)
def test_uses_count_every_weight_by_its_code(name: str, tmp_path: Path) -> None:
    weight = weights()
    quantized, _ = defined(weight, name)
    side = looked_at(tmp_path, weight, name).a
    assert side is not None
    if quantized.format.bits == 8:
        assert side.uses == side.levels == ()
        return
    codes = reference.unpack(quantized.codes)
    wanted = np.bincount((codes if quantized.format.affine else codes & 7).reshape(-1), minlength=len(side.levels))
    assert side.uses == tuple(wanted.tolist())


@pytest.mark.parametrize("slab", [600, 4096, 1 << 20])
def test_the_cut_into_slabs_changes_nothing(slab: int, tmp_path: Path) -> None:
    weight = weights()
    whole, cut = (looked_at(tmp_path / str(n), weight, "nvfp4-3t", "mxfp4", n) for n in (1 << 20, slab))
    assert whole.a is not None
    assert cut.a is not None
    assert cut.within == whole.within
    assert (cut.dead, cut.tail, cut.a.histogram, cut.a.worst) == (
        whole.dead,
        whole.tail,
        whole.a.histogram,
        whole.a.worst,
    )
    np.testing.assert_allclose(cut.a.error_map.cells, whole.a.error_map.cells, rtol=1e-6)
    assert cut.tiers is not None
    assert whole.tiers is not None
    np.testing.assert_array_equal(cut.tiers.two.counts, whole.tiers.two.counts)


def test_the_map_holds_the_error_of_every_block(tmp_path: Path) -> None:
    weight = weights()
    _, fidelity = defined(weight, "nvfp4-3t")
    detail = looked_at(tmp_path, weight, "nvfp4-3t")
    assert detail.a is not None
    wanted = np.sqrt(fidelity.block_error / 16) / detail.sigma
    np.testing.assert_allclose(detail.a.error_map.cells, wanted, rtol=1e-5)
    worst = detail.a.worst[0]
    assert wanted[worst.row, worst.block] == wanted.max() == pytest.approx(worst.error, rel=1e-5)


def test_a_large_map_is_reduced_without_losing_error(tmp_path: Path) -> None:
    weight = gaussian(2500, 32, seed=1)
    _, fidelity = defined(weight, "nvfp4-2t")
    detail = looked_at(tmp_path, weight, "nvfp4-2t", slab_nbytes=7000)
    assert detail.a is not None
    grid = detail.a.error_map
    assert grid.cells.shape == (834, 2)
    assert grid.rows == 3
    tall = np.minimum(3, 2500 - 3 * np.arange(834))
    total = ((grid.cells.astype(np.float64) * detail.sigma) ** 2 * tall[:, None] * 16).sum()
    assert total == pytest.approx(fidelity.sum_error, rel=1e-5)


def test_the_dead_zone_is_what_an_ideal_scale_rounds_to_zero(tmp_path: Path) -> None:
    weight = weights().astype(np.float32)
    detail = looked_at(tmp_path, weight, "nvfp4-3t")
    blocks = np.abs(weight).reshape(-1, 16)
    dead = (blocks > 0) & (blocks <= blocks.max(axis=1, keepdims=True) * np.float32(1 / 24))
    assert detail.dead == int(dead.sum())
    assert sum(detail.within) == int((blocks > 0).sum())


@pytest.mark.parametrize("sigma", [0.0002, 0.004, 0.02, 1.0])
def test_both_tiers_are_predicted_from_block_maxima(sigma: float, tmp_path: Path) -> None:
    weight = gaussian(64, 256, seed=5, sigma=sigma)
    detail = looked_at(tmp_path, weight, "nvfp4-3t", "nvfp4-2t")
    assert detail.tiers is not None
    for regime, name in ((detail.tiers.two, "nvfp4-2t"), (detail.tiers.three, "nvfp4-3t")):
        _, fidelity = defined(weight, name)
        np.testing.assert_array_equal(regime.counts, fidelity.scale_counts[:127])
        assert regime.measured == pytest.approx(fidelity.rel_err, rel=1e-9)
        assert regime.predicted == pytest.approx(fidelity.rel_err, rel=0.02)
        assert regime.vanished_share == pytest.approx(fidelity.vanished / fidelity.count, abs=0.01)
        assert sum(regime.share(zone) for zone in core.ZONES) == pytest.approx(1)


def test_small_weights_are_said_to_need_the_third_tier(tmp_path: Path) -> None:
    small = looked_at(tmp_path / "small", gaussian(64, 256, sigma=0.0005), "nvfp4-3t").tiers
    large = looked_at(tmp_path / "large", gaussian(64, 256, sigma=1.0), "nvfp4-3t").tiers
    assert small is not None
    assert large is not None
    assert small.sentence().startswith("Small weights")
    assert "round to zero" in small.sentence()
    assert small.gain > 0.5
    assert "Two tiers do as well" in large.sentence()


def test_tiers_are_not_known_for_rows_that_are_no_whole_blocks(tmp_path: Path) -> None:
    detail = looked_at(tmp_path, gaussian(8, 40), "keep")
    assert detail.tiers is None
    assert detail.a is None
    assert detail.count == 320


def test_the_tail_is_the_share_beyond(tmp_path: Path) -> None:
    weight = weights()
    detail = looked_at(tmp_path, weight, "nvfp4-3t")
    magnitudes = np.abs(weight.astype(np.float64))
    for x, share in zip(*detail.tail, strict=True):
        assert share == pytest.approx((magnitudes > x * detail.sigma).mean(), abs=0.02)
    assert detail.tail[0][-1] == pytest.approx(detail.max_abs / detail.sigma)


def test_a_run_lends_its_tensor_scales(tmp_path: Path) -> None:
    weight = weights()
    with opened(tmp_path, weight) as (engine, layer):
        choice = core.choose_format(layer, "nvfp4-3t")
        result = core.LayerResult(NAME, "linear", 0, "BF16", layer.shape, "nvfp4-3t", "", 1, 1, 1, tensor_scales=(0.5,))
        detail = core.inspect_layer(engine, choice, None, result)
        block = core.inspect_block(engine, choice, 0, 0, 0, result)
    assert detail.a is not None
    assert detail.a.tensor_scales == (0.5,)
    assert block.g == 0.5


def test_experts_follow_one_another(tmp_path: Path) -> None:
    stack = np.stack([gaussian(32, 64, seed=i, sigma=0.01 * (i + 1)) for i in range(3)])
    path = write_safetensors(tmp_path / "model.safetensors", {"model.layers.0.mlp.switch_mlp.down_proj.weight": stack})
    with core.open_model(path) as model, core.start(core.Machine("reference", 1), model) as engine:
        layer = model.layers[0]
        choice = core.choose_format(layer, "nvfp4-3t")
        detail = core.inspect_layer(engine, choice)
        assert (detail.matrices, detail.rows) == (3, 96)
        assert detail.a is not None
        assert len(set(detail.a.tensor_scales)) == 3
        assert detail.a.error_map.cells.shape == (96, 4)
        _, fidelity = defined(stack[2], "nvfp4-3t")
        rows = np.sqrt(fidelity.row_error / fidelity.row_squares)
        np.testing.assert_allclose(detail.a.row_error[64:], rows, rtol=1e-6)
        block = core.inspect_block(engine, choice, 2, 31, 3)
    np.testing.assert_array_equal(block.source, stack[2, 31, 48:].astype(np.float32))


@pytest.mark.parametrize("name", FORMATS)
def test_a_block_tells_what_each_weight_became(name: str, tmp_path: Path) -> None:
    weight = weights()
    quantized, _ = defined(weight, name)
    size = quantized.format.block
    with opened(tmp_path, weight) as (engine, layer):
        block = core.inspect_block(engine, core.choose_format(layer, name), 0, 9, 1)
    decoded = reference.decode(quantized)[9, size : 2 * size]
    assert block.column == size
    np.testing.assert_array_equal(block.source, weight[9, size : 2 * size].astype(np.float32))
    np.testing.assert_array_equal(np.abs(block.decoded), np.abs(decoded))
    if block.levels:
        assert all(min(abs(level - value) for level in block.levels) < 1e-6 for value in block.decoded)
    assert block.rel_err == pytest.approx(
        np.linalg.norm(np.subtract(block.source, decoded)) / np.linalg.norm(block.source), rel=1e-6
    )


def test_a_block_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, weights()) as (engine, layer):
        with pytest.raises(IndexError, match="row 48"):
            core.inspect_block(engine, core.choose_format(layer, "nvfp4-3t"), 0, 48, 0)
        with pytest.raises(core.PlanError, match="kept"):
            core.inspect_block(engine, core.choose_format(layer, "keep"), 0, 0, 0)


def results(folder: Path, name: str) -> list[core.LayerResult]:
    with core.open_model(folder) as model, core.start(core.Machine("cpu", 1), model) as engine:
        choices = core.resolve(core.preset("linear").with_format(name).with_method("max"), model)
        found = [event for event in core.measure(engine, model, choices) if isinstance(event, core.LayerDone)]
    return [event.result for event in found]


def test_results_alone_estimate_the_other_tier(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, {f"{NAME}.weight": gaussian(64, 512, sigma=0.002)})
    two, three = results(folder, "nvfp4-2t"), results(folder, "nvfp4-3t")
    seen_from_three = core.estimate(three)
    assert seen_from_three.three.exact
    assert not seen_from_three.two.exact
    assert seen_from_three.two.predicted == pytest.approx(two[0].rel_err, rel=0.1)
    assert seen_from_three.three.measured == pytest.approx(three[0].rel_err)
    assert seen_from_three.two.share("subnormal") == pytest.approx(core.estimate(two).two.share("subnormal"), abs=0.05)
    assert core.estimate(two).three.predicted == pytest.approx(three[0].rel_err, rel=0.1)
    assert core.estimate([]).two.blocks == 0


@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t"])
def test_an_estimate_loses_no_block_to_rounding(name: str) -> None:
    tiers = core.estimate([one for one in results(core.demo_checkpoint(), name) if one.format == name])
    assert tiers.two.blocks == tiers.three.blocks == 184_320


def test_a_comparison_puts_the_largest_gain_first(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    a, b = results(folder, "nvfp4-2t"), results(folder, "mxfp8")
    found = core.compare("two tiers", a, "MXFP8", b)
    assert found.better == len(found.pairs) == 14
    gains = [pair.gain for pair in found.pairs]
    assert gains == sorted(gains, reverse=True)
    assert "B is better on 14 of 14 layers" in found.sentence()
    assert set(found.worth(0.0).values()) == {"mxfp8"}
    assert not found.worth(0.999)
    worse = core.compare("b", b, "a", a)
    assert worse.pairs[0].gain < 0
    assert not worse.worth(0.0)
    assert set(worse.all_of_b().values()) == {"nvfp4-2t"}
    assert core.compare("a", a, "nothing", []).sentence() == "A and B have no quantized layer in common."


def test_an_export_can_be_compared(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "source")
    with core.open_model(folder) as model, core.start(core.Machine("cpu", 1), model) as engine:
        plan = core.preset("linear").with_method("max")
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], tmp_path / "out")
        for _ in core.export(engine, job):
            pass
    exported = core.exported_results(tmp_path / "out")
    same = core.compare("source", results(folder, plan.format), "export", exported)
    assert len(same.pairs) == 14
    assert all(pair.gain == pytest.approx(0, abs=1e-9) for pair in same.pairs)


def test_a_look_goes_in_short_steps_that_tell_how_far_it_is(tmp_path: Path) -> None:
    weight = gaussian(512, 4096, seed=1)  # 4 MiB
    with opened(tmp_path, weight, 4 << 20) as (engine, layer):
        choice = core.choose_format(layer, "nvfp4-3t")
        steps = core.layer_steps(engine, choice)
        shares = []
        while True:
            try:
                shares.append(next(steps))
            except StopIteration as end:
                detail = end.value
                break
        whole = core.inspect_layer(engine, choice)
    assert len(shares) == 16, "512 KiB a step, and two passes"
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert detail.a.rel_err == whole.a.rel_err
    np.testing.assert_array_equal(detail.a.error_map.cells, whole.a.error_map.cells)


def test_a_look_that_is_closed_reads_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = inspection.read_slab

    def counting(slab: Any, scratch: Any = None) -> Any:
        read.append(slab.start)
        return plain(slab, scratch)

    monkeypatch.setattr(inspection, "read_slab", counting)
    with opened(tmp_path, gaussian(1024, 256, seed=1), 4096) as (engine, layer):
        steps = core.layer_steps(engine, core.choose_format(layer, "nvfp4-3t"))
        next(steps)
        steps.close()
        count = len(read)
        assert count < 20, "of 256"
        time.sleep(0.05)
        assert len(read) == count
