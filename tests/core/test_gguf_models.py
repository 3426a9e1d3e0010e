"""GGUF models open as the checkpoints that they were made from; what is not known of them is refused, or told."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from kernels.reference import decode
from studio import core
from studio.core.containers.gguf import TYPES
from studio.core.errors import CheckpointError
from studio.core.sources.ggml import unpaired
from tests.core.gguf_files import Info, float32, gguf
from tests.core.gguf_models import BLOCKS, HEADS, HIDDEN, INNER, KEYS, PAIRS, TOKENS, WORDS, infos, model, tensors

NUMBERS = {kind.name: number for number, kind in TYPES.items()}
QUERY, HF_QUERY = "blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj"


def opened(tmp_path, raw, name="model.gguf"):
    (tmp_path / name).write_bytes(raw)
    return core.open_model(tmp_path / name)


def refused(tmp_path, raw, words, tensor=None):
    with pytest.raises(CheckpointError, match=words) as caught:
        opened(tmp_path, raw)
    assert caught.value.file == tmp_path / "model.gguf"
    assert caught.value.tensor == tensor


def weights(layer, step=7):
    matrix = layer.whole
    rows = [layer.source.rows(matrix, at, min(at + step, matrix.rows)) for at in range(0, matrix.rows, step)]
    return np.concatenate(rows).reshape(layer.shape).astype(np.float32)


def in_order(array, heads):
    """Rows of a file as transformers has them."""
    return array.reshape(heads, -1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def with_entry(name, entry):
    return [replace(entry, name=name) if info.name == name else info for info in infos()]


def quantized(name, shape, kind, seed=3):
    row = TYPES[NUMBERS[kind]]
    raw = np.random.default_rng(seed).integers(0, 120, (int(np.prod(shape)) // row.weights, row.nbytes), np.uint8)
    return Info(name, shape, NUMBERS[kind], raw.tobytes())


def test_layers_have_the_names_roles_and_values_of_the_checkpoint(tmp_path):
    stored = tensors()
    with opened(tmp_path, model()) as found:
        assert (found.name, found.warnings, found.known, found.block_count) == ("model", (), True, BLOCKS)
        assert found.config["num_key_value_heads"] == KEYS
        assert found.config["rms_norm_eps"] == 1e-5
        assert found.is_tied
        assert {layer.role for layer in found.layers} == {"embedding", "norm", "linear"}
        assert [layer.block for layer in found.layers].count(1) == 9
        layers = found.by_name
        np.testing.assert_array_equal(weights(layers[HF_QUERY]), in_order(stored[QUERY], HEADS))
        key = weights(layers["model.layers.1.self_attn.k_proj"])
        np.testing.assert_array_equal(key, in_order(stored["blk.1.attn_k.weight"], KEYS))
        down = weights(layers["model.layers.1.mlp.down_proj"])
        np.testing.assert_array_equal(down, stored["blk.1.ffn_down.weight"])
        group = {layers[f"model.layers.0.self_attn.{name}_proj"].group for name in "qkv"}
        assert len(group) == 1


@pytest.mark.parametrize("step", [1, 3, 8, 16, 24, 64])
def test_rows_are_put_in_order_however_many_are_read_at_once(step, tmp_path):
    with opened(tmp_path, model()) as found:
        expected = in_order(tensors()[QUERY], HEADS)
        np.testing.assert_array_equal(weights(found.by_name[HF_QUERY], step), expected)


def test_vectors_that_hold_numbers_of_bfloat16_become_bfloat16_again_and_others_stay(tmp_path):
    with opened(tmp_path, model()) as found:
        assert found.by_name["model.layers.0.input_layernorm"].kept_dtype == "BF16"
        assert found.by_name["model.layers.0.post_attention_layernorm"].kept_dtype == "F32"


def test_biases_of_queries_are_put_in_order_too(tmp_path):
    names = ("attn_q", "attn_k", "attn_v", "attn_output")
    sizes = dict(zip(names, (HIDDEN, HIDDEN // 2, HIDDEN // 2, HIDDEN), strict=True))
    biases = {f"blk.{b}.{name}.bias": np.arange(size) + 0.5 for b in range(BLOCKS) for name, size in sizes.items()}
    with opened(tmp_path, model(entries=infos({**tensors(), **biases}))) as found:
        bias = found.by_name[f"{HF_QUERY}.bias"]
        assert found.config["attention_bias"] is True
        np.testing.assert_array_equal(weights(bias), in_order(np.arange(HIDDEN) + 0.5, HEADS))


def test_codes_of_nvfp4_are_handed_on_as_they_are_with_their_multiplier(tmp_path):
    entry = quantized(QUERY, (HIDDEN, HIDDEN), "NVFP4")
    scale = float32("blk.0.attn_q.scale", np.array([0.37]))
    unused = float32("blk.0.attn_q.input_scale", np.array([5.0]))
    with opened(tmp_path, model(entries=[*with_entry(QUERY, entry), scale, unused])) as found:
        assert found.warnings == ("1 scale of activations is left out: weights alone are quantized",)
        layer = found.by_name[HF_QUERY]
        assert (layer.source.format.name, layer.tensor.dtype, layer.source.bits) == ("nvfp4-3t", "NVFP4", 4)
        packed = layer.source.packed(layer.matrices[0], 5, 41)
        np.testing.assert_array_equal(decode(packed), weights(layer)[5:41])
        blocks = np.frombuffer(entry.data, np.uint8).reshape(HIDDEN, -1, 36)
        own = in_order(blocks, HEADS)[5:41].reshape(-1, 36)
        np.testing.assert_array_equal(packed.scales.reshape(-1, 4), own[:, :4])
        np.testing.assert_array_equal(unpaired(packed.codes.reshape(-1, 32), 16), own[:, 4:])
        assert packed.tensor_scale == np.float32(0.37)


def test_codes_of_mxfp4_are_handed_on_as_they_are(tmp_path):
    entry = quantized("blk.0.ffn_up.weight", (INNER, HIDDEN), "MXFP4")
    with opened(tmp_path, model(entries=with_entry(entry.name, entry))) as found:
        layer = found.by_name["model.layers.0.mlp.up_proj"]
        packed = layer.source.packed(layer.matrices[0], 0, INNER)
        assert packed.format.name == "mxfp4"
        np.testing.assert_array_equal(decode(packed), weights(layer))


def _in_groups(name, shape, kind, largest=1e-4):
    """Random blocks of a type with f16 numbers first, small ones of either sign, subnormal ones among them."""
    entry, chance = quantized(name, shape, kind), np.random.default_rng(8)
    blocks = np.frombuffer(entry.data, np.uint8).reshape(-1, TYPES[NUMBERS[kind]].nbytes) ^ chance.integers(0, 256)
    count = 2 if kind.endswith("_1") else 1
    numbers = (chance.standard_normal((len(blocks), count)) * largest).astype(np.float16)
    blocks[:, : 2 * count] = numbers.view(np.uint8)
    return replace(entry, data=blocks.astype(np.uint8).tobytes())


_BITS = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8}


@pytest.mark.parametrize(("kind", "bits"), _BITS.items())
def test_integers_in_groups_are_handed_on_with_a_bias(kind, bits, tmp_path):
    with opened(tmp_path, model(entries=with_entry(QUERY, _in_groups(QUERY, (HIDDEN, HIDDEN), kind)))) as found:
        layer = found.by_name[HF_QUERY]
        packed = layer.source.packed(layer.matrices[0], 5, 41)
        assert (packed.format.name, layer.source.scale_dtype, packed.scales.dtype) == (
            f"int{bits}-g32",
            "F16",
            np.float16,
        )
        np.testing.assert_array_equal(decode(packed), weights(layer)[5:41])


def test_a_scale_without_a_bias_in_its_dtype_is_not_handed_on(tmp_path):
    with opened(tmp_path, model(entries=with_entry(QUERY, _in_groups(QUERY, (HIDDEN, HIDDEN), "Q8_0", 600)))) as found:
        layer = found.by_name[HF_QUERY]
        with pytest.raises(CheckpointError, match="have no bias in F16"):
            layer.source.packed(layer.matrices[0], 0, HIDDEN)


@pytest.mark.parametrize(("kind", "offset"), [("MXFP4", 0), ("NVFP4", 3)])
def test_a_scale_that_is_a_number_in_ggml_only_is_not_handed_on(kind, offset, tmp_path):
    entry = quantized("blk.0.ffn_up.weight", (INNER, HIDDEN), kind)
    data = bytearray(entry.data)
    data[offset] = 255
    with opened(tmp_path, model(entries=with_entry(entry.name, replace(entry, data=bytes(data))))) as found:
        layer = found.by_name["model.layers.0.mlp.up_proj"]
        with pytest.raises(CheckpointError, match="1 of its scales") as caught:
            layer.source.packed(layer.matrices[0], 0, INNER)
        assert caught.value.tensor == "blk.0.ffn_up.weight"


def test_what_is_not_decoded_is_told_of_its_layer_and_no_plan_is_made(tmp_path):
    entry = quantized("blk.0.ffn_up.weight", (INNER, 256), "Q8_K")
    with opened(tmp_path, model(entries=with_entry(entry.name, entry))) as found:
        layer = found.by_name["model.layers.0.mlp.up_proj"]
        assert layer.obstacle == "Q8_K is not decoded here"
        assert found.by_name["model.layers.0.mlp.down_proj"].obstacle == ""
        with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_up\.weight: Q8_K"):
            found.check_plain()
        with pytest.raises(CheckpointError, match="Q8_K"):
            layer.source.rows(layer.whole, 0, 1)


def test_a_quantized_file_exports_and_is_verified_against_it(tmp_path):
    entries = [quantized(info.name, info.shape, "Q8_0") if len(info.shape) == 2 else info for info in infos()]
    entries = [replace(e, data=_tamed(e.data)) if e.kind == NUMBERS["Q8_0"] else e for e in entries]
    with opened(tmp_path, model(entries=entries)) as found, core.start(core.Machine(threads=1), found) as engine:
        plan = core.preset("linear").with_format("nvfp4-3t")
        choices = core.resolve(plan, found)
        job = core.prepare(found, plan, choices, core.LAYOUTS["compressed-tensors"], tmp_path / "out")
        for _ in core.export(engine, job):
            pass
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    with core.open_model(tmp_path / "out") as export:
        assert HF_QUERY in export.by_name
        assert export.config["model_type"] == "llama"


def _tamed(data):
    """Random blocks of Q8_0 with a scale that is a small number."""
    blocks = np.frombuffer(data, np.uint8).reshape(-1, 34).copy()
    blocks[:, :2] = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
    return blocks.tobytes()


def experts():
    """The tensors of a mixture of three."""
    found = {name: array for name, array in tensors().items() if ".ffn_" not in name or "norm" in name}
    for block in range(BLOCKS):
        router = np.random.default_rng(block).standard_normal((3, HIDDEN)).astype(np.float32)
        found[f"blk.{block}.ffn_gate_inp.weight"] = router
        for name, shape in {"gate": (INNER, HIDDEN), "up": (INNER, HIDDEN), "down": (HIDDEN, INNER)}.items():
            stack = np.random.default_rng([block, len(name)]).standard_normal((3, *shape)).astype(np.float32)
            found[f"blk.{block}.ffn_{name}_exps.weight"] = stack
    return found


def test_stacks_become_experts_one_by_one(tmp_path):
    stored = experts()
    pairs = {"llama.expert_count": 3, "llama.expert_used_count": 2}
    with opened(tmp_path, model(pairs, infos(stored))) as found:
        assert found.config["model_type"] == "mixtral"
        layer = found.by_name["model.layers.1.block_sparse_moe.experts.2.w2"]
        assert (layer.role, layer.expert, layer.tensor.name) == ("expert", 2, "blk.1.ffn_down_exps.weight[2]")
        np.testing.assert_array_equal(weights(layer), stored["blk.1.ffn_down_exps.weight"][2])
        gate = found.by_name["model.layers.1.block_sparse_moe.gate"]
        assert gate.role == "router"
        assert sum(layer.role == "expert" for layer in found.layers) == 18


UNKNOWN = {
    "architecture": ({"general.architecture": "rwkv7"}, None, "of the architecture rwkv7", None),
    "no architecture": ({"general.architecture": None}, None, "of the architecture None", None),
    "odd architecture": ({"general.architecture": [1, 2]}, None, "of the architecture", None),
    "adapter": ({"general.type": "adapter"}, None, "holds no model, but: adapter", None),
    "imatrix": ({"general.type": "imatrix"}, None, "holds no model, but: imatrix", None),
    "no width": ({"llama.embedding_length": None}, None, "llama.embedding_length is missing", None),
    "width in words": ({"llama.embedding_length": "64"}, None, "not a number above 0", None),
    "no heads": ({"llama.attention.head_count": 0}, None, "not a number above 0", None),
    "NaN": ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, None, "not a number above 0", None),
    "heads by layer": ({"llama.attention.head_count": [4, 8]}, None, "not a number above 0", None),
    "odd heads": ({"llama.attention.head_count": 3, "llama.attention.head_count_kv": 3}, None, "3 heads", QUERY),
    "partly rotated": ({"llama.rope.dimension_count": 8, "llama.attention.key_length": 16}, None, "heads of 16", None),
    "scaling": ({"llama.rope.scaling.type": "longrope"}, None, "which is not read", None),
    "no embedding": ({}, lambda: infos()[1:], "no whole model", "token_embd.weight"),
    "no last norm": ({}, lambda: infos()[:-1], "no whole model", "output_norm.weight"),
    "vector for embedding": (
        {},
        lambda: with_entry("token_embd.weight", float32("", np.ones(64))),
        "no matrix",
        "token_embd.weight",
    ),
    "another tensor": (
        {},
        lambda: [*infos(), float32("blk.0.attn_sinks.weight", np.ones(4))],
        "no part of llama",
        "blk.0.attn_sinks.weight",
    ),
    "another block": (
        {},
        lambda: [*infos(), float32("blk.2.attn_q.weight", np.ones((64, 64)))],
        "no part of llama",
        "blk.2.attn_q.weight",
    ),
    "a scale of numbers": (
        {},
        lambda: [*infos(), float32("blk.0.attn_q.scale", np.ones(1))],
        "does not fit it",
        QUERY,
    ),
    "some biases": (
        {},
        lambda: [*infos(), float32("blk.0.attn_q.bias", np.ones(64))],
        "some projections only",
        None,
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known_is_refused_by_name(case, tmp_path):
    pairs, entries, words, tensor = UNKNOWN[case]
    refused(tmp_path, model(pairs, entries and entries()), words, tensor)


def test_an_architecture_that_llama_cpp_calls_like_another_is_refused(tmp_path):
    pairs = {key.replace("llama.", "olmo2."): value for key, value in PAIRS.items()}
    pairs |= {"general.architecture": "olmo2", "olmo2.attention.sliding_window": 16}
    raw = gguf(pairs, infos())
    refused(tmp_path, raw, "olmo2 with attention.sliding_window: another architecture than olmo2")


@pytest.mark.parametrize("said", [None, 8, 16])
def test_a_part_of_each_head_may_be_rotated_alone(said, tmp_path):
    pairs = {key.replace("llama.", "phi3."): value for key, value in PAIRS.items()}
    pairs |= {"general.architecture": "phi3", "phi3.rope.dimension_count": said, "phi3.attention.sliding_window": 0}
    fused = {
        name.replace("attn_q", "attn_qkv"): array
        for name, array in tensors().items()
        if "_k." not in name and "_v." not in name and "gate" not in name
    }
    known = {key: value for key, value in pairs.items() if value is not None}
    with opened(tmp_path, gguf(known, infos(fused))) as found:
        assert found.config.get("partial_rotary_factor") == (said and said / 16)
        assert "sliding_window" not in found.config
        assert "model.layers.0.self_attn.qkv_proj" in found.by_name


def test_metadata_that_the_config_can_not_hold_is_told(tmp_path):
    with opened(tmp_path, model({"llama.attention.scale": 0.3})) as found:
        assert found.warnings == (
            "llama.attention.scale: what the file says of the model there does not go into config.json",
        )


def test_frequencies_that_are_not_those_of_llama_3_are_told(tmp_path):
    entries = [*infos(), float32("rope_freqs.weight", np.full(8, 3.0))]
    with opened(tmp_path, model(entries=entries)) as found:
        assert found.config["rope_scaling"] is None
        assert "rope_freqs.weight" in found.warnings[0]


def split(tmp_path, count=2, **changes):
    """A model in files of a set; `changes`: pairs of the second."""
    entries = infos()
    for number in range(count):
        pairs = {"split.no": number, "split.count": count, "split.tensors.count": len(entries)}
        own = (
            model(pairs, entries[number::count]) if not number else model({**pairs, **changes}, entries[number::count])
        )
        (tmp_path / f"big-{number + 1:05d}-of-{count:05d}.gguf").write_bytes(own)


@pytest.mark.parametrize("place", ["", "big-00001-of-00002.gguf", "big-00002-of-00002.gguf"])
def test_a_set_of_files_is_one_model_from_wherever_it_is_opened(place, tmp_path):
    split(tmp_path)
    with core.open_model(tmp_path / place) as found:
        assert len(found.layers) == len(tensors())
        assert len(found.files) == 2
        np.testing.assert_array_equal(weights(found.by_name[HF_QUERY]), in_order(tensors()[QUERY], HEADS))


def test_a_set_of_which_a_file_is_missing_is_refused(tmp_path):
    split(tmp_path)
    (tmp_path / "big-00002-of-00002.gguf").unlink()
    with pytest.raises(CheckpointError, match="missing") as caught:
        core.open_model(tmp_path)
    assert caught.value.file == tmp_path / "big-00002-of-00002.gguf"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split.no": 0}, "counted from 0"),
        ({"split.count": 3}, "counted from 0"),
        ({"split.no": "x"}, "counted from 0"),
    ],
)
def test_files_of_another_set_are_refused(changes, words, tmp_path):
    split(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=words):
        core.open_model(tmp_path)


def test_a_set_with_too_few_tensors_is_refused(tmp_path):
    split(tmp_path)
    first = tmp_path / "big-00001-of-00002.gguf"
    pairs = {"split.no": 0, "split.count": 2, "split.tensors.count": 99}
    first.write_bytes(model(pairs, infos()[0::2]))
    with pytest.raises(CheckpointError, match="its set holds 20 tensors, and says 99"):
        core.open_model(tmp_path)


def test_a_file_of_a_set_under_another_name_is_refused(tmp_path):
    refused(tmp_path, model({"split.no": 0, "split.count": 2}), "one of 2 files")


def test_a_folder_with_several_models_asks_for_one(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(model())
    with pytest.raises(CheckpointError, match="holds 2 models"):
        core.open_model(tmp_path)


def test_a_projector_beside_a_model_is_left_out(tmp_path):
    (tmp_path / "a.gguf").write_bytes(model())
    (tmp_path / "mmproj-a.gguf").write_bytes(b"GGUF")
    with core.open_model(tmp_path) as found:
        assert "mmproj-a.gguf: a projector of pictures, left out" in found.warnings


def test_a_file_is_told_by_how_it_starts(tmp_path):
    with opened(tmp_path, model(), "sha256-1234") as found:
        assert found.container == "gguf"


def test_safetensors_in_the_same_folder_count(tmp_path):
    from tests.core.checkpoints import checkpoint

    folder = checkpoint(tmp_path / "model")
    (folder / "model.gguf").write_bytes(model())
    with core.open_model(folder) as found:
        assert found.container == "safetensors"


def test_config_and_tokenizer_beside_a_file_take_the_place_of_the_metadata(tmp_path):
    with opened(tmp_path, model()) as found:
        config = {**found.config, "rope_theta": 7.0}
        assert [document.name for document in found.documents] == [
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")
    with core.open_model(tmp_path / "model.gguf") as found:
        assert found.config["rope_theta"] == 7.0
        assert found.side_names == ("tokenizer.json", "generation_config.json")


def test_a_config_of_another_model_beside_a_file_is_left_out(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 9}))
    (tmp_path / "tokenizer.json").write_text("{}")
    with opened(tmp_path, model()) as found:
        assert found.config["hidden_size"] == HIDDEN
        assert found.warnings == ("config.json: beside the file, but of another model, left out",)
        assert "tokenizer.json" in {document.name for document in found.documents}


def test_a_model_cut_or_changed_anywhere_gives_only_our_errors(tmp_path):
    whole = model()
    random = np.random.default_rng(0)
    header = whole.index(struct.pack("<f", tensors()["token_embd.weight"][0, 0]))
    for _ in range(300):
        changed = bytearray(whole)
        for place in random.integers(4, header, 3):
            changed[place] = random.integers(0, 256)
        try:
            with opened(tmp_path, bytes(changed)) as found:
                for layer in found.layers:
                    if not layer.obstacle and layer.matrices:
                        layer.source.rows(layer.whole, 0, 1)
        except CheckpointError:
            continue


def test_the_table_of_words_is_that_of_the_embedding(tmp_path):
    with opened(tmp_path, model()) as found:
        assert found.config["vocab_size"] == WORDS == len(TOKENS)
        assert found.config["bos_token_id"] == PAIRS["tokenizer.ggml.bos_token_id"]


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0"])
def test_integers_of_a_file_are_converted_for_mlx_without_a_loss(studio, tmp_path, kind):
    entries = [
        _in_groups(info.name, info.shape, kind) if ".ffn_" in info.name and len(info.shape) == 2 else info
        for info in infos()
    ]
    (tmp_path / "model.gguf").write_bytes(model(entries=entries))
    ran = studio("convert", tmp_path / "model.gguf", tmp_path / "out", "--layout", "mlx")
    assert ran.code == 0, ran.err
    assert f"{3 * BLOCKS} codes kept" in ran.out
    with core.open_model(tmp_path / "model.gguf") as before, core.open_model(tmp_path / "out") as after:
        for layer in before.layers:
            np.testing.assert_array_equal(weights(after.by_name[layer.name]), weights(layer))


def test_rules_of_a_tokenizer_that_are_no_word_are_told(tmp_path):
    (tmp_path / "m.gguf").write_bytes(model({"tokenizer.ggml.pre": ["smollm"]}))
    with core.open_model(tmp_path / "m.gguf") as found:
        assert "no tokenizer is written, since its rules are a list" in " ".join(found.warnings)
