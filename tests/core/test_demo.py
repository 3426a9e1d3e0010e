"""The bundled demo checkpoint: whole, and its tokenizer says of itself what loaders would otherwise guess."""

import json

from studio import core


def test_the_demo_opens_without_a_warning_and_its_tokenizer_goes_along() -> None:
    with core.open_model(core.demo_checkpoint()) as model:
        assert model.warnings == ()
        assert set(model.side_names) == {"generation_config.json", "tokenizer.json", "tokenizer_config.json"}


def test_its_special_tokens_are_in_its_vocabulary_and_are_those_of_the_config() -> None:
    folder = core.demo_checkpoint()
    tokenizer, described, config = (
        json.loads((folder / name).read_text()) for name in ("tokenizer.json", "tokenizer_config.json", "config.json")
    )
    vocabulary = tokenizer["model"]["vocab"]
    assert described["tokenizer_class"] == "PreTrainedTokenizerFast", "the model type alone means a Llama tokenizer"
    named = {key: vocabulary[token] for key, token in described.items() if key in ("eos_token", "pad_token")}
    assert named == {"eos_token": config["eos_token_id"], "pad_token": config["pad_token_id"]}
    added = {int(number): token["content"] for number, token in described["added_tokens_decoder"].items()}
    assert added == {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    assert described["model_max_length"] == config["max_position_embeddings"]
    assert len(vocabulary) == config["vocab_size"]
