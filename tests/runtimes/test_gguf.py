"""GGUF models are the models that they were made from: names, order of rows, values, config."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio import core
from tests.core.gguf_models import PAIRS, model

DENSE = (
    "llama",
    "tied llama",
    "biased llama",
    "llama 3",
    "linear llama",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "granite",
    "smollm3",
    "arcee",
    "olmo2",
    "glm4",
)
MIXTURES = ("mixtral", "qwen2moe", "qwen3moe", "olmoe")


def plain(path, folder):
    """The model of a GGUF file as a plain folder in float32."""
    folder.mkdir()
    with core.open_model(path) as model:
        assert model.warnings == ()
        arrays = {}
        for layer in model.layers:
            whole = layer.whole
            rows = [layer.source.rows(whole, start, min(start + 5, whole.rows)) for start in range(0, whole.rows, 5)]
            arrays[layer.weight_name] = np.concatenate(rows).astype(np.float32).reshape(layer.shape)
        (folder / "config.json").write_text(json.dumps(model.config))
        for document in model.documents:
            (folder / document.name).write_bytes(document.content)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(array.size for array in arrays.values())


@pytest.mark.sampled(7)
@pytest.mark.parametrize("kind", [*DENSE, *MIXTURES])
def test_a_model_read_back_is_the_same_model(kind, tmp_path, gguf_runtime):
    path, folder = tmp_path / "model.gguf", tmp_path / "plain"
    made = gguf_runtime.ask("make", target=path, kind=kind, stored="F16")
    assert plain(path, folder) == made["weights"]
    assert gguf_runtime.ask("run", folder=folder) == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
    np.testing.assert_array_equal(np.load(folder / "logits.npy"), np.load(f"{path}.npy"))


@pytest.mark.usefixtures("accelerate")
@pytest.mark.parametrize("stored", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F32"])
def test_quantized_weights_are_those_that_transformers_decodes_itself(stored, tmp_path, gguf_runtime):
    path, folder = tmp_path / "model.gguf", tmp_path / "plain"
    gguf_runtime.ask("make", target=path, kind="llama", stored=stored)
    plain(path, folder)
    gguf_runtime.ask("run", folder=folder)
    gguf_runtime.ask("run_gguf", path=path, target=tmp_path / "theirs.npy")
    np.testing.assert_array_equal(np.load(folder / "logits.npy"), np.load(tmp_path / "theirs.npy"))


@pytest.mark.usefixtures("accelerate")
@pytest.mark.parametrize("kind", ["tied llama", "qwen2"])
def test_other_architectures_are_read_as_transformers_reads_them(kind, tmp_path, gguf_runtime):
    """Of those whose config transformers 5.23 makes as it must be: it knows no widths of heads and of experts."""
    path, folder = tmp_path / "model.gguf", tmp_path / "plain"
    gguf_runtime.ask("make", target=path, kind=kind, stored="Q8_0")
    plain(path, folder)
    gguf_runtime.ask("run", folder=folder)
    gguf_runtime.ask("run_gguf", path=path, target=tmp_path / "theirs.npy")
    np.testing.assert_array_equal(np.load(folder / "logits.npy"), np.load(tmp_path / "theirs.npy"))


DEMO = json.loads((core.demo_checkpoint() / "tokenizer.json").read_bytes())["model"]
TEXT = (
    "Hello  world, don't 'LL panic: 12345 naïve Größe 日本語\n\n\tdef f(x):\r\n    return x½ <|own|> end <|stop|> then"
)


def byte_level(pre):
    """Metadata of a byte-level tokenizer with the words of the demo, and two of its own."""
    tokens = [*sorted(DEMO["vocab"], key=DEMO["vocab"].get), "<|stop|>", "<|own|>"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in DEMO["merges"]]
    kinds = [*[1] * (len(tokens) - 2), 3, 4]
    special = {"tokens": tokens, "token_type": kinds, "merges": merges, "eos_token_id": len(tokens) - 2}
    return {"model": "gpt2", "pre": pre, "add_bos_token": False, **special}


def sentence_piece():
    """Metadata of a SentencePiece tokenizer of the same words."""
    words = [word.replace("Ġ", "▁") for word in sorted(DEMO["vocab"], key=DEMO["vocab"].get) if word.isalnum()]
    pieces = list(dict.fromkeys(["▁", *(letter for word in words for letter in word), *words]))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces, "<|stop|>", "<|own|>"]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(pieces), 3, 4]
    scores = [0.0] * 259 + [-float(place) for place in range(len(pieces))] + [0.0, 0.0]
    places = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return {"model": "llama", "tokens": tokens, "token_type": kinds, "scores": scores, "add_bos_token": True, **places}


def written(folder, said, architecture="llama"):
    """A file with a tokenizer, and the folder of what was made of it."""
    path, beside = folder / "model.gguf", folder / "made"
    shape = {
        key.replace("llama.", f"{architecture}."): value for key, value in PAIRS.items() if "tokenizer." not in key
    }
    own = {f"tokenizer.ggml.{key}": value for key, value in said.items()}
    shape[f"{architecture}.attention.sliding_window"] = 16
    pairs = {**dict.fromkeys(PAIRS), **shape, **own, "general.architecture": architecture}
    path.write_bytes(model(pairs))
    beside.mkdir()
    with core.open_model(path) as found:
        (beside / "config.json").write_text(json.dumps(found.config))
        for document in found.documents:
            (beside / document.name).write_bytes(document.content)
    return path, beside


@pytest.mark.sampled(3)
@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "gpt-2"])
def test_byte_level_tokenizers_cut_text_as_transformers_does(pre, tmp_path, gguf_runtime):
    path, folder = written(tmp_path, byte_level(pre))
    cut = gguf_runtime.ask("tokens", folder=folder, path=path, text=TEXT)
    assert cut["ours"] == cut["theirs"]
    assert {len(DEMO["vocab"]), len(DEMO["vocab"]) + 1} < set(cut["ours"])


def test_digits_are_apart_where_llama_cpp_has_them_apart(tmp_path, gguf_runtime):
    """transformers 5.23 knows no rules of `smollm` and takes those of GPT-2."""
    path, folder = written(tmp_path, byte_level("smollm"))
    cut = gguf_runtime.ask("tokens", folder=folder, path=path, text="a 2025")["ours"]
    words = sorted(DEMO["vocab"], key=DEMO["vocab"].get)
    assert [words[token] for token in cut][-4:] == ["2", "0", "2", "5"]


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_piece_tokenizers_cut_text_as_transformers_does(prefix, tmp_path, gguf_runtime):
    path, folder = written(tmp_path, {**sentence_piece(), "add_space_prefix": prefix})
    cut = gguf_runtime.ask("tokens", folder=folder, path=path, text=TEXT)
    assert cut["ours"][0] == 1
    assert cut["text"].replace("<|own|>", "").split() == TEXT.replace("<|own|>", "").replace("<|stop|>", "").split()
    if prefix:  # transformers 5.23 takes no notice of the flag
        assert cut["ours"] == cut["theirs"]


def test_tokenizers_of_gemma_cut_text_as_transformers_does(tmp_path, gguf_runtime):
    path, folder = written(tmp_path, {**sentence_piece(), "add_space_prefix": False}, "gemma3")
    cut = gguf_runtime.ask("tokens", folder=folder, path=path, text=TEXT)
    assert cut["ours"] == cut["theirs"]
