"""GGUF models: tensors under the names that transformers gives them, with their values, and config and tokenizer."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from studio.core.architectures import family_of, is_known, text_section
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.layouts.documents import json_document
from studio.core.model import Document, Model
from studio.core.names import printable
from studio.core.opening.configs import read_config
from studio.core.opening.gguf_files import GgufModel
from studio.core.opening.gguf_reading import GgufReading
from studio.core.opening.gguf_tokenizer import (
    TOKENIZER_FILES,
    UnknownTokenizerError,
    generation_document,
    tokenizer_documents,
    tokenizer_obstacle,
)
from studio.core.opening.gguf_weights import GgufWeight
from studio.core.opening.grouping import layers_of
from studio.core.opening.norms import with_norms
from studio.core.opening.side_files import side_files
from studio.core.sources.gguf import Ggml
from studio.core.sources.recognition import Recognized
from studio.core.sources.undone import LogOfNegative

_IDENTITY = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
_GENERATION = "generation_config.json"
_TOKENIZERS = {"tokenizer.json", "tokenizer.model", "vocab.json"}


def opened_gguf(place: Path, files: GgufModel, warnings: list[str]) -> Model:
    """The model of GGUF files, opened at `place`; adds to `warnings` what is odd about it. Raises CheckpointError.

    A config.json beside it that is of the same model takes the place of what the metadata tell, as do the files of a
    tokenizer beside that.
    """
    reading = GgufReading(files, warnings)
    weights = list(reading.weights())
    if rounded := sum(map(_is_rounded, weights)):
        what = "stored as minus the exponential of float32, whose logarithm is right to the last place only"
        warnings.append(f"{counted(rounded, 'tensor is', 'tensors are')} {what}")
    found = Recognized(
        {weight.tensor: weight.source for weight in weights},
        unread={weight.tensor: weight.obstacle for weight in weights if weight.obstacle},
        weights={weight.tensor: weight.name for weight in weights},
    )
    config, beside = _beside(place, reading.config, warnings)
    family = family_of(config)
    layers = layers_of({weight.tensor: weight.source.stored for weight in weights}, config, family, found, warnings)
    layers = with_norms(layers, {weight.name: weight.source.stored for weight in weights}, config)
    documents = _documents(files, config, {path.name for path in beside}, warnings)
    told = (config, beside, tuple(warnings), _refusal(weights), family, is_known(config), documents)
    return Model(place, tuple(files.files.values()), layers, *told, container="gguf")


def _beside(place: Path, config: dict[str, Any], warnings: list[str]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The config that counts, and the side files: what lies beside one file alone may be of any model."""
    folder = place if place.is_dir() else place.parent
    other = read_config(folder)
    same = bool(other) and all(text_section(other).get(key) == config[key] for key in _IDENTITY)
    if other and not same:
        warnings.append("config.json: beside the file, but of another model, left out")
    files = side_files(folder, []) if same or place.is_dir() else ()
    return other if same else config, files


def _documents(
    files: GgufModel, config: Mapping[str, Any], there: set[str], warnings: list[str]
) -> tuple[Document, ...]:
    """What the metadata tell of tokenizer and generation, as files, where none lies beside."""
    pairs, path = files.pairs, files.first
    makers = {_GENERATION: lambda: json_document(generation_document(pairs))}
    if not there & _TOKENIZERS:
        longest = config.get("max_position_embeddings", 0)
        told = cache(lambda: _tokenizer(pairs, longest, path))
        if reason := tokenizer_obstacle(pairs):
            warnings.append(f"no tokenizer is written, since {reason}: bring tokenizer.json from the original")
        else:
            makers |= {name: partial(lambda name: told()[name], name) for name in TOKENIZER_FILES}
    return tuple(Document(name, make) for name, make in makers.items() if name not in there)


def _tokenizer(pairs: Mapping[str, Any], longest: int, path: Path) -> dict[str, bytes]:
    try:
        return tokenizer_documents(pairs, longest)
    except UnknownTokenizerError as error:
        what = f"no tokenizer can be made of it: {error}"
        hint = "put config.json and tokenizer.json of the original beside it"
        raise CheckpointError(what, file=path, hint=hint) from None


def _is_rounded(weight: GgufWeight) -> bool:
    return isinstance(weight.source, Ggml) and weight.source.undo == LogOfNegative("F32")


def _refusal(weights: Sequence[GgufWeight]) -> str:
    """Why no plan can be made of it, "" when one can: a layer that is not decoded can not be kept either."""
    unread = [weight for weight in weights if weight.obstacle]
    if not unread:
        return ""
    more = f", and {len(unread) - 1:,} more" if len(unread) > 1 else ""
    return f"{printable(unread[0].tensor)}: {unread[0].obstacle}{more}"
