"""Lifting: two tiers as good as three, by powers of two that undo each other; refused where that is not known."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import FORMATS, Quantized
from kernels.reference import decode
from studio import core
from studio.core.exporting.manifest import Manifest
from studio.core.planning.lift_groups import lift_groups
from studio.core.planning.lifting import PER_OCTAVE, Magnitudes, balanced, exponents, lifted, unbalanced
from studio.core.running import feedback
from studio.core.running.engine import Sink
from studio.core.running.magnitudes import of_weights
from studio.core.running.reading import Slab, read_slab
from tests.core.checkpoints import BF16, CONFIG, FP8, checkpoint, gaussian, llama, snapshot, write_safetensors
from tests.core.conftest import Studio

Tensors = dict[str, NDArray[Any]]
BLOCK = "model.layers.0."
TWO = ("--layout", "mlx", "--format", "nvfp4-2t", "--method", "max")


def small(sigma: float = 0.002, blocks: int = 1, dtype: Any = BF16) -> Tensors:
    """A llama whose weights are too small for two tiers."""
    drawn = {
        name: gaussian(*tensor.shape, seed=seed, sigma=sigma, dtype=dtype) if tensor.ndim == 2 else tensor
        for seed, (name, tensor) in enumerate(llama(blocks, dtype=dtype).items())
    }
    return drawn | {name: gaussian(64, seed=7, sigma=1, dtype=dtype) for name in drawn if "norm" in name}


def mixture(sigma: float = 0.002) -> Tensors:
    """A Qwen3-MoE of one block with three experts, each with weights of another size."""
    tensors = {name: tensor for name, tensor in small(sigma).items() if ".mlp." not in name}
    tensors[f"{BLOCK}mlp.gate.weight"] = gaussian(3, 64)
    for expert in range(3):
        for part, shape in {"gate": (32, 64), "up": (32, 64), "down": (64, 32)}.items():
            name = f"{BLOCK}mlp.experts.{expert}.{part}_proj.weight"
            tensors[name] = gaussian(*shape, seed=expert, sigma=sigma / 8**expert)
    return tensors


MOE = {**CONFIG, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 3}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", small(blocks=2))


def results(folder: Path) -> dict[str, core.LayerResult]:
    return {entry.result.name: entry.result for entry in Manifest(folder).entries()}


def total_error(folder: Path) -> float:
    return core.Outcome(list(results(folder).values())).rel_err


def refusals(folder: Path) -> dict[str, str]:
    with core.open_model(folder) as model:
        return lift_groups(model)[1]


def groups(folder: Path) -> set[tuple[str, ...]]:
    """Each group as the names in a block of what it lifts."""
    with core.open_model(folder) as model:
        return {
            tuple(layer.name.removeprefix(BLOCK) for layer in group.layers)
            for group in lift_groups(model)[0]
            if group.layers[0].name.startswith(BLOCK)
        }


@pytest.mark.parametrize("sigma", [0.02, 0.004, 0.0005])
def test_two_tiers_lose_no_more_than_three(studio: Studio, tmp_path: Path, sigma: float) -> None:
    source = checkpoint(tmp_path / "model", small(sigma, blocks=2))
    assert studio("quantize", source, tmp_path / "two", *TWO).code == 0
    assert studio("quantize", source, tmp_path / "lifted", *TWO, "--lift").code == 0
    assert (
        studio(
            "quantize", source, tmp_path / "three", "--layout", "mlx", "--format", "nvfp4-3t", "--method", "max"
        ).code
        == 0
    )
    two, lifted_, three = (total_error(tmp_path / name) for name in ("two", "lifted", "three"))
    assert two > 1.05 * three
    assert lifted_ < 1.01 * three


def test_what_is_stored_is_the_source_times_the_powers_that_are_told(
    studio: Studio, source: Path, tmp_path: Path
) -> None:
    assert studio("quantize", source, tmp_path / "out", *TWO, "--lift").code == 0
    stored, before = read(tmp_path / "out" / "model.safetensors"), read(source / "model.safetensors")
    lifts = {name: result.lift for name, result in results(tmp_path / "out").items()}
    assert {name.removeprefix(BLOCK) for name, lift in lifts.items() if lift and name.startswith(BLOCK)} == {
        name.removeprefix(BLOCK).removesuffix(".weight") for name in before if name.startswith(BLOCK)
    }
    for name, tensor in before.items():
        path = name.removesuffix(".weight")
        wide = tensor.astype(np.float64) * 2.0 ** lifts[path]
        if f"{path}.scales" not in stored:
            np.testing.assert_array_equal(stored[name].astype(np.float64), wide)
            continue
        codes = stored[name].view(np.uint8)
        decoded = decode(Quantized(FORMATS["nvfp4-2t"], codes, stored[f"{path}.scales"]))
        assert np.linalg.norm(decoded - wide) < 0.11 * np.linalg.norm(wide)


def read(path: Path) -> Tensors:
    from safetensors import deserialize

    kinds = {"BF16": BF16, "U32": np.uint32, "U8": np.uint8}
    return {
        name: np.frombuffer(item["data"], kinds[item["dtype"]]).reshape(item["shape"])
        for name, item in deserialize(path.read_bytes())
    }


def test_exponents_undo_each_other_and_no_scale_saturates(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert studio("quantize", source, tmp_path / "out", *TWO, "--lift").code == 0
    found = results(tmp_path / "out")
    lift = {name.removeprefix(BLOCK): result.lift for name, result in found.items()}
    assert lift["self_attn.q_proj"] == lift["self_attn.k_proj"] == -lift["input_layernorm"] > 0
    assert lift["self_attn.v_proj"] + lift["self_attn.o_proj"] == -lift["input_layernorm"]
    assert lift["mlp.up_proj"] + lift["mlp.down_proj"] == lift["mlp.gate_proj"] == -lift["post_attention_layernorm"]
    for result in found.values():
        assert result.statistics is None
        largest = max((byte for byte, count in enumerate(result.scale_counts) if count), default=0)
        assert largest < 0x7E - 8 + 1


def test_errors_are_those_of_the_weights_before_lifting(studio: Studio, source: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert studio("quantize", source, tmp_path / "out", *TWO, "--lift", "--report", report).code == 0
    assert (
        studio("measure", source, "--format", "nvfp4-3t", "--method", "max", "--report", tmp_path / "plain").code == 0
    )
    ours, plain = (json.loads((folder / "report.json").read_text()) for folder in (report, tmp_path / "plain"))
    assert [layer["name"] for layer in ours["layers"]] == [layer["name"] for layer in plain["layers"]]
    for layer, other in zip(ours["layers"], plain["layers"], strict=True):
        assert layer["sum_squares"] == other["sum_squares"]
        assert layer["max_error"] == pytest.approx(other["max_error"], rel=0.5)
        assert layer["statistics"] == other["statistics"]
    header, *rows = (line.split(",") for line in (report / "report.csv").read_text().splitlines())
    norm = next(row for row in rows if row[0].endswith("0.input_layernorm"))
    assert int(norm[header.index("lift")]) < 0


def test_verify_compares_a_lifted_export_with_its_source(studio: Studio, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert studio("quantize", source, out, *TWO, "--lift").code == 0
    assert studio("verify", out, "--source", source).code == 0
    assert studio("verify", out).code == 0
    forge(out, lambda name, lift: lift + (name == f"{BLOCK}input_layernorm"))
    ran = studio("verify", out, "--source", source)
    assert ran.code == 2
    assert "no other tensor undoes" in ran.err
    forge(out, lambda name, lift: lift + (name.endswith(".1.mlp.down_proj")) - name.endswith(".1.mlp.up_proj"))
    assert studio("verify", out, "--source", source).code == 2


def forge(folder: Path, change: Callable[[str, int], int]) -> None:
    """Change the lifts in a manifest, with its digest."""
    path, sums = folder / "nvfp4_studio.json", folder / "SHA256SUMS"
    manifest = json.loads(path.read_text())
    for layer in manifest["layers"]:
        layer["lift"] = change(layer["name"], layer.get("lift", 0))
    digest = sha256(path.read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
    sums.write_text(sums.read_text().replace(digest, sha256(path.read_bytes()).hexdigest()))


def test_an_export_is_shown_with_its_powers(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert studio("quantize", source, tmp_path / "out", *TWO, "--lift").code == 0
    lift = results(tmp_path / "out")[f"{BLOCK}self_attn.q_proj"].lift
    assert f"stored times 2**{lift}" in studio("inspect", tmp_path / "out").out


def test_a_lifted_export_is_not_resumed_without_lifting(studio: Studio, source: Path, tmp_path: Path) -> None:
    out, shards = tmp_path / "out", ("--shard-size", "40k")
    plan = core.preset("linear").with_format("nvfp4-2t").with_method("max")
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        job = core.prepare(
            model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], out, shard_nbytes=40_000, lifting=found(model)
        )
        events = core.export(engine, job)
        next(event for event in events if isinstance(event, core.ShardWritten))
        events.close()  # type: ignore[attr-defined]
    ran = studio("quantize", source, out, *TWO, *shards)
    assert ran.code == 4
    assert "another plan" in ran.err
    assert "resumed" in studio("quantize", source, out, *TWO, *shards, "--lift").err
    assert studio("quantize", source, tmp_path / "clean", *TWO, *shards, "--lift").code == 0
    assert snapshot(out) == snapshot(tmp_path / "clean")


def found(model: core.Model) -> core.Lifting:
    plan = core.preset("linear").with_format("nvfp4-2t").with_method("max")
    with core.start(core.Machine(threads=1), model) as engine:
        *_, last = core.lift(engine, model, core.resolve(plan, model))
    assert isinstance(last, core.Lifted)
    return last.lifting


def test_json_lines_and_notes_tell_what_was_lifted_and_what_not(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", small())
    ran = studio("quantize", source, tmp_path / "out", *TWO, "--lift", "--json", "--include", "model.embed_tokens")
    told = next(event for event in map(json.loads, ran.out.splitlines()) if event["event"] == "lift")
    assert told["exponents"][f"{BLOCK}input_layernorm"] < 0
    assert told["refused"] == {"model.embed_tokens": "neither a norm alone nor a matrix alone gives what it reads"}
    assert "9 tensors multiplied by powers of two" in ran.err
    assert "model.embed_tokens not lifted" in ran.err
    assert results(tmp_path / "out")["model.embed_tokens"].reason.startswith("not lifted: neither")


def test_a_dry_run_shows_the_power_of_each_layer_and_writes_nothing(
    studio: Studio, source: Path, tmp_path: Path
) -> None:
    ran = studio("quantize", source, tmp_path / "out", *TWO, "--lift", "--dry-run")
    row = next(line for line in ran.out.splitlines() if line.startswith(f"{BLOCK}self_attn.q_proj"))
    assert "nvfp4-2t x 2**" in row
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_plan_says_from_the_headers_alone_what_may_be_lifted(studio: Studio, source: Path) -> None:
    ran = studio("plan", source, *TWO, "--lift", "--include", "model.embed_tokens")
    assert ran.code == 0
    assert "14 of 15 layers in nvfp4-2t may be lifted" in ran.err
    assert "model.embed_tokens not lifted" in ran.err
    assert studio("plan", source, "--layout", "mlx", "--lift").code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "tensor scale"),
        (("--format", "mxfp8"), "nothing to do"),
        (("--include", "*q_proj=nvfp4-3t", *TWO), "q_proj"),
    ],
)
def test_formats_that_do_not_need_it_are_refused(
    studio: Studio, source: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    ran = studio("quantize", source, tmp_path / "out", "--layout", "mlx", "--lift", *options)
    assert ran.code == 2
    assert words in ran.err
    assert "nvfp4-2t" in ran.err


def test_weights_that_fit_are_left_as_they_are(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", small(sigma=0.5))
    ran = studio("quantize", source, tmp_path / "out", *TWO, "--lift")
    assert "nothing is lifted" in ran.err
    assert not any(result.lift for result in results(tmp_path / "out").values())


def test_a_quantized_head_is_lifted_by_the_last_norm(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", small())
    assert studio("quantize", source, tmp_path / "out", *TWO, "--lift", "--include", "lm_head").code == 0
    told = results(tmp_path / "out")
    assert told["lm_head"].lift == -told["model.norm"].lift > 0


def test_each_expert_has_its_own_power(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", mixture(), MOE)
    assert studio("quantize", source, tmp_path / "out", *TWO, "--lift").code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
    lift = {name.removeprefix(BLOCK): result.lift for name, result in results(tmp_path / "out").items()}
    common = -lift["post_attention_layernorm"]
    experts = [f"mlp.experts.{number}." for number in range(3)]
    assert common == lift["mlp.gate"] == lift[experts[0] + "gate_proj"] == lift[experts[2] + "gate_proj"]
    assert all(lift[name + "up_proj"] + lift[name + "down_proj"] == common for name in experts)
    assert lift[experts[0] + "down_proj"] < lift[experts[2] + "down_proj"]


def changed(tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any] = CONFIG, **more: Any) -> dict[str, Any]:
    return {"tensors": tensors, "config": {**config, **more}}


def without(name: str) -> Tensors:
    return {key: tensor for key, tensor in small().items() if key != name}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown architecture": (changed(small(), model_type="new_thing"), "not known for this architecture"),
    "an offset of one": (changed(small(), model_type="gemma"), "add one"),
    "norms behind": (changed(small(), model_type="olmo2"), "behind its layers"),
    "another reader": (changed({**small(), f"{BLOCK}self_attn.g_proj.weight": gaussian(64, 64)}), "g_proj"),
    "another vector": (changed({**small(), f"{BLOCK}mlp.scale": gaussian(64)}), "mlp.scale"),
    "a norm is missing": (changed(without(f"{BLOCK}post_attention_layernorm.weight")), "no post_attention_layernorm"),
    "values of another block": (changed(without(f"{BLOCK}self_attn.v_proj.weight")), "q_proj"),
    "half precision in the config": (changed(small(), torch_dtype="torch.float16"), "config.json says float16"),
    "half precision": (changed(small(0.02, dtype=np.float16)), "too few exponents"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_known_for_certain_is_not_lifted(studio: Studio, tmp_path: Path, why: str) -> None:
    made, words = REFUSED[why]
    source = checkpoint(tmp_path / "model", **made)
    said = refusals(source)
    if why == "values of another block":  # o_proj reads what no tensor of its block gives
        assert "self_attn.o_proj" in said[f"{BLOCK}mlp.up_proj"]
    else:
        assert words in said[f"{BLOCK}self_attn.q_proj"]
    assert groups(source) == set()
    ran = studio("quantize", source, tmp_path / "out", *TWO, "--lift")
    assert ran.code == 0
    assert "not lifted" in ran.err
    assert not any(result.lift for result in results(tmp_path / "out").values())


def test_a_tied_head_and_one_beside_drafts_are_not_lifted(tmp_path: Path) -> None:
    tied = checkpoint(tmp_path / "tied", small(), {**CONFIG, "tie_word_embeddings": True})
    assert "embedding" in refusals(tied)["lm_head"]
    draft = checkpoint(tmp_path / "draft", {**small(), "mtp.fc.weight": gaussian(64, 128)})
    assert "draft" in refusals(draft)["lm_head"]
    two = checkpoint(tmp_path / "two", {**small(), "value_head.weight": gaussian(64, 64)})
    assert "last norm" in refusals(two)["value_head"]


def test_clipped_values_are_lifted_by_their_norm_alone(tmp_path: Path) -> None:
    config = {**MOE, "model_type": "olmoe", "clip_qkv": 8.0}
    clipped = groups(checkpoint(tmp_path / "clipped", mixture(), config))
    free = groups(checkpoint(tmp_path / "free", mixture(), {**config, "clip_qkv": None}))
    assert not any("self_attn.o_proj" in names for names in clipped)
    assert any("self_attn.o_proj" in names for names in free)


def test_biases_go_with_what_gives_them(tmp_path: Path) -> None:
    parts = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "input_layernorm")
    shapes = {name: tensor.shape[0] for name, tensor in small().items()}
    biases = {f"{BLOCK}{part}.bias": gaussian(shapes[f"{BLOCK}{part}.weight"]) for part in parts}
    found = groups(checkpoint(tmp_path / "model", {**small(), **biases}))
    assert sorted(name for names in found for name in names if name.endswith(".bias")) == [
        "input_layernorm.bias",
        "mlp.up_proj.bias",
        "self_attn.v_proj.bias",
    ]


def test_a_norm_is_divided_only_as_far_as_its_numbers_reach(tmp_path: Path) -> None:
    tensors = small(0.0005)
    tensors[f"{BLOCK}input_layernorm.weight"][3] = 2.0**-123
    with core.open_model(checkpoint(tmp_path / "model", tensors)) as model:
        lifts = found(model).exponents
    assert lifts[f"{BLOCK}input_layernorm"] == -3
    assert lifts[f"{BLOCK}post_attention_layernorm"] < -8


def test_what_holds_nan_is_not_lifted(tmp_path: Path) -> None:
    tensors = small()
    tensors[f"{BLOCK}input_layernorm.weight"][3] = np.nan
    with core.open_model(checkpoint(tmp_path / "model", tensors)) as model:
        lifts = found(model).exponents
    assert f"{BLOCK}input_layernorm" not in lifts
    assert f"{BLOCK}post_attention_layernorm" in lifts


@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float32)])
def test_magnitudes_are_those_of_the_obvious_twin(dtype: np.dtype[Any]) -> None:
    draw = np.random.default_rng(3)
    weights = (draw.standard_normal((48, 64)) * 2.0 ** draw.integers(-40, 20, (48, 64))).astype(dtype)
    weights[5], weights[7, :16] = 0, 0
    magnitude = np.abs(weights.astype(np.float64))
    there = magnitude[magnitude > 0]
    blocks = magnitude.reshape(-1, 16).max(axis=1)
    values, counts = np.unique(np.floor(np.log2(blocks[blocks > 0])), return_counts=True)
    found = of_weights(weights, 16)
    assert (found.smallest, found.largest) == (np.floor(np.log2(there.min())), np.floor(np.log2(there.max())))
    assert found.peak == there.max()
    assert dict(found.octaves) == dict(zip(values, counts, strict=True))
    assert of_weights(weights[:20], 16).merged(of_weights(weights[20:], 16)) == found
    assert of_weights(weights * 0).merged(found) == found


def test_numbers_below_the_normal_ones_are_told() -> None:
    assert of_weights(np.array([[1.0, 2.0**-130]], np.float32)).smallest == -127
    assert not of_weights(np.array([[1.0, np.inf]], np.float32)).finite
    assert not of_weights(np.array([[np.nan]], ml_dtypes.bfloat16)).finite
    assert of_weights(np.zeros((2, 16), np.float32), 16) == Magnitudes()


def test_reading_multiplies_exactly(source: Path) -> None:
    with core.open_model(source) as model:
        name = f"{BLOCK}mlp.up_proj"
        changed = lifted(model, (), core.Lifting({name: 7}))[0]
        before, after = (read_slab(Slab(m.by_name[name], m.by_name[name].whole, 3, 9)) for m in (model, changed))
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after.astype(np.float64), before.astype(np.float64) * 128)


def test_powers_that_do_not_cancel_are_found(source: Path) -> None:
    with core.open_model(source) as model:
        group = lift_groups(model)[0][0]
        product = group.products[0]
        powers = balanced(group, {group.norm[0].name: -4, product.reader.name: 3})
        assert powers[product.giver.name] == 1
        assert unbalanced(model, powers) == ""
        for name in powers:
            assert unbalanced(model, {**powers, name: powers[name] + 1})
        assert unbalanced(model, {"model.embed_tokens": 1}) == "model.embed_tokens"


def test_every_other_choice_of_exponents_loses_more_or_lifts_further(tmp_path: Path) -> None:
    """The best of a group, against all exponents of its norm and products tried one by one."""
    with core.open_model(checkpoint(tmp_path / "model", small())) as model:
        group = next(group for group in lift_groups(model)[0] if group.products)
    octaves = {name.name: {-9 - place: 5, -13: 2} for place, name in enumerate(group.layers)}
    sizes = {name: Magnitudes(-20, -8, 2.0**-8, counts) for name, counts in octaves.items()}
    formats = {layer.name: "nvfp4-2t" for layer in group.layers if layer.matrices}
    chosen = exponents(group, formats, sizes)

    def lost(powers: Mapping[str, int]) -> float:
        total = 0.0
        for layer in group.layers:
            power = powers.get(layer.name, 0)
            total += PER_OCTAVE * abs(power)
            if layer.name in formats:
                energy = sum(count * 4.0**e for e, count in octaves[layer.name].items())
                for e, count in octaves[layer.name].items():
                    scale = e + power - 2
                    share = min(4.0 ** (-9 - scale) / 64, 1) if scale < -6 else 0
                    total += count * 4.0**e * share / energy
        return total

    reader = group.products[0].reader.name
    tried = [
        balanced(group, {group.norm[0].name: -lift, reader: inner})
        for lift in range(19)
        for inner in range(-18, 19)
        if lift - inner <= 18
    ]
    assert lost(chosen) == pytest.approx(min(map(lost, tried)), rel=1e-12)


def test_one_file_of_any_tensors_is_not_lifted(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "w.safetensors", small())
    assert "not known" in refusals(path)[f"{BLOCK}mlp.up_proj"]


def test_weights_in_fp8_are_lifted_as_they_are_decoded(studio: Studio, tmp_path: Path) -> None:
    tensors: Tensors = {}
    for name, tensor in small(60).items():
        if name.endswith("_proj.weight"):
            tensors[name] = tensor.astype(np.float32).clip(-448, 448).astype(FP8)
            tensors[f"{name}_scale"] = np.array([2.0**-14], np.float32)
        else:
            tensors[name] = tensor
    source = checkpoint(tmp_path / "model", tensors)
    options = (*TWO, "--lift", "--exclude", "*k_proj")
    assert studio("quantize", source, tmp_path / "out", *options).code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
    told = results(tmp_path / "out")
    assert told[f"{BLOCK}self_attn.k_proj"].lift == told[f"{BLOCK}self_attn.q_proj"].lift > 0
    assert total_error(tmp_path / "out") < 0.1
    stored = read(tmp_path / "out" / "model.safetensors")[f"{BLOCK}self_attn.k_proj.weight"]
    wide = tensors[f"{BLOCK}self_attn.k_proj.weight"].astype(np.float32) * 2.0**-14
    lift = told[f"{BLOCK}self_attn.k_proj"].lift
    np.testing.assert_array_equal(stored.astype(np.float32), wide * 2.0**lift)


def test_feedback_that_was_stopped_goes_on_only_with_the_same_powers(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback._Work, "run", lambda *_: iter(()))  # as when no input reaches a matrix
    plan = core.preset("linear").with_format("nvfp4-2t").with_method("max")
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        plain = tuple(fed_back(choice) for choice in core.resolve(plan, model))
        changed, multiplied = lifted(model, plain, found(model))
        for folder, runs in (("again", [(model, plain), (changed, multiplied)]), ("fresh", [(changed, multiplied)])):
            for run in runs:
                list(feedback.feed_forward(engine, *run, tmp_path / folder, Sink()))
    assert snapshot(tmp_path / "again") == snapshot(tmp_path / "fresh")


def fed_back(choice: core.Choice) -> core.Choice:
    return replace(choice, recipe=replace(choice.recipe, method="feedback")) if choice.recipe else choice
