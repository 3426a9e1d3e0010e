"""Checks of files and documents, which need headers at most."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.core.containers.files import SourceFile
from studio.core.containers.gguf import read_gguf
from studio.core.containers.links import check_link
from studio.core.containers.strict_json import read_object
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.exporting.contents import MANIFEST
from studio.core.findings.finding import Observation
from studio.core.findings.folder import CONFIG, Folder
from studio.core.model import Model
from studio.core.opening.configs import LARGEST_CONFIG
from studio.core.sources.declared import FILES

_OF_MISTRAL = "params.json"
"""What Mistral's own code, and vLLM with it, reads in place of config.json."""

_FRAMEWORKS = ("pt", "tf", "flax", "mlx")
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "tokenizer_config.json")
_VOCABULARIES = ("*.model", "*.tiktoken", "*vocab*", "merges.txt", "tokenization_*.py", "tokenizer.json", "tekken.json")
_OF_BYTES = ("ByT5", "Perceiver", "Canine")
"""Beginnings of the classes of tokenizers that need no vocabulary."""

_TOKENS, _KIND, _NO_TOKENS = "tokenizer.ggml.tokens", "tokenizer.ggml.model", ("none", "no_vocab")
"""Keys of GGUF, and the kinds of models that take no text."""

_PARSED, _ENDS = 1 << 20, 64
"""Documents of up to so many bytes are read whole; of larger ones so many at their start and end."""

