"""open_model: from a path to a Model. Reads headers, index and config, believes none of them, and says what is odd."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from studio.core.architectures import family_of, is_known
from studio.core.containers.files import is_there, names_in, unreadable
from studio.core.containers.links import check_link, in_snapshot, is_blob
from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError
from studio.core.exporting.contents import MANIFEST, check_finished
from studio.core.layouts.detect import leftovers, quantization_method
from studio.core.model import Layer, Model, Stored
from studio.core.names import printable
from studio.core.opening.configs import LARGEST_CONFIG, read_config
from studio.core.opening.exports import Divide, exported_layers, is_export
from studio.core.opening.gguf import opened_gguf
from studio.core.opening.gguf_files import holds_gguf_only, is_gguf, open_gguf, open_gguf_folder
from studio.core.opening.grouping import layers_of, shapes_of
from studio.core.opening.matrices import divided, stored_input_first
from studio.core.opening.mlx_values import turned_back
from studio.core.opening.norms import with_norms
from studio.core.opening.side_files import side_files
from studio.core.opening.source_shards import open_file, open_folder
from studio.core.running.aside import Tell, aside
from studio.core.running.ending import Ending
from studio.core.sources.declared import FILES, Section, sections
from studio.core.sources.recognition import recognize
from studio.core.stores.store_path import StorePath, close
from studio.core.stores.urls import is_url, place_of, store_path

_NATIVE = re.compile(r"layers\.\d{1,9}\.attention\.wq\.weight")
_IN_NATIVE_ORDER = (
    "names of Mistral's own code: rows of wq and wk are in its order, not in that of Hugging Face, and stay so; "
    "what is written is for readers of these names, for others start from the checkpoint in Hugging Face form"
)


def open_model(path: str | os.PathLike[str]) -> Model:
    """Open a Hugging Face folder, a repository in a cache, one safetensors file or a GGUF model, reading headers only.

    `path` may be a URL, see `studio.core.stores.urls`. Raises CheckpointError for anything missing, malformed or
    unsafe, before a single weight is read.
    """
    place = path if isinstance(path, Path) else place_of(os.fspath(path))
    try:
        return _open(place)
    except (OSError, RuntimeError) as error:
        close(place)
        raise unreadable(error, place) from None
    except BaseException:
        close(place)
        raise


def opening(path: str | os.PathLike[str]) -> Iterator[Model | None]:
    """`open_model` where nobody may wait for a network: the model as the last that is yielded, None now and then."""
    if isinstance(path, Path) or not is_url(os.fspath(path)):
        yield open_model(path)
        return
    over, found = Ending(), False
    work = partial(_tell_opened, os.fspath(path), over)
    try:
        for model in aside(work, "nvfp4-studio-opening", Model.close):
            found = model is not None
            yield model
    finally:
        if not found:
            over.set()


def _tell_opened(url: str, over: Ending, tell: Tell[Model], _left: Ending) -> None:
    tell(open_model(store_path(url, over=over)))


def _open(path: Path) -> Model:
    if not path.exists():
        raise CheckpointError("there is no such file or folder", file=path, hint="check the spelling of the path")
    place = in_snapshot(path)
    check_finished(place)
    warnings = [place.folder.caution] if isinstance(place, StorePath) and place.folder.caution else []
    is_folder = place.is_dir()
    names = names_in(place) if is_folder else []
    if holds_gguf_only(names):
        return opened_gguf(place, open_gguf_folder(place, warnings), warnings)
    if not is_folder and place.suffix != ".safetensors" and place.is_file() and is_gguf(place):
        return opened_gguf(place, open_gguf(place), warnings)
    if is_folder:
        folder, opened = place, open_folder(place, names, warnings)
    elif place.suffix == ".safetensors" or is_blob(place.absolute()):
        folder, opened = place.parent, open_file(place, warnings)
        names = [name for name in FILES if is_there(folder / name)]
    else:
        what = "neither a folder nor a .safetensors or GGUF file"
        raise CheckpointError(what, file=place, hint="give the folder that holds config.json")
    config = read_config(folder)
    family, known = family_of(config), is_known(config)
    stored, declared = opened.stored, _declared(folder, names, config, warnings)
    divide = partial(divided, family, config)
    ours = is_folder and MANIFEST in names and is_export(folder)
    method, layers = _exported(folder, stored, warnings, divide) if ours else ("", ())
    beside = side_files(folder, [] if method else warnings) if config or is_folder else ()
    if not method:
        found = recognize(stored, declared, partial(stored_input_first, family, config, shapes_of(stored)))
        layers = with_norms(layers_of(stored, config, family, found, warnings), stored, config)
        layers = turned_back(layers, family, warnings)
        method = quantization_method(stored, declared, found)
        warnings += leftovers(declared, found, method)
    if any(map(_NATIVE.fullmatch, stored)):
        warnings.append(_IN_NATIVE_ORDER)
    if config.get("model_type") and not known:
        kind = printable(config["model_type"], 60)
        warnings.append(f"model type {kind!r} is unknown: roles come from names alone, check them")
    files = tuple(opened.files.values())
    return Model(place, files, layers, config, beside, tuple(warnings), method, family, known)


def _exported(
    folder: Path, stored: Mapping[str, Stored], warnings: list[str], divide: Divide
) -> tuple[str, tuple[Layer, ...]]:
    """What an export of ours says of its layers; nothing, with a warning, where it is not true."""
    try:
        return exported_layers(folder, stored, divide)
    except CheckpointError as error:
        warnings.append(f"it is shown as it is stored, not as its manifest says: {error}")
        return "", ()


def _declared(folder: Path, names: Collection[str], config: dict[str, Any], warnings: list[str]) -> tuple[Section, ...]:
    """What the config and files beside it say of a quantization; tensors decide, so a broken file is left out.

    names: those of what is in the folder.
    """
    beside = {}
    for path in (folder / name for name in FILES if name in names):
        try:
            check_link(path, folder)
            beside[path.name] = read_object(path, LARGEST_CONFIG, constants=True)
        except CheckpointError as error:
            warnings.append(f"{path.name}: {error.what}, left out")
    return sections(config, beside)
