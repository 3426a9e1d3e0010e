"""Side files: what lies beside the weights and goes along with an export, byte for byte, and what does not and why."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from studio.core.containers.files import SourceFile, names_in
from studio.core.containers.links import leads_out
from studio.core.errors import CheckpointError
from studio.core.exporting.contents import JOURNAL, MANIFEST, SUMS
from studio.core.exporting.staged_folder import TEMPORARY
from studio.core.names import is_plain_path, printable, some_of
from studio.core.sources.declared import FILES

LARGEST_SIDE_FILE = 1 << 30

_READ_FOLDERS = re.compile(r"additional_chat_templates|(\w+_)?tokenizer|(\w+_)?\d+_\w+")
"""Folders that runtimes read: templates and further tokenizers (transformers), modules (sentence-transformers)."""

_WEIGHTS = "weights of another kind"
_MODULE = "weights of a module in a folder, which must be copied by hand where a runtime needs it"

_KINDS: dict[str, re.Pattern[str]] = {
    "hidden or temporary": re.compile(rf"\..*|.*~|.*({re.escape(TEMPORARY)}|\.(partial|incomplete|lock|bak|swp))"),
    "the card of the source": re.compile(r"readme(\..*)?|model[_-]?card(\..*)?"),
    "left from a quantization": re.compile(
        r"quant(ize|ization)?_config\.json|quant_log\.csv|recipe\.ya?ml|smash_config\.json|measurement\.json"
        rf"|job_new\.json|imatrix\..*|{re.escape(MANIFEST)}|{re.escape(JOURNAL)}|{SUMS.lower()}.*"
    ),
    "code": re.compile(
        r".*\.(py[cdiow]?|ipynb|pkl|pickle|joblib|dill|sh|bash|bat|cmd|ps1|exe|com|msi|so(\.\d+)*|dll|dylib|jar|class"
        r"|[cm]?[jt]s|wasm|php|rb|pl|lua|c|cc|cpp|cu|cuh|h|hpp|metal|mojo|rs|go|java|html?)"
    ),
    _WEIGHTS: re.compile(
        r".*\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|ggmlv3|llamafile|onnx|onnx_data.*|ort|h5|hdf5|keras|msgpack|npz|npy"
        r"|tflite|pb|mlmodel|mlpackage|mlmodelc|engine|pdparams|pdmodel|pdiparams|ot|nemo|distcp|params|orbax|task"
        r"|litertlm|dat|faiss|zip|tar|t?gz|bz2|xz|zst|7z|rar)|.*\.(safetensors|bin|pt)\.index\.json"
    ),
    "pictures, sounds or papers": re.compile(
        r".*\.(png|jpe?g|gif|webp|svg|bmp|ico|tiff?|heic|avif|mp4|mov|webm|avi|mkv|wav|mp3|flac|ogg|m4a|pdf|pptx?|docx?)"
    ),
    "records of training or data": re.compile(
        r"(trainer_state|training_args|(all|train|eval|predict)_results)\.json|events\.out\..*|.*\.(parquet|arrow|log)"
    ),
}
"""Why a file is left out -> the names of such files, in lower case; the first that matches counts."""

_NEEDED = (".json", ".model", ".txt", ".jinja", ".tiktoken")
"""How the names of files end that a runtime reads: one that is there and can not be read is an error."""


def side_files(folder: Path, warnings: list[str]) -> tuple[Path, ...]:
    """Files of `folder` that a runtime may need besides weights and config, in the order of their names.

    Adds to `warnings` what is left out, a sentence per reason. Raises CheckpointError for one that can not be read.
    """
    found: dict[str, Path] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for name in _candidates(folder):
        path, same = folder / name, _folded(name)
        if reason := _obstacle(path, folder, name):
            left_out[reason].append(name)
        elif same in found:
            left_out["named like another but for case"].append(name)
        else:
            found[same] = path
    warnings += [f"{some_of(names)}: {reason}, left out" for reason, names in left_out.items()]
    return tuple(found.values())


def is_usual(warning: str) -> bool:
    """Whether a warning of `side_files` is of kinds that lie beside most weights: cards, records, other formats."""
    return warning.endswith(tuple(f": {reason}, left out" for reason in _KINDS))


def _candidates(folder: Path) -> Iterator[str]:
    for name in sorted(names_in(folder)):
        path = folder / name if _READ_FOLDERS.fullmatch(name) else None
        if path and path.is_dir() and not leads_out(path, folder):
            yield from (f"{name}/{inside}" for inside in sorted(names_in(path)))
        elif name not in ("config.json", *FILES) and not name.endswith((".safetensors", ".safetensors.index.json")):
            yield name  # configs are no side files, and the weights are told of where they are found


def _folded(name: str) -> str:
    """The name as a disk sees it that does not tell case or forms of accents apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _obstacle(path: Path, folder: Path, name: str) -> str:
    """Why a file does not go along; empty when it does."""
    lower = path.name.lower()
    kind = next((reason for reason, pattern in _KINDS.items() if pattern.fullmatch(lower)), "")
    if kind:
        return _MODULE if kind == _WEIGHTS and "/" in name else kind
    if not is_plain_path(name) or not name.isprintable():
        return "a name that not every system can store"
    try:
        if leads := leads_out(path, folder):
            return f"a link that leads out of the folder, to {printable(leads)}"
        if not lower.endswith(_NEEDED) and path.is_dir():
            return "a folder that runtimes do not read" if path.parent == folder else "a folder inside a folder"
        if SourceFile(path).size > LARGEST_SIDE_FILE:
            return f"larger than {LARGEST_SIDE_FILE:,} bytes"
    except CheckpointError as error:
        if lower.endswith(_NEEDED):
            raise
        return error.what
    return ""
