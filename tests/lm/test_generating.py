"""Continuations side by side."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.lm.generating import Prompts, pick
from studio.lm.texts import load_tokenizer
from tests.lm.models import write_llama

for needed in ("torch", "transformers", "mlx_lm"):
    pytest.importorskip(needed, reason="the extra `runtimes` brings it")


def test_the_likeliest_token_is_picked_and_the_first_of_equals() -> None:
    assert pick(np.array([0.0, 2.0, 2.0, 1.0], np.float32)) == 1


def test_a_chance_picks_by_shares_of_probability() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.25], np.float32))
    assert [pick(logits, 1.0, chance) for chance in (0.0, 0.49, 0.51, 0.74, 0.76, 0.999)] == [0, 0, 1, 1, 2, 2]
    assert pick(logits, 0.01, 0.99) == 0


def test_predictions_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(core.CheckpointError, match="no numbers"):
        pick(np.array([0.0, math.nan], np.float32))


@pytest.fixture(scope="module")
def generation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[core.Generation]:
    folder = tmp_path_factory.mktemp("generation")
    with core.open_model(write_llama(folder / "llama")) as model, core.start(core.Machine(threads=2), model) as engine:
        side = core.as_stored(model)
        with core.Generation(engine, side, side, runtime="mlx-lm", folder=folder / "cache") as found:
            (*_, loaded) = found.load()
            assert isinstance(loaded, core.Loaded)
            assert loaded.chat is False
            yield found
    assert list((folder / "cache").iterdir()) == []


def tokens(generation: core.Generation, prompt: core.Prompt) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {"source": [], "model": []}
    for event in generation.reply(prompt):
        if isinstance(event, core.Token):
            assert event.index == len(found[event.side])
            found[event.side].append(event.token)
        last = event
    assert last == core.ReplyDone(None)
    return found


@pytest.mark.proof
def test_equal_sides_say_the_same(generation: core.Generation) -> None:
    found = tokens(generation, core.Prompt("Sentence number", length=8))
    assert found["source"] == found["model"]
    assert len(found["source"]) == 8


@pytest.mark.proof
def test_a_seed_gives_the_same_tokens_again_and_another_one_others(generation: core.Generation) -> None:
    first, again, other = (
        tokens(generation, core.Prompt("Sentence", length=8, temperature=1.0, seed=seed))["model"] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_reply_that_is_closed_stops_and_the_next_one_is_answered(generation: core.Generation) -> None:
    reply = generation.reply(core.Prompt("Sentence", length=100_000))
    assert any(isinstance(event, core.Token) for event in reply)
    reply.close()  # type: ignore[attr-defined]
    assert len(tokens(generation, core.Prompt("Sentence", length=3))["model"]) == 3


def with_template(folder: Path, template: str) -> Path:
    found = write_llama(folder / "llama")
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (found / "tokenizer_config.json").write_text(json.dumps(told))
    return found


def test_a_chat_template_forms_the_prompt(tmp_path: Path) -> None:
    ask = "{% if add_generation_prompt %}<me>{% endif %}"
    template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}" + ask
    folder = with_template(tmp_path, template)
    prompts, tokenizer = Prompts(folder), load_tokenizer(folder)
    assert prompts.ids("Hello there", chat=True) == list(tokenizer.encode("<user> Hello there\n<me>"))
    assert prompts.ids("Hello there", chat=False) == [*tokenizer.start, *tokenizer.encode("Hello there")]
    assert prompts.ends == {0}


def test_a_chat_template_that_fails_is_told(tmp_path: Path) -> None:
    prompts = Prompts(with_template(tmp_path, "{{ raise_exception('no roles') }}"))
    with pytest.raises(core.StudioError, match="its chat template fails: no roles"):
        prompts.ids("Hello", chat=True)


@pytest.mark.proof
def test_an_empty_prompt_is_refused(tmp_path: Path) -> None:
    with (
        core.open_model(write_llama(tmp_path / "llama")) as model,
        core.start(core.Machine(threads=2), model) as engine,
    ):
        side = core.as_stored(model)
        with pytest.raises(core.StudioError, match="the prompt is empty"):
            list(core.generate(engine, None, side, core.Prompt(""), runtime="mlx-lm", folder=tmp_path / "cache"))
