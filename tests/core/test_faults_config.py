"""JSON from a stranger: a config that is no plain object is refused, values of any type change nothing, none is run."""

import json
from pathlib import Path

import pytest

from studio.core import CheckpointError
from studio.core.exporting.manifest import Manifest
from studio.core.layouts.documents import json_document
from tests.core.checkpoints import CONFIG, QUERY, checkpoint, entry, gaussian, header_of, llama, write_json, write_raw
from tests.core.conftest import Refused, Studio

BOMBS = {
    "empty": b"",
    "not JSON": b"config",
    "list": b"[]",
    "text": b'"llama"',
    "number": b"7",
    "null": b"null",
    "deep lists": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deeper than anyone needs": b'{"a":' * 100 + b"1" + b"}" * 100,
    "unclosed": b'{"a": [',
    "5000 digits": b'{"num_hidden_layers": ' + b"9" * 5000 + b"}",
    "UTF-16": '{"model_type": "llama"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"model_type": "llama"}',
    "Latin-1": '{"model_type": "\u00e9"}'.encode("latin-1"),
    "half a surrogate pair": b'{"model_type": "\\ud800"}',
    "control character": b'{"model_type": "a\x01"}',
    "duplicate key": b'{"model_type": "llama", "model_type": "gpt2"}',
    "duplicate key inside": b'{"rope_parameters": {"a": 1, "a": 2}}',
    "too large": b'{"a": "' + b" " * (17 << 20) + b'"}',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_config_that_is_no_plain_object_is_refused(refused: Refused, tmp_path: Path, bomb: str) -> None:
    source = checkpoint(tmp_path / "model")
    write_json(source / "config.json", BOMBS[bomb])
    said = refused(source, "config.json")
    assert ("duplicate" in said) == bomb.startswith("duplicate")


NUMBERS = {
    "Infinity": {"__float__": "Infinity"},
    "-Infinity": {"__float__": "-Infinity"},
    "NaN": {"__float__": "NaN"},
    "1e999": {"__float__": "Infinity"},
    '{"__float__": "Infinity"}': {"__float__": "Infinity"},
    "1e308": 1e308,
}


@pytest.mark.parametrize("layout", ["mlx", "modelopt", "compressed-tensors"])
def test_numbers_that_json_lacks_are_read_as_python_does_and_written_as_runtimes_read_them(
    studio: Studio, tmp_path: Path, layout: str
) -> None:
    source = checkpoint(tmp_path / "model", llama(1))
    numbers = ", ".join(f'"n{number}": [0.0, {text}]' for number, text in enumerate(NUMBERS))
    write_json(source / "config.json", f'{{"model_type": "llama", {numbers}}}')
    ran = studio("quantize", source, tmp_path / "out", "--layout", layout)
    assert ran.code == 0, ran.err
    text = (tmp_path / "out" / "config.json").read_text()
    config = json.loads(text, parse_constant=lambda word: pytest.fail(f"bare {word}"))
    assert [config[f"n{number}"] for number in range(len(NUMBERS))] == [[0.0, value] for value in NUMBERS.values()]


def test_the_tagged_numbers_are_those_that_the_runtimes_write() -> None:
    utils = pytest.importorskip("mlx_lm.utils", reason="needs mlx-lm: pip install 'nvfp4-studio[lm]'")
    numbers = {"a": [float("inf"), -float("inf"), 1.0, {"b": float("nan")}]}
    written = json.loads(json_document(numbers))
    assert written == utils._encode_tagged_floats(numbers)
    assert str(utils._decode_tagged_floats(written)) == str(numbers)


def test_headers_and_manifests_hold_no_such_numbers(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", llama(1))
    assert studio("quantize", source, tmp_path / "made").code == 0
    manifest = tmp_path / "made" / "nvfp4_studio.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": NaN', 1))
    with pytest.raises(CheckpointError, match="not usable JSON: the number NaN"):
        list(Manifest(tmp_path / "made").entries())


def test_a_tokenizer_is_copied_and_never_parsed(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (source / name).write_bytes(BOMBS["deep lists"])
    assert studio("quantize", source, tmp_path / "out").code == 0
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == BOMBS["deep lists"]


ANYTHING = [None, True, 0, -1, 10**18, 0.5, float("inf"), float("nan"), "", "x", [], [[]], {}, {"a": {}}]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("layout", ["mlx", "modelopt", "compressed-tensors"])
def test_any_value_of_any_key_that_is_read_is_survived(studio: Studio, tmp_path: Path, layout: str) -> None:
    keys = [*CONFIG, "text_config", "quantization", "quantization_config", "rope_parameters", "num_local_experts"]
    tensors = {QUERY: gaussian(16, 32), "m.experts.gate_up_proj": gaussian(2, 32, 64)}
    source = checkpoint(tmp_path / "model", tensors)
    for number, value in enumerate(ANYTHING):
        for place in (CONFIG, {"text_config": dict(CONFIG)}):
            config = json.loads(json.dumps(place))
            inner = config.get("text_config", config)
            inner |= dict.fromkeys(keys, value)
            write_json(source / "config.json", config)
            target = tmp_path / f"out{number}{len(config)}"
            ran = studio("quantize", source, target, "--layout", layout)
            assert ran.code in (0, 2), ran.err


def test_a_width_that_is_no_multiple_of_16_is_kept_and_said_so(studio: Studio, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.odd.weight"
    source = checkpoint(tmp_path / "model", {**llama(1), name: gaussian(8, 24)})
    ran = studio("plan", source)
    (line,) = [line for line in ran.out.splitlines() if "mlp.odd" in line]
    assert "keep" in line
    assert "not a multiple of the block of 16" in line


@pytest.mark.parametrize("dtype", ["U64", "C64", "I16"])
def test_a_dtype_that_is_not_quantized_is_kept_byte_for_byte(studio: Studio, tmp_path: Path, dtype: str) -> None:
    bits = {"U64": 64, "C64": 64, "I16": 16}[dtype]
    tensors = {"model.layers.0.mlp.up_proj.weight": gaussian(16, 32)}
    header = header_of(tensors)
    start = 16 * 32 * 2
    header["x.weight"] = entry(dtype, [4, 32], start, start + 16 * bits)
    data = tensors["model.layers.0.mlp.up_proj.weight"].tobytes() + bytes(range(256))[: 16 * bits].ljust(
        16 * bits, b"7"
    )
    source = checkpoint(tmp_path / "model")
    write_raw(source / "model.safetensors", header, data)
    ran = studio("plan", source)
    assert f"{dtype} is copied as it is" in ran.out
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt").code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
    assert data[start:] in (tmp_path / "out" / "model.safetensors").read_bytes()