_LEFT_BESIDE = (
    *("generation_config.json", "chat_template.jinja", "chat_template.json", "special_tokens_map.json"),
    *("added_tokens.json", "merges.txt", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"),
)
"""What runtimes read where a source has it."""


def opening(folder: Folder) -> Iterator[Observation]:
    """What opening it as a model says, and what was wrong with single files."""
    yield from folder.seen
    yield from folder.told


def shards(folder: Folder) -> Iterator[Observation]:
    """Files of weights that are missing, and an index that does not fit them."""
    for name in folder.missing:
        yield Observation("shard-missing", name)
    for name in _unlisted(folder):
        yield Observation(
            "shard-unlisted", name, f"it is none of {counted(len(folder.files), 'file')} that belong together"
        )
    if folder.weight_map is None:
        return
    whole = not folder.missing and len(folder.headers) == len(set(folder.weight_map.values()))
    nbytes = sum(tensor.nbytes for header in folder.headers.values() for tensor in header.tensors.values())
    if whole and folder.total_size and folder.total_size != nbytes:
        yield Observation("index-size", "", f"it states {folder.total_size:,} bytes, there are {nbytes:,}")
    for tensor, name in folder.weight_map.items():
        if name in folder.headers and tensor not in folder.headers[name].tensors:
            kind = "tensor-moved" if tensor in folder.stored else "tensor-missing"
            yield Observation(kind, tensor, f"the index says {name}")
    for tensor in folder.stored:
        if tensor not in folder.weight_map:
            yield Observation("tensor-unlisted", tensor)


def _unlisted(folder: Folder) -> list[str]:
    """Files that are named like weights of the model and are none of those that belong together."""
    if not folder.path.is_dir():
        return []
    seen = {one.where for one in folder.seen}
    there = sorted(path.name for path in folder.place.glob("model*.safetensors"))
    return [name for name in there if name not in folder.files and name not in seen]


def documents(folder: Folder) -> Iterator[Observation]:
    """config.json and the tokenizer: here, and as readers want them."""
    if folder.is_gguf:
        yield from _without_tokens(folder)
        return
    if not (folder.place / CONFIG).exists() and not (folder.place / _OF_MISTRAL).is_file():
        yield Observation("config-missing", CONFIG)
    if not any((folder.place / name).exists() for name in TOKENIZERS):
        yield Observation("tokenizer-missing", "", f"none of {', '.join(TOKENIZERS)}")
    elif not _has_vocabulary(folder):
        yield Observation("tokenizer-missing", "", "a tokenizer_config.json alone, no vocabulary")
    yield from _unreadable(folder)
    for place, section in places(folder.config):
        rope = section.get("rope_parameters")
        if isinstance(rope, dict) and "rope_theta" in rope and "rope_theta" not in section:
            yield Observation("rope-nested", place or CONFIG, f"rope_theta is {rope['rope_theta']}")


def _without_tokens(folder: Folder) -> Iterator[Observation]:
    """GGUF whose metadata list no tokens, which llama.cpp looks for there alone."""
    if folder.model:
        pairs = read_gguf(folder.model.files[0]).pairs
        if _TOKENS not in pairs and pairs.get(_KIND) not in _NO_TOKENS:
            yield Observation("tokenizer-missing", folder.path.name, f"no {_TOKENS}", fails=("llama.cpp",))


def _has_vocabulary(folder: Folder) -> bool:
    if any(next(folder.place.glob(name), None) for name in _VOCABULARIES):
        return True
    with suppress(CheckpointError):
        told = read_object(folder.place / "tokenizer_config.json", LARGEST_CONFIG, constants=True)
        return str(told.get("tokenizer_class")).startswith(_OF_BYTES) or "auto_map" in told
    return True  # it is told that it can not be read


def _unreadable(folder: Folder) -> Iterator[Observation]:
    """Documents beside the weights that are no JSON, or stand for another file."""
    own = {CONFIG, *FILES, MANIFEST}
    for path in sorted(folder.place.glob("*.json")) if folder.path.is_dir() else ():
        if path.name not in own and not path.name.endswith(".index.json") and (why := _fault(path, folder.place)):
            yield Observation(
                "tokenizer-unreadable" if path.name in TOKENIZERS else "document-unreadable", path.name, why
            )


def _fault(path: Path, folder: Path) -> str:
    """Why a document can not be read; of a large one the start and the end are looked at."""
    try:
        check_link(path, folder)
        with SourceFile(path) as file:
            if file.size <= _PARSED:
                json.loads(bytes(file.read(0, file.size)))
                return ""
            start, end = bytes(file.read(0, _ENDS)).lstrip(), bytes(file.read(file.size - _ENDS, _ENDS)).rstrip()
        return "" if (start[:1], end[-1:]) in ((b"{", b"}"), (b"[", b"]")) else "it does not begin and end as JSON does"
    except CheckpointError as error:
        return error.what
    except (ValueError, RecursionError):
        return "not valid JSON"


def beside(folder: Folder, source: Model) -> Iterator[Observation]:
    """Files of the source that runtimes read, and that are not here."""
    if not folder.path.is_dir() or folder.is_gguf:
        return
    for path in source.side_files:
        if path.name in _LEFT_BESIDE and path.parent == source.folder and not (folder.place / path.name).exists():
            yield Observation("beside-missing", path.name, "the source has it")


def dtype(folder: Folder) -> Iterator[Observation]:
    """The dtype that config.json names, where all plain matrices have another."""
    said = folder.config.get("dtype", folder.config.get("torch_dtype"))
    if not isinstance(said, str) or folder.is_gguf:
        return
    stored = stored_dtypes(folder)
    rounded = stored == {"float32"}  # which readers round as they load, and packages leave so on purpose
    if stored and not rounded and said.removeprefix("torch.") not in stored:
        yield Observation("config-dtype", CONFIG, f"it says {said}, plain weights are {' and '.join(sorted(stored))}")


def metadata(folder: Folder) -> Iterator[Observation]:
    """What headers say of the framework that wrote them."""
    formats = {name: header.metadata.get("format") for name, header in folder.headers.items() if header.metadata}
    for name, said in formats.items():
        if said not in _FRAMEWORKS:
            yield Observation("metadata-format", name, f"format is {said!r}" if said else "no format")
    if len(known := {said for said in formats.values() if said in _FRAMEWORKS}) > 1:
        first = next(iter(formats.values()))
        other = next(name for name, said in formats.items() if said in known - {first})
        yield Observation("shard-foreign", other, f"format is {formats[other]}, that of the first file {first}")


def stored_dtypes(folder: Folder) -> set[str]:
    """The dtypes of plain matrices, as config.json calls them."""
    matrices = (layer.tensor for layer in folder.layers if len(layer.shape) > 1 and layer.name not in folder.packed)
    return {_DTYPES[tensor.dtype] for tensor in matrices if tensor.dtype in _DTYPES}


def twice(folder: Folder) -> Iterator[Observation]:
    """Tensors that more than one file holds."""
    owners: dict[str, str] = {}
    for file, header in folder.headers.items():
        for name in header.tensors:
            if (first := owners.setdefault(name, file)) != file:
                yield Observation("tensor-twice", name, f"in {first} and in {file}")


def places(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The config and the objects in it, by key."""
    yield "", config
    yield from ((key, value) for key, value in config.items() if isinstance(value, dict) and key != "rope_parameters")
