"""Our reader of headers accepts nothing that the safetensors package refuses, and reads what it writes."""

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from studio.core.containers import files
from studio.core.containers.files import SourceFile
from studio.core.containers.safetensors import place, read_header
from studio.core.errors import CheckpointError
from tests.core.checkpoints import gaussian, write_safetensors

CASES = 4000


def accepted(path: Path) -> bool:
    try:
        with SourceFile(path) as file:
            read_header(file)
    except CheckpointError:
        return False
    return True


def accepted_by_package(path: Path) -> bool:
    try:
        safetensors.deserialize(path.read_bytes())
    except Exception:
        return False
    return True


def good(chance: random.Random) -> tuple[dict[str, object], bytes]:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}} if chance.random() < 0.3 else {}
    position = 0
    for i in range(chance.randrange(4)):
        dtype, size = chance.choice([("F32", 4), ("BF16", 2), ("U8", 1), ("I64", 8), ("F8_E4M3", 1), ("BOOL", 1)])
        shape = [chance.randrange(4) for _ in range(chance.randrange(4))]
        nbytes = int(np.prod(shape, dtype=int)) * size
        header[f"t{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + nbytes]}
        position += nbytes
    return header, bytes(position)


def mutated(chance: random.Random) -> bytes:
    header, data = good(chance)
    text = bytearray(json.dumps(header).encode())
    kind = chance.randrange(6)
    if kind == 0 and text:
        text[chance.randrange(len(text))] = chance.randrange(256)
    elif kind == 1:
        text += chance.choice([b" ", b"\n", b"\0", b"}", b"{}", b"\t  "])
    elif kind == 2:
        data = data[: chance.randrange(len(data) + 1)] if chance.random() < 0.5 else data + b"\0"
    elif kind == 3:
        digits = [i for i, byte in enumerate(text) if chr(byte).isdigit()]
        if digits:
            text[chance.choice(digits)] = ord(chance.choice("0123456789-."))
    elif kind == 4:
        text[0:1] = chance.choice([b" {", b"[", b"", b"\xef\xbb\xbf{", b'{"t0":1,'])
    length = len(text) if kind != 5 else chance.choice([0, len(text) - 1, len(text) + 1, 2**63, 2**32])
    return struct.pack("<Q", max(length, 0)) + bytes(text) + data


@pytest.mark.proof
def test_nothing_is_accepted_that_the_package_refuses(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - reproducible cases, no secret
    path = tmp_path / "case.safetensors"
    both = 0
    for _ in range(CASES):
        path.write_bytes(mutated(chance))
        if accepted(path):
            assert accepted_by_package(path), path.read_bytes()
            both += 1
    assert CASES / 20 < both < CASES


def test_what_the_package_writes_is_read(tmp_path: Path) -> None:
    arrays = {"a": np.ones((3, 5), np.float32), "b.weight": np.zeros((0, 4), np.int64), "c": np.ones((), np.uint8)}
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file(arrays, path, {"format": "pt"})
    with SourceFile(path) as file:
        header = read_header(file)
        for name, array in arrays.items():
            tensor = header.tensors[name]
            assert tensor.shape == array.shape
            assert bytes(file.read(tensor.start, tensor.nbytes)) == array.tobytes()


def test_what_we_place_is_read_by_the_package(tmp_path: Path) -> None:
    head, header = place([("a", "BF16", (2, 3)), ('"\\\u202e', "U8", (5,)), ("", "F32", ())], {"k": "v"})
    size = sum(tensor.nbytes for tensor in header.tensors.values())
    path = tmp_path / "a.safetensors"
    path.write_bytes(head + bytes(range(size)))
    found = dict(safetensors.deserialize(path.read_bytes()))
    assert {name: tuple(item["shape"]) for name, item in found.items()} == {
        name: tensor.shape for name, tensor in header.tensors.items()
    }
    with SourceFile(path) as file:
        assert read_header(file) == header
    assert len(head) % 64 == 0


def test_a_file_that_shrinks_while_it_is_read_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", {"a": gaussian(64, 64)})
    with SourceFile(path) as file:
        tensor = read_header(file).tensors["a"]
        with path.open("r+b") as other:
            other.truncate(tensor.start + 100)
        with pytest.raises(CheckpointError, match=r"changed|truncated"):
            file.read(tensor.start, tensor.nbytes)
        with pytest.raises(CheckpointError, match="changed"):
            file.check_unchanged()


@pytest.mark.parametrize("length", [0x3C, 0x13C, 0x3C20, 0x3C0A, 0x8B1F])
def test_a_header_may_be_as_long_as_the_first_bytes_of_another_file(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}".ljust(length))
    assert accepted(path)
    assert accepted_by_package(path)


def test_a_file_that_is_held_is_opened_once_and_its_changes_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    opened: list[Path] = []
    real = files._open
    with SourceFile(path) as file:
        monkeypatch.setattr(files, "_open", lambda path: opened.append(path) or real(path))
        with file.held():
            assert [bytes(file.read(at, 2)) for at in (0, 4, 8)] == [b"01", b"45", b"89"]
        assert len(opened) == 1
        with pytest.raises(CheckpointError, match="changed while it was in use"), file.held():
            path.write_bytes(b"0123456789ab")
