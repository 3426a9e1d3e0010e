"""Texts become the same windows for the same text and seed, and what is no text is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

from studio.core.errors import BackendError, StudioError
from studio.core.resources import demo_checkpoint
from studio.lm.texts import load_tokenizer, read_text, windows

SENTENCES = [f"Sentence number {n} says that {n * n} is a square.\n" for n in range(600)]


def text_file(folder: Path, raw: bytes) -> Path:
    path = folder / "text.txt"
    path.write_bytes(raw)
    return path


def long_text(folder: Path):
    return read_text([text_file(folder, "".join(SENTENCES).encode())])


def test_windows_are_the_same_for_the_same_seed_and_spread_over_the_whole_text(tmp_path):
    text = long_text(tmp_path)
    first, again = (windows(text, demo_checkpoint(), 8, 64, seed=3).tokens for _ in range(2))
    other = windows(text, demo_checkpoint(), 8, 64, seed=4).tokens
    ids = load_tokenizer(demo_checkpoint()).encode(text.text)
    assert first.shape == (8, 64)
    assert first.dtype == np.int32
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    for number, window in enumerate(first):
        part = ids[number * len(ids) // 8 : (number + 1) * len(ids) // 8]
        assert " ".join(map(str, window)) in " ".join(map(str, part))


def test_a_shorter_text_gives_fewer_windows_and_says_so(tmp_path):
    found = windows(long_text(tmp_path), demo_checkpoint(), 10_000, 64)
    assert 0 < len(found.tokens) < 10_000
    assert "not for 10,000" in found.warnings[0]


def test_several_files_are_read_one_after_the_other(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text(path.name * 3)
    assert read_text(paths).text == "aaa\n\nbbb"
    assert read_text(paths).digest != read_text(paths[::-1]).digest


@pytest.mark.parametrize(
    ("raw", "word"),
    [(b"", "empty"), (b" \n\t", "empty"), (b"ab\0c", "zero bytes"), (b"caf\xe9 and more", "UTF-8: byte 3 is 0xe9")],
)
def test_what_is_no_text_is_refused(tmp_path, raw, word):
    with pytest.raises(StudioError, match=word):
        read_text([text_file(tmp_path, raw)])


def test_a_text_without_the_tokens_of_a_window_is_refused(tmp_path):
    text = read_text([text_file(tmp_path, b"Just a few words.")])
    with pytest.raises(StudioError, match="too short") as caught:
        windows(text, demo_checkpoint(), 4, 64)
    assert "--length" in caught.value.hint


def test_a_text_in_another_language_than_the_tokenizers_is_told(tmp_path):
    text = read_text([text_file(tmp_path, "кровля и語言模型的 ".encode() * 200)])
    assert "not in a language" in windows(text, demo_checkpoint(), 2, 64).warnings[0]
    assert windows(long_text(tmp_path), demo_checkpoint(), 2, 64).warnings == ()


def test_a_tokenizer_that_marks_the_start_marks_every_window(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    inner = Tokenizer(models.WordLevel({"<s>": 0, "<unk>": 1, "word": 2}, unk_token="<unk>"))  # noqa: S106
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    inner.save(str(tmp_path / "tokenizer.json"))
    found = windows(read_text([text_file(tmp_path, b"word " * 100)]), tmp_path, 3, 8)
    assert found.tokens.tolist() == [[0, 2, 2, 2, 2, 2, 2, 2]] * 3
    strange = windows(read_text([text_file(tmp_path, b"other words " * 100)]), tmp_path, 3, 8)
    assert "100% of its tokens are unknown" in strange.warnings[0]


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(StudioError, match="no tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert "tokenizer.json" in caught.value.hint
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(StudioError, match="not a tokenizer"):
        load_tokenizer(tmp_path)


def test_without_the_extra_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BackendError, match="needs the package tokenizers") as caught:
        load_tokenizer(demo_checkpoint())
    assert caught.value.hint == "pip install 'nvfp4-studio[lm]'"
