"""verify on checkpoints of others: all decodes or what does not is named, and it is compared with its source."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.core.checkpoints import checkpoint, llama, tensors_of
from tests.core.conftest import Studio
from tests.core.gguf_sources import made

LAYOUTS = ("mlx", "modelopt", "compressed-tensors")


@pytest.fixture(params=LAYOUTS)
def foreign(request: pytest.FixtureRequest, studio: Studio, tmp_path: Path) -> Path:
    """A folder as others write it, made from `tmp_path / "model"`."""
    source, folder = checkpoint(tmp_path / "model", llama(1)), tmp_path / "foreign"
    how = ("--layout", request.param, "--format", "nvfp4-3t", "--method", "max")
    assert studio("quantize", source, folder, *how).code == 0
    for name in ("nvfp4_studio.json", "SHA256SUMS"):
        (folder / name).unlink()
    return folder


def edited(folder: Path, tensor: str, offset: int, value: bytes) -> None:
    """Overwrite bytes of a tensor."""
    path = folder / "model.safetensors"
    data, start = bytearray(path.read_bytes()), tensors_of(path)[tensor].start
    data[start + offset : start + offset + len(value)] = value
    path.write_bytes(bytes(data))


def test_every_layer_decodes_and_is_compared(studio: Studio, foreign: Path, tmp_path: Path) -> None:
    ran = studio("verify", foreign)
    assert ran.code == 0, ran.err
    assert "12 layers decode; no digests beside it" in ran.out
    ran = studio("verify", foreign, "--source", tmp_path / "model", "--json")
    assert ran.code == 0, ran.err
    found = [line for line in map(json.loads, ran.out.splitlines()) if line["event"] == "layer"]
    assert len(found) == 12
    for layer in found:
        quantized = "proj" in layer["name"]
        assert layer["format"] == ("nvfp4-3t" if quantized else "keep")
        assert not quantized or 0.08 < layer["rel_err"] < 0.11
        assert quantized or layer["sum_error"] == 0
    assert not [line for line in ran.err.splitlines() if "relative error" in line]


def test_scales_that_are_no_numbers_are_refused_by_name(studio: Studio, foreign: Path) -> None:
    name = next(
        n
        for n in tensors_of(foreign / "model.safetensors")
        if "q_proj" in n and n.endswith((".scales", ".weight_scale"))
    )
    edited(foreign, name, 5, b"\x7f")
    ran = studio("verify", foreign)
    assert ran.code == 2
    assert "q_proj" in ran.err
    assert "no number" in ran.err


def test_digests_are_checked_where_there_are_any(studio: Studio, foreign: Path) -> None:
    files = ("model.safetensors", "config.json")
    lines = [f"{hashlib.sha256((foreign / name).read_bytes()).hexdigest()} *{name}\n" for name in files]
    (foreign / "SHA256SUMS").write_text("".join(lines))
    assert "2 files as in SHA256SUMS" in studio("verify", foreign).out
    codes = next(n for n in tensors_of(foreign / "model.safetensors") if "q_proj.weight" in n and "scale" not in n)
    edited(foreign, codes, 5, b"\x12")
    ran = studio("verify", foreign)
    assert ran.code == 2
    assert "model.safetensors: damaged" in ran.err


def test_other_weights_and_other_models_are_told(studio: Studio, tmp_path: Path) -> None:
    a, b = checkpoint(tmp_path / "a", llama(1)), checkpoint(tmp_path / "b", llama(2))
    assert "the same weights, bit by bit" in studio("verify", a, "--source", a).out
    ran = studio("verify", a, "--source", b)
    assert ran.code == 0
    assert "9 layers of the source missing: model.layers.1." in ran.err
    assert "9 layers that the source has not: model.layers.1." in studio("verify", b, "--source", a).err
    other = {name: value[::-1].copy() if "q_proj" in name else value for name, value in llama(1).items()}
    ran = studio("verify", checkpoint(tmp_path / "c", other), "--source", a)
    assert "1 layer with a relative error above 0.5, hardly the weights of the source" in ran.err
    assert "1 layer differs, relative error 1." in ran.out
    tensors = llama(1)
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"][:-2]
    ran = studio("verify", checkpoint(tmp_path / "d", tensors), "--source", a)
    assert ran.code == 2
    assert "up_proj" in ran.err
    assert "of shape" in ran.err
    strange = checkpoint(tmp_path / "e", {"other.weight": np.zeros((4, 4), np.float32)})
    assert "holds no weight of a" in studio("verify", strange, "--source", a).err


def test_nan_among_plain_weights_is_told(studio: Studio, tmp_path: Path) -> None:
    tensors = llama(1)
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    odd, source = checkpoint(tmp_path / "a", tensors), checkpoint(tmp_path / "b", llama(1))
    ran = studio("verify", odd, "--source", source)
    assert ran.code == 0
    assert "1 layer with NaN or Inf among plain weights: model.norm" in ran.err
    assert "1 layer differs, relative error inf" in ran.out
    for pair in ((source, odd), (odd, source)):
        assert "1 layer with NaN or Inf in one of them, as model.norm;" in studio("compare", *pair).out
    assert "bit by bit" in studio("compare", odd, odd).out


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_a_gguf_file_is_verified_too(studio: Studio, tmp_path: Path, kind: str) -> None:
    source, file = made(tmp_path / "model", kind), tmp_path / "x.gguf"
    assert studio("gguf", source, file, "--format", "mxfp4", "--method", "max").code == 0
    ran = studio("verify", file, "--source", source)
    assert ran.code == 0, ran.err
    assert "relative error 0.1" in ran.out
    assert "missing" not in ran.err


def test_what_a_stopped_run_left_is_no_checkpoint(studio: Studio, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "a", llama(1))
    (folder / "model-00001-of-00002.safetensors.json").write_text("{}")
    ran = studio("verify", folder)
    assert ran.code == 2
    assert "not complete" in ran.err
