"""A shard that is no whole safetensors file is refused, in words that tell what it is instead."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.core.checkpoints import (
    BF16,
    CONFIG,
    QUERY,
    checkpoint,
    data_of,
    entry,
    gaussian,
    header_of,
    llama,
    write_json,
    write_raw,
    write_safetensors,
)
from tests.core.conftest import Refused

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
GOOD = {"a.weight": entry("BF16", [2, 16], 0, 64), "b.weight": entry("BF16", [2, 16], 64, 128)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model")


def shard(folder: Path) -> Path:
    return folder / "model.safetensors"


def with_header(folder: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    write_raw(shard(folder), header, data, length)  # type: ignore[arg-type]
    return folder


def test_a_shard_cut_short_is_refused_with_both_sizes(folder: Path, refused: Refused) -> None:
    whole = shard(folder).stat().st_size
    with shard(folder).open("r+b") as file:
        file.truncate(whole - 1000)
    refused(folder, "model.safetensors", "truncated", f"{whole:,}", f"{whole - 1000:,}")


def test_a_shard_cut_in_its_header_is_refused(folder: Path, refused: Refused) -> None:
    with shard(folder).open("r+b") as file:
        file.truncate(100)
    refused(folder, "model.safetensors", "truncated", "the file has 100")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9])
def test_a_shard_of_a_few_bytes_is_refused(folder: Path, refused: Refused, size: int) -> None:
    shard(folder).write_bytes(b"\x02\0\0\0\0\0\0\0{"[:size])
    refused(folder, "model.safetensors", "truncated", f"{size} bytes")


@pytest.mark.parametrize("length", [100_000_001, 2**31, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_an_impossible_length_is_refused(folder: Path, refused: Refused, length: int) -> None:
    refused(with_header(folder, {}, length=length), "model.safetensors", "truncated", f"{length:,}")


def test_a_header_that_ends_past_the_file_is_refused(folder: Path, refused: Refused) -> None:
    refused(with_header(folder, {}, length=500), "model.safetensors", "truncated", "508")


def test_a_git_lfs_pointer_is_refused_with_the_command_to_run(folder: Path, refused: Refused) -> None:
    shard(folder).write_bytes(LFS)
    refused(folder, "model.safetensors", "git lfs pull")


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>Sign in</html>", b"\n  <html><body>404</body></html>"])
def test_an_html_page_is_refused(folder: Path, refused: Refused, page: bytes) -> None:
    shard(folder).write_bytes(page)
    refused(folder, "model.safetensors", "not a safetensors file", "HTML")


def test_a_compressed_shard_is_refused(folder: Path, refused: Refused) -> None:
    shard(folder).write_bytes(gzip.compress(shard(folder).read_bytes()))
    refused(folder, "model.safetensors", "not a safetensors file", "gzip")


@pytest.mark.parametrize("kind", [b"PK\x03\x04", b"GGUF", b"\x80\x02}q\0."], ids=["zip", "gguf", "pickle"])
def test_another_format_under_the_name_of_safetensors_is_refused(folder: Path, refused: Refused, kind: bytes) -> None:
    shard(folder).write_bytes(kind + bytes(60))
    refused(folder, "model.safetensors", "safetensors file")


HEADERS = {
    "overlap": ({**GOOD, "b.weight": entry("BF16", [2, 16], 32, 96)}, 96, ["b.weight", "overlap or hole"]),
    "overlap, one inside the other": (
        {"a.weight": entry("BF16", [4, 16], 0, 128), "b.weight": entry("BF16", [2, 16], 0, 64)},
        128,
        ["overlap or hole"],
    ),
    "hole": ({**GOOD, "b.weight": entry("BF16", [2, 16], 96, 160)}, 160, ["b.weight", "overlap or hole"]),
    "hole at the start": ({"a.weight": entry("BF16", [2, 16], 2, 66)}, 66, ["a.weight", "overlap or hole"]),
    "trailing bytes": (GOOD, 130, ["model.safetensors", "overlap or hole"]),
    "data past the end": (GOOD, 100, ["b.weight", "truncated"]),
    "unknown dtype": ({"a.weight": entry("Q4_K", [2, 16], 0, 64)}, 64, ["a.weight", "dtype", "Q4_K"]),
    "dtype no text": ({"a.weight": entry(7, [2, 16], 0, 64)}, 64, ["a.weight", "dtype"]),
    "negative size": ({"a.weight": entry("BF16", [-2, -16], 0, 64)}, 64, ["a.weight", "shape"]),
    "float size": ({"a.weight": entry("BF16", [2.0, 16], 0, 64)}, 64, ["a.weight", "shape"]),
    "bool size": ({"a.weight": entry("BF16", [True, 32], 0, 64)}, 64, ["a.weight", "shape"]),
    "text size": ({"a.weight": entry("BF16", ["2", 16], 0, 64)}, 64, ["a.weight", "shape"]),
    "shape no list": ({"a.weight": entry("BF16", 32, 0, 64)}, 64, ["a.weight", "shape"]),
    "wrapping size": ({"a.weight": entry("BF16", [2**60, 2**60, 2], 0, 64)}, 64, ["a.weight", "shape"]),
    "wrapping size beside a zero": ({"a.weight": entry("BF16", [2**62, 2**62, 0], 0, 0)}, 0, ["a.weight", "shape"]),
    "size that wraps to the right number": (
        {"a.weight": entry("BF16", [2**63 + 2, 16], 0, 64)},
        64,
        ["a.weight", "shape"],
    ),
    "a million dimensions": ({"a.weight": entry("BF16", [1] * 10**6, 0, 2)}, 2, ["a.weight", "shape"]),
    "shape and range disagree": ({"a.weight": entry("BF16", [3, 16], 0, 64)}, 64, ["a.weight", "shape"]),
    "range backwards": ({"a.weight": entry("BF16", [2, 16], 64, 0)}, 64, ["a.weight", "data_offsets"]),
    "negative range": ({"a.weight": entry("BF16", [2, 16], -64, 0)}, 64, ["a.weight", "data_offsets"]),
    "three offsets": (
        {"a.weight": {**entry("BF16", [2, 16], 0, 64), "data_offsets": [0, 32, 64]}},
        64,
        ["a.weight", "data_offsets"],
    ),
    "key missing": ({"a.weight": {"dtype": "BF16", "shape": [2, 16]}}, 64, ["a.weight", "data_offsets"]),
    "key too many": ({"a.weight": {**entry("BF16", [2, 16], 0, 64), "strides": [1]}}, 64, ["a.weight"]),
    "entry no object": ({"a.weight": [1, 2]}, 64, ["a.weight"]),
    "metadata no object": ({"__metadata__": 3, **GOOD}, 128, ["__metadata__"]),
    "metadata of numbers": ({"__metadata__": {"a": 1}, **GOOD}, 128, ["__metadata__"]),
    "F4 that is no whole byte": ({"a.weight": entry("F4", [3], 0, 1)}, 1, ["a.weight", "shape"]),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_malformed_header_is_refused(folder: Path, refused: Refused, case: str) -> None:
    header, size, words = HEADERS[case]
    refused(with_header(folder, header, bytes(size)), "model.safetensors", *words)


@pytest.mark.parametrize(
    "text",
    [
        '{"a.weight": %s, "a.weight": %s}',
        '{"a.weight": %s, "\\u0061.weight": %s}',
    ],
)
def test_a_name_given_twice_in_a_header_is_refused(folder: Path, refused: Refused, text: str) -> None:
    first = json.dumps(entry("BF16", [2, 16], 0, 64))
    for second in (entry("BF16", [2, 16], 0, 64), entry("BF16", [2, 16], 64, 128)):
        header = text % (first, json.dumps(second))
        refused(with_header(folder, header, bytes(128)), "model.safetensors", "duplicate", "a.weight")


def test_a_key_given_twice_in_an_entry_is_refused(folder: Path, refused: Refused) -> None:
    header = '{"a.weight":{"dtype":"BF16","dtype":"F16","shape":[2,16],"data_offsets":[0,64]}}'
    refused(with_header(folder, header, bytes(64)), "model.safetensors", "duplicate", "dtype")


def test_the_last_of_many_names_given_twice_is_found_at_once(folder: Path, refused: Refused) -> None:
    entries = [f'"t{number}":0' for number in range(100_000)]
    header = "{" + ",".join([*entries, entries[-1]]) + "}"
    refused(with_header(folder, header), "duplicate", "t99999")


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b" {}",
        b'"text"',
        b"{" * 3000,
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"a.weight":{"dtype":"BF16","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,2]}}',
        b'{"a.weight":{"dtype":"BF16","shape":[NaN],"data_offsets":[0,2]}}',
        b'{"a.weight":{"dtype":"BF16","shape":[1e999],"data_offsets":[0,2]}}',
        b'{"a.weight":{"dtype":"BF16","shape":[-0],"data_offsets":[0,0]}}',
        b'{"\\ud800.weight":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}',
        b'{"\xff.weight":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}',
        '{"a":1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"{}\0\0\0\0",
        b"{'a': 1}",
    ],
    ids=lambda header: ascii(header[:20]),
)
def test_a_header_that_is_no_plain_json_object_is_refused(folder: Path, refused: Refused, header: bytes) -> None:
    refused(with_header(folder, header, b"\0\0"), "model.safetensors")


def test_one_bad_file_named_by_its_path_is_refused_too(tmp_path: Path, refused: Refused) -> None:
    path = write_safetensors(tmp_path / "single" / "weights.safetensors", llama())
    with path.open("r+b") as file:
        file.truncate(5000)
    refused(path, "weights.safetensors", "truncated")


def test_the_same_tensor_in_two_shards_without_an_index_is_refused_with_both_names(
    tmp_path: Path, refused: Refused
) -> None:
    folder = checkpoint(tmp_path / "model", shards=2)
    both = {QUERY: gaussian(64, 64), "extra.weight": gaussian(64, 64)}
    write_raw(folder / "model-00002-of-00002.safetensors", header_of(both), data_of(both))
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, "stored twice", QUERY, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, refused: Refused) -> None:
    write_json(tmp_path / "model" / "config.json", CONFIG)
    refused(with_header(tmp_path / "model", {}), "nothing to quantize", "holds no tensors")


def test_a_file_that_holds_nothing_to_quantize_is_refused(tmp_path: Path, refused: Refused) -> None:
    folder = checkpoint(tmp_path / "model", {"model.norm.weight": np.ones(64, BF16)})
    refused(folder, "nothing to quantize", "keeps every layer", "norms")
