"""tokenizer.json and what lies beside it from the metadata of a GGUF file, for the kinds whose whole rules are known.

The file names the regular expression of a byte-level tokenizer by a word (`tokenizer.ggml.pre`), whose meaning lies in
llama.cpp. Source: src/llama-vocab.cpp; tokenizers of transformers 5.23 (integrations/gguf), which they equal.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from studio.core.names import printable

Json = dict[str, Any]

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_WORDS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_END}"
_QWEN2 = rf"{_WORDS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_END}"
_QWEN35 = rf"{_WORDS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_END}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_TEKKEN = rf"{'|'.join(_CASED)}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_END}"
_GPT4O = rf"{'|'.join(f'{cased}{_WORDS}?' for cased in _CASED)}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_END}"

_SPLITS: Mapping[str, str] = {
    word: expression
    for words, expression in (
        ("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe", _LLAMA3),
        ("tekken", _TEKKEN),
        ("qwen2 deepseek-r1-qwen kormo f2llmv2 megrez", _QWEN2),
        ("qwen35", _QWEN35),
        ("gpt-4o llama4 kanana2 talkie minimax-m2", _GPT4O),
    )
    for word in words.split()
}
_DIGITS = frozenset(["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"])
_GPT2 = frozenset(["gpt-2", "gpt2", "mpt", "olmo", "jais"])
_WHOLE_WORDS = frozenset(
    ["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "tekken"]
)
"""A word that is a token is taken before any merge."""
_BEGINNING = _WHOLE_WORDS - {"tekken"}
"""The first token is put in front unless the file says that it is not."""
_COMPOSED = frozenset(["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "qwen35"])
"""Texts are composed (NFC) first."""

NORMAL, CONTROL, OWN, UNUSED = 1, 3, 4, 5
"""What tokens are: words, marks that are special, words that were added, and places that pad the table."""

_NAMES: Mapping[str, str] = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_SPACE = "▁"


_NAMED = ("gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o")
"""A name for each set of rules."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


class UnknownTokenizerError(Exception):
    """Why no tokenizer can be made of what a file says."""


def tokenizer_obstacle(pairs: Mapping[str, Any]) -> str:
    """Why no tokenizer can be made, "" when one can, as far as the kind tells; quick."""
    try:
        _Said(pairs).check_kind()
    except UnknownTokenizerError as error:
        return str(error)
    return ""


def tokenizer_documents(pairs: Mapping[str, Any], longest: int) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json by name; `longest` is the length of the context.

    Raises UnknownTokenizerError for a kind that is not known, and for a list of tokens that contradicts itself.
    """
    said = _Said(pairs)
    documents = {"tokenizer.json": said.tokenizer(), "tokenizer_config.json": said.config(longest)}
    try:
        return {name: _one_line(content) for name, content in documents.items()}
    except UnicodeEncodeError:
        raise UnknownTokenizerError("it holds texts that are not UTF-8") from None


def generation_document(pairs: Mapping[str, Any]) -> Json:
    """generation_config.json: the first token, and the tokens that end an answer."""
    names = {"bos_token_id": "bos_token_id", "pad_token_id": "padding_token_id"}
    found = {name: pairs.get(f"tokenizer.ggml.{key}") for name, key in names.items()}
    ends = (pairs.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot"))
    last = list(dict.fromkeys(end for end in ends if type(end) is int))
    found["eos_token_id"] = last[0] if len(last) == 1 else last or None
    return {name: value for name, value in found.items() if value is not None and type(value) in (int, list)}


def rules_of(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name for how the content of a tokenizer.json cuts and composes text, "" where it has none here."""
    step = tokenizer.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    composes = tokenizer.get("normalizer") is not None
    if composes and tokenizer["normalizer"].get("type") != "NFC":
        return ""
    whole = bool((tokenizer.get("model") or {}).get("ignore_merges"))
    return next((pre for pre in _NAMED if _cuts(pre, steps, composes=composes, whole=whole)), "")


