"""GGUF headers: what is malformed, hostile or cut off is refused with the file and the tensor named."""

import struct
from dataclasses import replace

import numpy as np
import pytest

from studio.core.containers.files import SourceFile
from studio.core.containers.gguf import TYPES, read_gguf
from studio.core.errors import CheckpointError
from tests.core.gguf_files import Info, float32, gguf

PAIRS = {"general.architecture": "llama", "llama.block_count": 2, "x.flags": [1, 2, 3], "x.words": ["a", "b"]}
ONE, TWO = float32("one.weight", np.arange(32).reshape(4, 8)), float32("two.weight", np.arange(6))


def read(tmp_path, raw):
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    with SourceFile(path) as file:
        return read_gguf(file)


def test_pairs_and_tensors_are_read_with_their_shapes_slowest_first(tmp_path):
    found = read(tmp_path, gguf(PAIRS, [ONE, TWO]))
    assert found.pairs == PAIRS
    assert [(t.name, t.shape, t.type.name, t.nbytes) for t in found.tensors.values()] == [
        ("one.weight", (4, 8), "F32", 128),
        ("two.weight", (6,), "F32", 24),
    ]
    raw = (tmp_path / "model.gguf").read_bytes()
    start = found.tensors["two.weight"].start
    assert raw[start : start + 24] == TWO.data


def test_texts_that_are_not_utf8_keep_their_bytes(tmp_path):
    odd = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert read(tmp_path, gguf({"x.odd": odd}, [])).pairs["x.odd"].encode("utf-8", "surrogateescape") == b"\xff\xfe"


def test_another_alignment_is_followed(tmp_path):
    found = read(tmp_path, gguf({"general.alignment": 64}, [ONE, TWO], alignment=64))
    assert {tensor.start % 64 for tensor in found.tensors.values()} == {0}


MALFORMED = {
    "no GGUF": (b"GGML" + bytes(64), "not a GGUF file", None),
    "empty": (b"", "not a GGUF file", None),
    "magic alone": (b"GGUF", "does not end", None),
    "version 1": (gguf(PAIRS, [ONE], version=1), "version 1", None),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99), "big-endian", None),
    "2**63 tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0) + bytes(99), "tensors", None),
    "2**63 pairs": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63) + bytes(99), "pairs", None),
    "more pairs than there are": (b"GGUF" + struct.pack("<IQQ", 3, 0, 5) + bytes(30), "twice|does not end", None),
    "a long text": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(99), "a text of", None),
    "unknown value": (b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 77) + bytes(99), "unknown type 77", None),
    "long list": (
        b"GGUF" + struct.pack("<IQQQcIIQ", 3, 0, 1, 1, b"k", 9, 4, 2**20) + bytes(99),
        "does not end",
        None,
    ),
    "lists in lists": (
        b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 9) + struct.pack("<IQ", 9, 1) * 4 + bytes(99),
        "unknown type 9",
        None,
    ),
    "unknown type": (gguf(PAIRS, [replace(ONE, kind=99)]), "unknown type 99", "one.weight"),
    "type that was removed": (gguf(PAIRS, [replace(ONE, kind=4)]), "unknown type 4", "one.weight"),
    "five dimensions": (gguf(PAIRS, [Info("one.weight", (1, 1, 1, 1, 2), 0, bytes(8))]), "5 dimensions", "one.weight"),
    "2**63 values": (gguf(PAIRS, [Info("one.weight", (2**63,), 0, bytes(8))]), "impossible shape", "one.weight"),
    "0 x 2**63": (gguf(PAIRS, [Info("one.weight", (0, 2**63), 0, b"")]), "impossible shape", "one.weight"),
    "half a block": (gguf(PAIRS, [Info("one.weight", (2, 48), 2, bytes(54))]), "blocks of 32", "one.weight"),
    "a number in blocks": (gguf(PAIRS, [Info("one.weight", (), 2, bytes(18))]), "blocks of 32", "one.weight"),
    "overlap": (gguf(PAIRS, [ONE, replace(TWO, offset=96)]), "overlap", "two.weight"),
    "same place": (gguf(PAIRS, [ONE, replace(TWO, offset=0)]), "overlap", "one.weight"),
    "not aligned": (gguf(PAIRS, [ONE, replace(TWO, offset=132)]), "not aligned", "two.weight"),
    "beyond the end": (gguf(PAIRS, [ONE, replace(TWO, offset=160)]), "truncated", "two.weight"),
    "at 2**63": (gguf(PAIRS, [ONE, replace(TWO, offset=2**63)]), "truncated", "two.weight"),
    "cut off": (gguf(PAIRS, [ONE, TWO])[:-1], "truncated", "two.weight"),
    "cut to the header": (gguf(PAIRS, [ONE, TWO])[:300], "truncated", "one.weight"),
    "twice": (gguf(PAIRS, [ONE, replace(TWO, name=ONE.name)]), "stored twice", "one.weight"),
    "alignment 0": (gguf({"general.alignment": 0}, [ONE]), "malformed alignment", None),
    "alignment 24": (gguf({"general.alignment": 24}, [ONE], alignment=24), "malformed alignment", None),
    "alignment of words": (gguf({"general.alignment": "32"}, [ONE]), "malformed alignment", None),
    "key twice": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + struct.pack("<QcII", 1, b"k", 4, 1) * 2,
        "there twice",
        None,
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused_with_file_and_tensor(case, tmp_path):
    raw, words, tensor = MALFORMED[case]
    with pytest.raises(CheckpointError, match=words) as caught:
        read(tmp_path, raw)
    assert caught.value.file == tmp_path / "model.gguf"
    assert caught.value.tensor == tensor


def test_wherever_a_file_is_cut_it_is_refused(tmp_path):
    whole = gguf(PAIRS, [ONE, TWO])
    for size in range(len(whole)):
        with pytest.raises(CheckpointError):
            read(tmp_path, whole[:size])


def test_whatever_byte_is_changed_only_our_errors_appear(tmp_path):
    whole, refused = gguf(PAIRS, [ONE, TWO]), 0
    for place in range(320):
        for bits in (0xFF, 0x01, 0x80):
            changed = bytearray(whole)
            changed[place] ^= bits
            try:
                read(tmp_path, bytes(changed))
            except CheckpointError:
                refused += 1
    assert refused > 300


def test_sizes_are_those_of_the_package():
    constants = pytest.importorskip("gguf.constants")
    sizes = {int(kind): (kind.name, *size) for kind, size in constants.GGML_QUANT_SIZES.items()}
    ours = {number: (kind.name, kind.weights, kind.nbytes) for number, kind in TYPES.items()}
    del sizes[9]  # Q8_1, which the package has in another size than ggml
    assert sizes.items() <= ours.items()
