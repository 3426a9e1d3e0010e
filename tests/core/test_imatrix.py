"""Importance files of llama.cpp, both forms, are read as mean squares; damaged and foreign ones are refused."""

import struct

import numpy as np
import pytest

from studio import core
from studio.core.errors import CheckpointError, PlanError
from tests.core.checkpoints import CONFIG, checkpoint, gaussian, llama

EXPERTS = 3
CALLS = 4


def mixture():
    """The tensors of a llama whose feed-forward parts are three experts, the second block's in one tensor."""
    tensors = {name: array for name, array in llama().items() if "mlp" not in name}
    for expert in range(EXPERTS):
        for name, shape in {"gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128)}.items():
            tensors[f"model.layers.0.mlp.experts.{expert}.{name}.weight"] = gaussian(*shape, seed=expert)
    tensors["model.layers.1.mlp.experts.gate_up_proj"] = gaussian(EXPERTS, 256, 64, seed=7)
    tensors["model.layers.1.mlp.experts.down_proj"] = gaussian(EXPERTS, 64, 128, seed=8)
    return tensors


@pytest.fixture
def model(tmp_path):
    config = {**CONFIG, "model_type": "qwen3_moe", "num_experts": EXPERTS}
    with core.open_model(checkpoint(tmp_path / "model", mixture(), config)) as opened:
        yield opened


def squares(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).random(shape).astype(np.float32) + 0.5


def entries():
    """llama.cpp's name: (mean squares [experts, K], tokens [experts])."""
    found = {}
    for block in range(2):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found[f"blk.{block}.{name}.weight"] = (squares(1, 64, seed=block), np.array([500]))
        for name, width in (("ffn_gate_exps", 64), ("ffn_up_exps", 64), ("ffn_down_exps", 128)):
            found[f"blk.{block}.{name}.weight"] = (squares(EXPERTS, width, seed=9 + block), np.array([300, 0, 700]))
    found["output.weight"] = (squares(1, 64, seed=5), np.array([500]))
    return found


def gguf(tensors, pairs=(("general.type", "imatrix"),)):
    """GGUF, version 3, written from its description."""

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs) + 2)
    for key, value in pairs:
        head += text(key) + struct.pack("<I", 8) + text(value)
    head += text("imatrix.datasets") + struct.pack("<IIQ", 9, 8, 1) + text("wiki.raw")
    head += text("imatrix.chunk_count") + struct.pack("<II", 4, 10)
    data = b""
    for name, array in tensors.items():
        data += b"\0" * (-len(data) % 32)
        head += text(name) + struct.pack("<I", array.ndim) + struct.pack(f"<{array.ndim}Q", *array.shape[::-1])
        head += struct.pack("<IQ", 0, len(data))
        data += array.astype("<f4").tobytes()
    return head + b"\0" * (-len(head) % 32) + data


def newer(known=None):
    tensors = {}
    for name, (means, tokens) in (known or entries()).items():
        tensors[f"{name}.in_sum2"] = means * tokens[:, None]
        tensors[f"{name}.counts"] = tokens[:, None].astype(np.float32)
    return gguf(tensors)


def older(known=None):
    known = known or entries()
    raw = struct.pack("<i", len(known))
    for name, (means, tokens) in known.items():
        values = np.where(tokens[:, None] > 0, means, 1).astype("<f4") * np.float32(CALLS)
        raw += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", CALLS, values.size) + values.tobytes()
    return raw + struct.pack("<ii", 10, 8) + b"wiki.raw"


FORMS = {"gguf": newer, "dat": older}