def _cuts(pre: str, steps: Sequence[Any], *, composes: bool, whole: bool) -> bool:
    """True when the rules called `pre` are these steps; offsets do not matter."""
    own = _steps_of(pre)
    same = len(own) == len(steps) and all(map(_is_same, own, steps))
    return same and composes == (pre in _COMPOSED) and (whole or pre not in _WHOLE_WORDS)


def _is_same(own: Json, step: Any) -> bool:
    return isinstance(step, dict) and all(step.get(key) == own[key] for key in own if key != "trim_offsets")


def _steps_of(pre: Any) -> list[Json]:
    """How text is cut before it is merged. Raises UnknownTokenizerError for a word that is not known."""
    if isinstance(pre, list):
        raise UnknownTokenizerError("its rules are a list")
    if pre in _DIGITS:
        return [{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)]
    if pre in _GPT2:
        return [_byte_level(use_regex=True)]
    if pre not in _SPLITS:
        raise UnknownTokenizerError(f"the rules of {printable(pre, 40)} are not known here")
    split = {"type": "Split", "pattern": {"Regex": _SPLITS[pre]}, "behavior": "Isolated", "invert": False}
    return [split, _byte_level(use_regex=False)]


class _Said:
    """What the pairs say of a tokenizer."""

    def __init__(self, pairs: Mapping[str, Any]) -> None:
        self._pairs = pairs
        self._tokens: list[str] = self._list("tokens", str)
        self._kinds: list[int] = self._list("token_type", int) or [1] * len(self._tokens)
        if not self._tokens or len(self._kinds) != len(self._tokens):
            raise UnknownTokenizerError("it has no list of tokens, or one that its list of kinds does not fit")
        self._model, self._pre = self._get("model"), self._get("pre")

    def _get(self, key: str) -> Any:
        return self._pairs.get(f"tokenizer.ggml.{key}")

    def _list(self, key: str, kind: type) -> list[Any]:
        found = self._get(key)
        return found if isinstance(found, list) and all(type(item) is kind for item in found) else []

    def _token(self, key: str) -> str | None:
        place = self._get(key)
        return self._tokens[place] if type(place) is int and 0 <= place < len(self._tokens) else None

    def check_kind(self) -> None:
        """Raise UnknownTokenizerError for a kind whose rules are not known."""
        if self._model == "gpt2":
            _steps_of(self._pre)
        elif self._model != "llama":
            raise UnknownTokenizerError(f"its kind is {printable(self._model, 40)}")

    def tokenizer(self) -> Json:
        """The content of tokenizer.json."""
        self.check_kind()
        found = self._byte_level() if self._model == "gpt2" else self._sentence_piece()
        beside = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(self._added())}
        return beside | found

    def _added(self) -> Iterator[Json]:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for place, (token, kind) in enumerate(zip(self._tokens, self._kinds, strict=True)):
            if kind in (CONTROL, OWN):
                yield {"id": place, "content": token, **flags, "special": kind == CONTROL}

    def _vocabulary(self) -> dict[str, int]:
        """Token -> its place; those that pad the table are left out, as the makers of tokenizers do."""
        found = {
            token: place
            for place, (token, kind) in enumerate(zip(self._tokens, self._kinds, strict=True))
            if kind != UNUSED
        }
        if len(found) != sum(kind != UNUSED for kind in self._kinds):
            raise UnknownTokenizerError("it lists a token twice")
        return found

    def _byte_level(self) -> Json:
        vocabulary = self._vocabulary()
        merges = [merge.split(" ") for merge in self._list("merges", str)]
        if any(len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys() for pair in merges):
            raise UnknownTokenizerError("it merges what are no tokens")
        return {
            "normalizer": {"type": "NFC"} if self._pre in _COMPOSED else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": _steps_of(self._pre)},
            "post_processor": self._ends(self._pre in _BEGINNING),
            "decoder": _byte_level(use_regex=True),
            "model": _bpe(vocabulary, merges) | {"ignore_merges": self._pre in _WHOLE_WORDS},
        }

    def _sentence_piece(self) -> Json:
        if self._pairs.get("general.architecture") in ("gemma", "gemma2", "gemma3"):
            return self._gemma()
        prefix = self._get("add_space_prefix") is not False
        scheme = "first" if prefix else "never"
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
        scores: list[float] = self._list("scores", float)
        vocabulary = self._vocabulary()
        if len(scores) != len(self._tokens):
            raise UnknownTokenizerError("it has no score for every token")
        ranks = {token: scores[place] for token, place in vocabulary.items()}
        return {
            "normalizer": None,
            "pre_tokenizer": {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": scheme, "split": False},
            "post_processor": self._ends(first=True),
            "decoder": {"type": "Sequence", "decoders": [*_PIECES, *strip]},
            "model": _bpe(vocabulary, _merges(vocabulary, ranks)) | self._bytes(),
        }

    def _gemma(self) -> Json:
        """Several spaces are a token that is written with spaces, and what comes first is merged first."""
        tokens = [_SPACE * len(token) if token and not token.strip(" ") else token for token in self._tokens]
        self._tokens = tokens
        vocabulary = self._vocabulary()
        ranks = {token: -float(place) for token, place in vocabulary.items()}
        split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
        return {
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
            "pre_tokenizer": split,
            "post_processor": self._ends(first=True),
            "decoder": {"type": "Sequence", "decoders": _PIECES},
            "model": _bpe(vocabulary, _merges(vocabulary, ranks)) | self._bytes(),
        }

    def _bytes(self) -> Json:
        return {"unk_token": self._token("unknown_token_id"), "fuse_unk": True, "byte_fallback": True}

    def _ends(self, first: bool) -> Json:
        """The step that puts the first and the last token around a text."""
        begin = self._token("bos_token_id") if self._flag("add_bos_token", first) else None
        end = self._token("eos_token_id") if self._flag("add_eos_token", default=False) else None
        places = {token: self._tokens.index(token) for token in (begin, end) if token}
        if not places:
            return _byte_level(use_regex=True)

        def around(name: str, kind: int) -> list[Json]:
            pieces: list[str | None] = [begin, None, end]
            specials = [{"SpecialToken": {"id": token, "type_id": kind}} if token else None for token in pieces]
            specials[1] = {"Sequence": {"id": name, "type_id": kind}}
            return [piece for piece in specials if piece]

        special = {token: {"id": token, "ids": [place], "tokens": [token]} for token, place in places.items()}
        return {
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": [*around("A", 0), *around("B", 1)],
            "special_tokens": special,
        }

    def _flag(self, key: str, default: bool) -> bool:
        found = self._get(key)
        return found if isinstance(found, bool) else default

    def config(self, longest: int) -> Json:
        """The content of tokenizer_config.json."""
        named = {name: self._token(key) for name, key in _NAMES.items()}
        template = self._pairs.get("tokenizer.chat_template")
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": longest,
            **{name: token for name, token in named.items() if token is not None},
            **({"chat_template": template} if isinstance(template, str) else {}),
        }


def _one_line(content: Json) -> bytes:
    """One line of JSON; tokens are many."""
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _byte_level(use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_PIECES: list[Json] = [
    {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]


def _bpe(vocabulary: Mapping[str, int], merges: Sequence[Sequence[str]]) -> Json:
    plain = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    rules = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {"type": "BPE", **plain, **rules, "vocab": vocabulary, "merges": merges}


def _merges(vocabulary: Mapping[str, int], ranks: Mapping[str, float]) -> list[list[str]]:
    """The pairs that make up each token, the token of the highest rank first, as transformers recovers them."""
    found: dict[float, list[list[str]]] = defaultdict(list)
    for token, rank in ranks.items():
        pairs = ([token[:cut], token[cut:]] for cut in range(1, len(token)))
        known = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        found[rank] += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    ordered = (pair for rank in sorted(found, reverse=True) for pair in _longest_first(found[rank]))
    return list(ordered)


def _longest_first(pairs: list[list[str]]) -> list[list[str]]:
    return sorted(pairs, key=lambda pair: (len(pair[0]), len(pair[1])), reverse=True)
