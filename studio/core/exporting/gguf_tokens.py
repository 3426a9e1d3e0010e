"""What llama.cpp must know of a tokenizer, from tokenizer.json: the inverse of what is made of GGUF metadata."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from studio.core.containers.files import read_small
from studio.core.containers.strict_json import LARGEST_FILE, parse_object
from studio.core.errors import PlanError
from studio.core.model import Model
from studio.core.opening.gguf_tokenizer import CONTROL, NORMAL, OWN, UNUSED, rules_of

_IDS = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id"}
_PADDING = {"pad_token": "padding_token_id"}
_HINT = "llama.cpp's own converter knows more tokenizers: export with --for llama.cpp and convert that"


def tokenizer_pairs(model: Model, words: int) -> dict[str, Any]:
    """The pairs of `tokenizer.ggml` for a vocabulary of `words`. Raises PlanError for one whose rules have no name."""
    inner = _content(model, "tokenizer.json")
    if inner is None:
        raise PlanError("it has no tokenizer.json, and a GGUF file holds its tokenizer", file=model.path, hint=_HINT)
    kind = inner.get("model")
    if not isinstance(kind, dict) or kind.get("type") != "BPE" or kind.get("byte_fallback"):
        raise PlanError("its tokenizer is no byte-level BPE", file=model.path, hint=_HINT)
    pre = rules_of(inner)
    if not pre:
        raise PlanError("llama.cpp has no name for how its tokenizer cuts text", file=model.path, hint=_HINT)
    tokens, kinds = _tokens(kind.get("vocab", {}), inner.get("added_tokens") or [], words, model)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in kind.get("merges", [])]
    found: dict[str, Any] = {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": kinds, "merges": merges}
    found |= _special(model, tokens)
    found["add_bos_token"] = _begins(inner.get("post_processor"), tokens, found.get("bos_token_id"))
    pairs = {f"tokenizer.ggml.{key}": value for key, value in found.items()}
    template = (_content(model, "tokenizer_config.json") or {}).get("chat_template")
    return pairs | ({"tokenizer.chat_template": template} if isinstance(template, str) else {})


def _content(model: Model, name: str) -> dict[str, Any] | None:
    """A JSON file beside the weights, or one that is made of what the source tells."""
    for own, path in zip(model.side_names, model.side_files, strict=False):
        if own == name:
            return parse_object(read_small(path, LARGEST_FILE), file=path, constants=True)
    made = next((document.content for document in model.documents if document.name == name), None)
    found: dict[str, Any] | None = json.loads(made) if made else None
    return found


def _tokens(
    vocabulary: Mapping[str, int], added: Sequence[Mapping[str, Any]], words: int, model: Model
) -> tuple[list[str], list[int]]:
    """Tokens by their place and what each is; places without one are filled, as llama.cpp's converter does."""
    places = {place: (token, NORMAL) for token, place in vocabulary.items()}
    for entry in added:
        places[entry["id"]] = entry["content"], CONTROL if entry.get("special") else OWN
    if bad := [place for place in places if type(place) is not int or not 0 <= place < words]:
        what = f"its tokenizer has a token {bad[0]}, and the embedding {words} rows"
        raise PlanError(what, file=model.path, hint="take the tokenizer of this model")
    filled = [places.get(place, (f"[PAD{place}]", UNUSED)) for place in range(words)]
    return [token for token, _ in filled], [kind for _, kind in filled]


def _special(model: Model, tokens: Sequence[str]) -> dict[str, int]:
    """Places of the tokens that begin, end and pad: by name in tokenizer_config.json, or by place in config.json."""
    said = _content(model, "tokenizer_config.json") or {}
    found: dict[str, int] = {}
    for name, key in {**_IDS, **_PADDING}.items():
        token = said.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        place = model.config.get(f"{name}_id")
        if isinstance(text, str) and text in tokens:
            found[key] = tokens.index(text)
        elif type(place) is int and 0 <= place < len(tokens):
            found[key] = place
    return found


def _begins(step: Any, tokens: Sequence[str], begin: int | None) -> bool:
    """True when a text gets the first token in front."""
    if not isinstance(step, dict) or begin is None:
        return False
    inner = [step, *(step.get("processors") or [])]
    templates = [part.get("single") or [] for part in inner if part.get("type") == "TemplateProcessing"]
    pieces = [piece.get("SpecialToken", {}).get("id") for template in templates for piece in template[:1]]
    return tokens[begin] in pieces