@pytest.mark.parametrize("form", FORMS)
def test_mean_squares_are_found_by_the_names_of_the_checkpoint(form, tmp_path, model):
    (tmp_path / "i").write_bytes(FORMS[form]())
    file = core.open_statistics(tmp_path / "i", model)
    known = entries()
    assert file.kind == "imatrix"
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    for block in range(2):
        for ours, theirs in names.items():
            layer = model.by_name[f"model.layers.{block}.self_attn.{ours}"]
            found = file.of(layer, layer.matrices[0])
            np.testing.assert_allclose(found.mean_square, known[f"blk.{block}.{theirs}.weight"][0][0], rtol=1e-6)
            assert found.tokens == (500 if form == "gguf" else CALLS * 512)
            assert (found.peak, found.moments) == (None, None)
    head = model.by_name["lm_head"]
    np.testing.assert_allclose(file.of(head, head.matrices[0]).mean_square, known["output.weight"][0][0], rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_experts_are_told_apart_however_they_are_stored(form, tmp_path, model):
    (tmp_path / "i").write_bytes(FORMS[form]())
    file = core.open_statistics(tmp_path / "i", model)
    known, seen = entries(), 0
    for layer in model.layers:
        for matrix in layer.matrices if layer.role == "expert" else ():
            means, tokens = known[f"blk.{layer.block}.ffn_{matrix.projection.removesuffix('_proj')}_exps.weight"]
            found = file.of(layer, matrix)
            seen += 1
            if not tokens[matrix.expert]:
                assert found.tokens == 0
                continue
            np.testing.assert_allclose(found.mean_square, means[matrix.expert], rtol=1e-6)
            assert found.tokens == (tokens[matrix.expert] if form == "gguf" else CALLS * 512)
    assert seen == 2 * EXPERTS * 3
    layers, idle = core.unseen(file, model)
    assert layers == []
    assert {matrix.expert for matrix in idle} == {1}


@pytest.mark.parametrize("form", FORMS)
def test_an_importance_file_of_another_model_is_refused(form, tmp_path, model):
    wider = {name: (np.repeat(means, 2, axis=1), tokens) for name, (means, tokens) in entries().items()}
    (tmp_path / "i").write_bytes(FORMS[form](wider))
    with pytest.raises(PlanError, match="the model has") as caught:
        core.open_statistics(tmp_path / "i", model)
    assert "another model" in caught.value.hint
    (tmp_path / "i").write_bytes(FORMS[form]({"enc.0.attn.weight": (squares(1, 64), np.array([5]))}))
    with pytest.raises(PlanError, match="of 1 name, none is that of a matrix"):
        core.open_statistics(tmp_path / "i", model)


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_importance_file_is_refused(form, tmp_path, model):
    raw = FORMS[form]()
    for length in (30, 200, len(raw) // 3, len(raw) * 2 // 3):
        (tmp_path / "i").write_bytes(raw[:length])
        with pytest.raises(CheckpointError):
            core.open_statistics(tmp_path / "i", model)


def test_another_gguf_file_is_refused_and_so_is_one_without_counts(tmp_path, model):
    (tmp_path / "i").write_bytes(gguf({"blk.0.attn_q.weight": squares(64, 64)}, (("general.type", "model"),)))
    with pytest.raises(CheckpointError, match="not of importance: model"):
        core.open_statistics(tmp_path / "i", model)
    (tmp_path / "i").write_bytes(gguf({"blk.0.attn_q.weight.in_sum2": squares(1, 64)}))
    with pytest.raises(CheckpointError, match="needs in_sum2 and counts"):
        core.open_statistics(tmp_path / "i", model)


def test_sums_that_no_squares_have_are_refused(tmp_path, model):
    spoiled = entries()
    spoiled["blk.0.attn_q.weight"][0][0, 3] = -1
    (tmp_path / "i").write_bytes(newer(spoiled))
    layer = model.by_name["model.layers.0.self_attn.q_proj"]
    with pytest.raises(CheckpointError, match="sum of squares"):
        core.open_statistics(tmp_path / "i", model).of(layer, layer.matrices[0])


def test_every_mutation_of_a_header_is_refused_or_harmless(tmp_path, model):
    chance = np.random.default_rng(0)
    for form in FORMS.values():
        raw = bytearray(form())
        for _ in range(150):
            changed = bytearray(raw)
            changed[chance.integers(0, 1500)] = chance.integers(0, 256)
            (tmp_path / "i").write_bytes(changed)
            try:
                core.open_statistics(tmp_path / "i", model)
            except core.StudioError:
                continue
