"""GGUF files are examined, too: every weight, whether the model is all there, and the digest of those of ours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.core.conftest import Studio
from tests.core.findings.examining import examined, kinds
from tests.core.gguf_models import infos, model, tensors
from tests.core.gguf_sources import made

WHERE = "blk.1.ffn_up.weight"


def _changed(change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    arrays = tensors()
    arrays[WHERE] = change(arrays[WHERE].copy())
    return model(entries=infos(arrays))


def _one(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[-1, -1] = value
        return array

    return change


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("", model()),
        ("weights-nan", _changed(_one(np.nan))),
        ("float16-overflow", _changed(_one(1e6))),
        ("weights-zero", _changed(np.zeros_like)),
        ("blocks-missing", model({"llama.block_count": 4})),
        ("tokenizer-missing", model({"tokenizer.ggml.tokens": None})),
        ("refused", model()[:-100]),
    ],
)
def test_what_is_planted_in_a_file_is_found(tmp_path: Path, kind: str, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    found = examined(tmp_path / "m.gguf")
    assert kinds(found, "error", "warning") == ({kind} if kind else set()), found.findings


def test_blocks_of_nvfp4_that_are_lost_are_found(studio: Studio, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    assert studio("gguf", made(tmp_path / "m", "llama"), file, "--format", "nvfp4-2t", "--method", "max").code == 0
    assert not kinds(examined(file), "error", "warning")
    raw = bytearray(file.read_bytes())
    raw[-36:-32] = b"\x7f\x7f\x7f\x7f"  # scales of the last block: 0 to ggml
    file.write_bytes(raw)
    assert kinds(examined(file), "error", "warning") == {"digest", "scales-zero"}


@pytest.mark.parametrize("place", [40, 70, 200, -1])
def test_a_flipped_bit_anywhere_in_a_file_of_ours_is_found(studio: Studio, tmp_path: Path, place: int) -> None:
    file = tmp_path / "x.gguf"
    assert studio("gguf", made(tmp_path / "m", "llama"), file, "--format", "mxfp4", "--method", "max").code == 0
    assert "every byte as it says of itself" in studio("verify", file).out
    raw = bytearray(file.read_bytes())
    raw[place] ^= 4
    file.write_bytes(raw)
    assert studio("verify", file).code == 2
