"""Decoded checkpoints: the weights of a plan, of an export in any layout, and of an export alone, in plain tensors."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from kernels import recipe
from kernels.reference import decode, encode, tensor_scale
from studio import core
from studio.core.exporting.decoded import planned_nbytes, write_alone, write_exported, write_planned
from tests.core.checkpoints import CONFIG, Tensors, checkpoint, gaussian, llama
from tests.lm.models import LLAMA, llama_logits, weights

INPUT_FIRST = {
    **CONFIG,
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "num_local_experts": 3,
}


def stacked() -> Tensors:
    """Experts in two tensors [experts, in, out], gate and up alternating."""
    tensors = {name: array for name, array in llama().items() if "mlp" not in name}
    return {
        **tensors,
        "model.layers.0.mlp.experts.gate_up_proj": gaussian(3, 64, 192, seed=7),
        "model.layers.0.mlp.experts.down_proj": gaussian(3, 96, 64, seed=8),
    }


def exhaust(events: Iterator[object]) -> None:
    for _ in events:
        pass


def planned(source: Path, folder: Path, layout: str = "", **formats: str) -> dict[str, np.ndarray]:
    with core.open_model(source) as model, core.start(core.Machine(threads=2), model) as engine:
        choices = core.resolve(plan(**formats), model)
        if layout:
            choices, _ = core.fitted(core.LAYOUTS[layout], core.LAYOUTS[layout].readers[0], model, choices)
        exhaust(write_planned(engine, model, choices, folder, core.LAYOUTS.get(layout)))
        found = load_file(folder / "model.safetensors")
        assert planned_nbytes(choices) == sum(array.nbytes for array in found.values())
    return found


def plan(name: str = "nvfp4-3t", down: str = "") -> core.Plan:
    own = [core.Rule(names=("*down_proj",), format=down)] if down else []
    return core.preset("linear").with_format(name).with_method("max").preceded_by(own)


def exported(source: Path, target: Path, layout: str, **formats: str) -> Path:
    with core.open_model(source) as model, core.start(core.Machine(threads=2), model) as engine:
        chosen = plan(**formats)
        exhaust(
            core.export(engine, core.prepare(model, chosen, core.resolve(chosen, model), core.LAYOUTS[layout], target))
        )
    return target


def decoded(source: Path | None, export: Path, folder: Path) -> dict[str, np.ndarray]:
    with core.open_model(export) as opened, core.start(core.Machine(threads=2), opened) as engine:
        if source is None:
            exhaust(write_alone(engine, opened, folder))
        else:
            with core.open_model(source) as model:
                exhaust(write_exported(engine, model, opened, folder))
    return load_file(folder / "model.safetensors")


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model")


def test_a_plan_gives_decoded_weights_and_leaves_the_rest(source: Path, tmp_path: Path) -> None:
    tensors, found = llama(), planned(source, tmp_path / "plain")
    assert sorted(found) == sorted(tensors)
    group = [tensors[f"model.layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
    g = float(tensor_scale(max(float(np.abs(array.astype(np.float32)).max()) for array in group)))
    for part, array in zip("qkv", group, strict=True):
        wanted = decode(encode(array, recipe("nvfp4-3t"), g))
        np.testing.assert_array_equal(found[f"model.layers.0.self_attn.{part}_proj.weight"], wanted)
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert found[name].tobytes() == tensors[name].tobytes()
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["model_type"] == "llama"


@pytest.mark.parametrize("layout", ["mlx", "modelopt", "compressed-tensors"])
def test_an_export_decodes_to_what_its_plan_gives(source: Path, tmp_path: Path, layout: str) -> None:
    wanted = planned(source, tmp_path / "plain", layout)
    export = exported(source, tmp_path / "export", layout)
    assert_equal(decoded(source, export, tmp_path / "decoded"), wanted)


def test_several_formats_are_decoded(source: Path, tmp_path: Path) -> None:
    wanted = planned(source, tmp_path / "plain", "mlx", name="int4-g32", down="mxfp8")
    export = exported(source, tmp_path / "export", "mlx", name="int4-g32", down="mxfp8")
    assert_equal(decoded(source, export, tmp_path / "decoded"), wanted)


@pytest.mark.parametrize("layout", ["mlx", "modelopt"])
def test_experts_that_lie_across_their_tensor_are_put_where_they_were(tmp_path: Path, layout: str) -> None:
    source = checkpoint(tmp_path / "model", stacked(), INPUT_FIRST)
    found = planned(source, tmp_path / "plain", layout, name="nvfp4-2t")
    if layout == "modelopt":  # vLLM loads them in one piece only, so that they are kept
        assert (
            found["model.layers.0.mlp.experts.down_proj"].tobytes()
            == stacked()["model.layers.0.mlp.experts.down_proj"].tobytes()
        )
    else:
        stack = stacked()["model.layers.0.mlp.experts.gate_up_proj"]
        up = np.ascontiguousarray(stack[1].T[1::2])
        np.testing.assert_array_equal(
            found["model.layers.0.mlp.experts.gate_up_proj"][1].T[1::2], decode(encode(up, recipe("nvfp4-2t")))
        )
    export = exported(source, tmp_path / "export", layout, name="nvfp4-2t")
    assert_equal(decoded(source, export, tmp_path / "decoded"), found)


def test_what_an_export_kept_is_read_from_it(source: Path, tmp_path: Path) -> None:
    export = exported(source, tmp_path / "export", "mlx")
    other = {name: array + (1 if name == "model.norm.weight" else 0) for name, array in llama().items()}
    found = decoded(checkpoint(tmp_path / "other", other), export, tmp_path / "decoded")
    assert found["model.norm.weight"].tobytes() == llama()["model.norm.weight"].tobytes()


def test_an_export_of_another_model_is_refused(source: Path, tmp_path: Path) -> None:
    export = exported(source, tmp_path / "export", "mlx")
    with pytest.raises(core.CheckpointError, match="was not made from other"):
        decoded(checkpoint(tmp_path / "other", llama(inner=96)), export, tmp_path / "decoded")


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_an_export_alone_is_decoded_in_the_names_of_its_layout(source: Path, tmp_path: Path, layout: str) -> None:
    wanted = planned(source, tmp_path / "plain", layout)
    export = exported(source, tmp_path / "export", layout)
    assert_equal(decoded(None, export, tmp_path / "decoded"), wanted)
    config = json.loads((tmp_path / "decoded" / "config.json").read_text())
    assert not [key for key in config if "quantization" in key or key == "model_file"]


def test_stacks_of_experts_alone_keep_their_shape(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", stacked(), INPUT_FIRST)
    export = exported(source, tmp_path / "export", "mlx", name="nvfp4-2t")
    found = decoded(None, export, tmp_path / "decoded")
    down = stacked()["model.layers.0.mlp.experts.down_proj"]
    wanted = [decode(encode(np.ascontiguousarray(expert.T), recipe("nvfp4-2t"))) for expert in down]
    np.testing.assert_array_equal(found["model.layers.0.mlp.experts.down_proj.weight"], wanted)


def test_a_lifted_export_is_decoded_with_the_norms_that_undo_its_lifting(tmp_path: Path) -> None:
    """Weights so small that two tiers lose them, but for lifting; the norms of the source would not fit to them."""
    tensors = {
        name: (array * 2.0**-8).astype(array.dtype) if "_proj" in name else array for name, array in weights().items()
    }
    source = checkpoint(tmp_path / "model", tensors, LLAMA)
    with core.open_model(source) as model, core.start(core.Machine(threads=2), model) as engine:
        choices = core.resolve(plan("nvfp4-2t"), model)
        layout, tokens = core.LAYOUTS["mlx"], np.arange(0, 4000, 97)
        job = core.prepare(model, plan("nvfp4-2t"), choices, layout, tmp_path / "lost")
        *_, found = core.lift(engine, job.model, job.choices)
        assert isinstance(found, core.Lifted)
        lifted = core.prepare(model, plan("nvfp4-2t"), choices, layout, tmp_path / "lifted", lifting=found.lifting)
        exhaust(core.export(engine, lifted))
        exhaust(core.export(engine, job))
    wanted = llama_logits(load_file(source / "model.safetensors"), tokens)
    errors = {
        name: np.abs(
            llama_logits(decoded(source, tmp_path / name, tmp_path / f"{name}-decoded"), tokens) - wanted
        ).max()
        for name in ("lost", "lifted")
    }
    assert errors["lifted"] < 0.5 * errors["lost"]
