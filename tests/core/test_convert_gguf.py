"""convert to GGUF and back: codes move bit by bit, and the file is proved by opening it."""

from pathlib import Path

import numpy as np
import pytest

from kernels import FORMATS, Quantized, reference
from studio import core
from studio.core.containers.files import SourceFile
from studio.core.containers.gguf import TYPE_OF, read_gguf
from studio.core.exporting import gguf
from studio.core.sources.ggml import blocks_of, decode
from tests.core.conftest import Studio
from tests.core.gguf_sources import made
from tests.core.test_convert import LAYOUTS, contents, decoded

CASES = [*((layout, name) for layout in LAYOUTS for name in ("nvfp4-2t", "nvfp4-3t")), ("mlx", "mxfp4")]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("layout", "name"), CASES)
@pytest.mark.parametrize("kind", ["llama", "mixtral", "qwen3_moe"])
def test_into_gguf_and_back_every_byte_is_the_same(
    studio: Studio, tmp_path: Path, kind: str, layout: str, name: str
) -> None:
    first, file, third = (tmp_path / part for part in ("first", "file.gguf", "third"))
    how = ("--layout", layout, "--format", name, "--method", "max", *(["--for", "vllm"] if layout != "mlx" else []))
    made_ = studio("quantize", made(tmp_path / "model", kind), first, *how)
    assert made_.code == 0, made_.err
    ran = studio("convert", first, file, "--layout", "gguf")
    assert ran.code == 0, ran.err
    assert "decoded" not in ran.out
    assert "cast" not in ran.out
    with core.open_model(file) as found:
        assert {layer.source.format.name for layer in found.layers if layer.source.format} == {name}
    wanted = decoded(first)
    for matrix, weights in decoded(file).items():
        np.testing.assert_allclose(weights, wanted[matrix], rtol=2.4e-7 if layout == "compressed-tensors" else 0)
    again = studio("convert", file, third, "--layout", layout, *how[6:])
    assert again.code == 0, again.err
    assert contents(third) == contents(first)


def tensors(path: Path) -> dict[str, bytes]:
    """Name -> bytes of the tensors of a file."""
    with SourceFile(path) as file:
        return {name: file.read(tensor.start, tensor.nbytes) for name, tensor in read_gguf(file).tensors.items()}


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_folders_of_others_give_the_same_file(studio: Studio, tmp_path: Path, kind: str) -> None:
    first, known, foreign = tmp_path / "first", tmp_path / "known.gguf", tmp_path / "foreign.gguf"
    assert studio("quantize", made(tmp_path / "model", kind), first, "--layout", "modelopt", "--for", "vllm").code == 0
    assert studio("convert", first, known, "--layout", "gguf").code == 0
    (first / "nvfp4_studio.json").unlink()
    assert studio("convert", first, foreign, "--layout", "gguf").code == 0
    assert tensors(foreign) == tensors(known)


def test_the_package_reads_the_bytes_that_were_stored(studio: Studio, tmp_path: Path) -> None:
    package = pytest.importorskip("gguf")
    first, file = tmp_path / "first", tmp_path / "file.gguf"
    assert studio("quantize", made(tmp_path / "model", "llama"), first, "--layout", "mlx").code == 0
    assert studio("convert", first, file, "--layout", "gguf").code == 0
    stored = {tensor.name: tensor for tensor in package.GGUFReader(file).tensors}
    values, tensor = contents(first), stored["blk.0.ffn_up.weight"]
    blocks = np.asarray(tensor.data).reshape(-1, 36)
    scales = values["model.layers.0.mlp.up_proj.scales"][2]
    assert blocks[:, :4].tobytes() == scales
    assert stored["blk.0.ffn_up.scale"].data.tobytes() != np.float32(1).tobytes()
    rows = package.quants.dequantize(stored["blk.0.attn_q.weight"].data, stored["blk.0.attn_q.weight"].tensor_type)
    wanted = decoded(first)["model.layers.0.self_attn.q_proj"]
    heads = wanted.reshape(4, 2, 16, -1).transpose(0, 2, 1, 3).reshape(wanted.shape)
    np.testing.assert_allclose(rows * stored["blk.0.attn_q.scale"].data, heads, rtol=3e-7)


