"""Scales of other formats than NVFP4 and codes of FP8 are examined, too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.checkpoints import FP8, tensors_of
from tests.core.conftest import Studio
from tests.core.findings.building import Draft, draft, llama
from tests.core.findings.examining import examined, kinds
from tests.core.sources.golden import items, unpacked

WHERE = "model.layers.1.self_attn.o_proj"


def _spoil(path: Path, name: str, content: bytes) -> None:
    """Put bytes at the start of a tensor."""
    raw = bytearray(path.read_bytes())
    start = tensors_of(path)[name].start
    raw[start : start + len(content)] = content
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("row", "leaf", "content"),
    [
        ("mxfp4", "scales", b"\xff"),
        ("mxfp8", "scales", b"\xff"),
        ("int4-g64", "scales", b"\xc0\x7f"),
        ("int4-g64", "biases", b"\x80\xff"),
    ],
)
def test_scales_of_mlx_that_are_no_number(studio: Studio, tmp_path: Path, row: str, leaf: str, content: bytes) -> None:
    source = draft("plain").write(tmp_path / "source")
    assert studio("quantize", source, tmp_path / "m", "--format", row, "--layout", "mlx", "--method", "max").code == 0
    (tmp_path / "m" / "SHA256SUMS").unlink()
    assert not kinds(examined(tmp_path / "m"), "error", "warning")
    _spoil(tmp_path / "m" / "model.safetensors", f"{WHERE}.{leaf}", content)
    found = examined(tmp_path / "m")
    assert kinds(found, "error") == {"scales-nan"}
    assert [one.where for one in found.findings if one.kind == "scales-nan"] == [(f"{WHERE}.{leaf}",)]


def fp8(**changes: Any) -> Draft:
    """A folder of FP8 with a scale per block of 128, as DeepSeek stores it."""
    made = draft("plain")
    made.config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}
    for name, weight in llama().items():
        if name.endswith("_proj"):
            blocks = weight.reshape(weight.shape[0] // 128, 128, weight.shape[1] // 128, 128)
            scales = np.abs(blocks).max((1, 3)) / 448
            codes = (blocks / scales[:, None, :, None]).reshape(weight.shape).astype(FP8)
            made.tensors |= {f"{name}.weight": codes, f"{name}.weight_scale_inv": scales.astype(np.float32)}
    for name, change in changes.items():
        made.tensors[f"{WHERE}.{name}"] = change(made.tensors[f"{WHERE}.{name}"].copy())
    return made


def _set(value: float) -> Any:
    def change(array: Any) -> Any:
        array.reshape(-1)[1] = value
        return array

    return change


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("", {}),
        ("scales-nan", {"weight_scale_inv": _set(float("nan"))}),
        ("scales-negative", {"weight_scale_inv": _set(-0.01)}),
        ("weights-nan", {"weight": _set(float("nan"))}),
    ],
)
def test_blocks_of_fp8(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    found = examined(fp8(**changes).write(tmp_path / "m"))
    assert kinds(found, "error") == ({kind} if kind else set()), found.findings


@pytest.mark.parametrize(("item", "made"), items("integers").items())
def test_nothing_is_wrong_with_integers_that_packages_made(tmp_path: Path, item: str, made: Any) -> None:
    folder, _ = unpacked(tmp_path, item, made["config"])
    assert not kinds(examined(folder), "error")


def _export(studio: Studio, folder: Path, row: str) -> Path:
    """A folder of compressed-tensors in a format, as others leave it."""
    source = draft("plain").write(folder / "source")
    target = folder / row
    how = ("--layout", "compressed-tensors", "--format", row, "--method", "max", "--quiet")
    assert studio("quantize", source, target, *how).code == 0
    for name in ("nvfp4_studio.json", "SHA256SUMS"):
        (target / name).unlink()
    assert not kinds(examined(target), "error", "warning")
    return target


def test_a_scale_of_zero_of_fp8_is_found(studio: Studio, tmp_path: Path) -> None:
    target = _export(studio, tmp_path, "fp8-channel")
    _spoil(target / "model.safetensors", f"{WHERE}.weight_scale", b"\0\0\0\0")
    assert kinds(examined(target), "warning") == {"scales-zero"}


def test_integers_that_state_other_rows_are_refused(studio: Studio, tmp_path: Path) -> None:
    target = _export(studio, tmp_path, "int4-sym-g32")
    _spoil(target / "model.safetensors", f"{WHERE}.weight_shape", (64).to_bytes(8, "little"))
    ran = studio("verify", target)
    assert ran.code == 2
    assert "has [256] rows, by model.layers.1.self_attn.o_proj.weight_shape [64]" in ran.err
