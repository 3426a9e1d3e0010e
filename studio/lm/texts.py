"""Texts: from files to windows of tokens, the same for the same text and seed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.files import LARGEST_TEXT, read_small
from studio.core.counting import counted
from studio.core.errors import BackendError, StudioError
from studio.lm.protocol import first_line
from studio.lm.runtimes import INSTALL

_PIECE = 1 << 18
_MOST_UNKNOWN = 0.05
_MOST_TOKENS_PER_BYTE = 0.6


@dataclass(frozen=True, slots=True)
class Text:
    """What was read: the text, and the SHA-256 of the files' bytes in their order."""

    text: str
    digest: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Token ids [n, length] int32, where they come from, and what is odd about them."""

    tokens: NDArray[np.int32]
    digest: str
    warnings: tuple[str, ...] = ()


def read_text(paths: Sequence[Path]) -> Text:
    """The text of UTF-8 files, one after the other. Raises StudioError for one that is empty, binary or not UTF-8."""
    pieces, digest = [], hashlib.sha256()
    for path in paths:
        raw = read_small(path, LARGEST_TEXT)
        digest.update(raw)
        pieces.append(_decoded(raw, path))
    return Text("\n\n".join(pieces), digest.hexdigest(), tuple(paths))


def _decoded(raw: bytes, path: Path) -> str:
    if b"\0" in raw:
        raise StudioError("not a text: it holds zero bytes", file=path, hint="give a plain text in UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not a text in UTF-8: byte {error.start:,} is 0x{raw[error.start]:02x}"
        raise StudioError(what, file=path, hint="save it as UTF-8, or give another text") from None
    if not text.strip():
        raise StudioError("the text is empty", file=path, hint="give a text like those that the model will read")
    return text


def windows(text: Text, folder: Path, count: int, length: int, seed: int = 0) -> Windows:
    """At most `count` windows of `length` tokens, spread over the whole text, with the tokenizer of `folder`.

    The text is divided into as many equal parts as there are windows; `seed` places a window in each. Where the
    tokenizer starts a text with a token of its own, so does every window. Raises StudioError for a text that has not
    the tokens of one window, and for a folder without a tokenizer.
    """
    tokenizer = load_tokenizer(folder)
    start, ids = tokenizer.start, tokenizer.encode(text.text)
    room = length - len(start)
    if room < 1:
        raise StudioError(f"windows of {length} tokens are too short", hint="--length 512 is usual")
    found = min(count, len(ids) // room)
    if not found:
        what = f"the text is too short: {counted(len(ids), 'token')}, one window needs {room:,}"
        raise StudioError(what, file=text.files[0], hint="give a longer text, or a smaller --length")
    warnings = tokenizer.doubts(text.text, ids)
    if found < count:
        warnings.append(f"the text has tokens for {counted(found, 'window')} of {length:,}, not for {count:,}")
    edges = np.arange(found + 1) * len(ids) // found
    slack = np.maximum(np.diff(edges) - room, 0)
    starts = edges[:-1] + np.random.default_rng(seed).integers(0, slack + 1)
    chosen = ids[starts[:, None] + np.arange(room)]
    return Windows(np.hstack([np.tile(start, (found, 1)), chosen]).astype(np.int32), text.digest, tuple(warnings))


class Tokenizer:
    """The tokenizer of a folder. `start` is what it puts before every text, int32."""

    def __init__(self, inner: Any, unknown: int | None) -> None:
        self._inner, self._unknown = inner, unknown
        empty, short = (inner.encode(text).ids for text in ("", "a"))
        self.start = np.array(empty if short[: len(empty)] == empty else [], np.int32)

    def encode(self, text: str) -> NDArray[np.int32]:
        """Token ids of a text, without what marks its start or end."""
        batch = self._inner.encode_batch(_pieces(text), add_special_tokens=False)
        return np.concatenate([np.array(piece.ids, np.int32) for piece in batch])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; special tokens are left out."""
        return str(self._inner.decode([int(i) for i in ids]))

    def doubts(self, text: str, ids: NDArray[np.int32]) -> list[str]:
        """Sentences when the text does not seem to be in a language of the tokenizer."""
        nbytes = len(text.encode())
        unknown = float(np.mean(ids == self._unknown)) if self._unknown is not None else 0.0
        if unknown <= _MOST_UNKNOWN and len(ids) <= _MOST_TOKENS_PER_BYTE * nbytes:
            return []
        how = f"{unknown:.0%} of its tokens are unknown" if unknown > _MOST_UNKNOWN else "it falls apart into bytes"
        return [f"the text is not in a language of this model's tokenizer: {how}; statistics on it say little"]


def _pieces(text: str) -> list[str]:
    """The text cut at ends of lines, since a tokenizer's memory grows with what it gets at once."""
    pieces, start = [], 0
    while start < len(text):
        stop = text.find("\n", start + _PIECE) + 1 or len(text)
        pieces.append(text[start:stop])
        start = stop
    return pieces


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint: tokenizer.json, or what transformers makes of the files that are there.

    Raises StudioError for a folder without one, BackendError when nothing here reads it.
    """
    try:
        from tokenizers import Tokenizer as Inner
    except ImportError:
        raise BackendError("reading a text as tokens needs the package tokenizers", hint=INSTALL) from None

    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            inner = Inner.from_file(str(path))
        except Exception as error:
            raise StudioError(f"not a tokenizer that can be loaded: {error}", file=path) from None
    else:
        inner = _converted(folder)
    model = inner.model
    name = getattr(model, "unk_token", None)
    return Tokenizer(inner, inner.token_to_id(name) if isinstance(name, str) else None)


def _converted(folder: Path) -> Any:
    """What transformers makes of the older files of a tokenizer; no code of the checkpoint is run."""
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)._tokenizer
    except Exception as error:
        hint = "copy tokenizer.json of the original model into the folder"
        raise StudioError(f"no tokenizer that can be loaded: {first_line(error)}", file=folder, hint=hint) from None