def test_plain_weights_move_too_and_come_back_as_they_were(studio: Studio, tmp_path: Path) -> None:
    source, file, plain = made(tmp_path / "model", "llama"), tmp_path / "file.gguf", tmp_path / "plain"
    assert studio("convert", source, file, "--layout", "gguf").code == 0
    assert studio("convert", file, plain, "--layout", "plain").code == 0
    assert contents(plain) == contents(source)


def test_what_llama_cpp_can_not_multiply_is_refused_with_figures_or_decoded(studio: Studio, tmp_path: Path) -> None:
    first, file = tmp_path / "first", tmp_path / "file.gguf"
    how = ("--layout", "modelopt", "--format", "nvfp4-3t", "--for", "vllm")
    assert studio("quantize", made(tmp_path / "model", "qwen2"), first, *how).code == 0
    refused = studio("convert", first, file, "--layout", "gguf")
    assert refused.code == 2
    assert "% of its blocks are exact in nvfp4-2t" in refused.out
    assert "% of its weights are exact in bfloat16" in refused.err or "exact in BF16" in refused.err
    assert not file.exists()
    assert studio("convert", first, file, "--layout", "gguf", "--dtype", "float32").code == 0
    wanted = decoded(first)
    for matrix, weights in decoded(file).items():
        np.testing.assert_array_equal(weights, wanted[matrix])
    assert studio("convert", first, file, "--layout", "gguf", "--allow-lossy", "--overwrite").code == 0


def test_codes_that_arrive_otherwise_are_found_and_nothing_stays(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, file = tmp_path / "first", tmp_path / "file.gguf"
    assert studio("quantize", made(tmp_path / "model", "llama"), first, "--layout", "modelopt").code == 0

    def damaged(quantized: object) -> np.ndarray:
        blocks = blocks_of(quantized).copy()
        blocks[0, -1] ^= 1
        return blocks

    monkeypatch.setattr(gguf, "blocks_of", damaged)
    ran = studio("convert", first, file, "--layout", "gguf")
    assert ran.code == 4
    assert "differ from the source" in ran.err
    assert [path.name for path in tmp_path.glob("file*")] == []


def test_a_file_says_what_it_is_for(studio: Studio, tmp_path: Path) -> None:
    source = made(tmp_path / "model", "llama")
    assert (
        "vllm does not load the layout gguf"
        in studio("convert", source, tmp_path / "x.gguf", "--layout", "gguf", "--for", "vllm").err
    )
    assert "NAME.gguf" in studio("convert", source, tmp_path / "x", "--layout", "gguf").err
    assert studio("convert", source, tmp_path / "x.gguf", "--layout", "gguf", "--dry-run").code == 0
    assert not (tmp_path / "x.gguf").exists()


def test_signs_of_block_scales_which_ggml_ignores_go_to_the_codes() -> None:
    rng = np.random.default_rng(4)
    codes, scales = rng.integers(0, 256, (3, 64), np.uint8), rng.integers(1, 0x7F, (3, 8), np.uint8)
    scales[rng.random(scales.shape) < 0.5] |= 0x80
    quantized = Quantized(FORMATS["nvfp4-2t"], codes, scales)
    found = np.empty((3, 128), np.float32)
    decode(TYPE_OF["NVFP4"], blocks_of(quantized), found)
    np.testing.assert_array_equal(found, reference.decode(quantized))


def test_a_file_becomes_the_same_file(studio: Studio, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    assert studio("gguf", made(tmp_path / "model", "llama"), first, "--method", "max").code == 0
    assert studio("convert", first, second, "--layout", "gguf").code == 0
    assert tensors(second) == tensors(first)
