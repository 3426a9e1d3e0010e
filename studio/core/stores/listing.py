"""Listings: what lies behind a URL and how large it is, before anything of it is opened."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError
from studio.core.names import is_plain_path
from studio.core.running.aside import Tell, aside
from studio.core.running.ending import Ending
from studio.core.stores.remote_folder import AHEAD
from studio.core.stores.store_path import StorePath, close
from studio.core.stores.urls import store_path

INDEX = "model.safetensors.index.json"
_LARGEST_INDEX = 256 << 20
_WEIGHTS = (".safetensors", ".gguf")


@dataclass(frozen=True, slots=True)
class Listing:
    """The files behind a URL by name with their sizes in bytes, and what can not be known of them, "" for nothing."""

    url: str
    files: tuple[tuple[str, int], ...]
    caution: str

    @property
    def weights(self) -> int:
        """Bytes of files of weights."""
        return sum(nbytes for name, nbytes in self.files if name.endswith(_WEIGHTS))

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(nbytes for _, nbytes in self.files)


def listing(url: str) -> Iterator[Listing | None]:
    """What is behind a URL, as the last that is yielded; None now and then while no answer comes.

    Of a server that does not list, the index is read, as it names the shards. Raises CheckpointError.
    """

    def work(tell: Tell[Listing], left: Ending) -> None:
        path = store_path(url, over=left)
        try:
            tell(_listed(path))
        finally:
            close(path)

    yield from aside(work, "nvfp4-studio-listing")


def _listed(path: StorePath) -> Listing:
    folder, url = path.folder, str(path)
    if path.key:
        found = folder.find(path.key)
        if found is None:
            raise CheckpointError("there is no such file", file=url, hint="check the spelling")
        return Listing(url, ((path.key, found.nbytes),), "")
    files = {name: found.nbytes for name, found in folder.files.items()}
    if INDEX in files and folder.store.usual:
        files |= _sizes(path, _shards(path / INDEX) - files.keys())
    if not files:
        hint = "check the spelling; a server that does not list its files must have config.json there"
        raise CheckpointError("there are no files of a checkpoint", file=url, hint=hint)
    return Listing(url, tuple(sorted(files.items())), folder.caution)


def _shards(index: Path) -> set[str]:
    """The names of files that an index gives, as far as they are plain."""
    names = read_object(index, _LARGEST_INDEX).get("weight_map")
    found: Iterable[object] = names.values() if isinstance(names, dict) else ()
    return {name for name in set(map(str, found)) if is_plain_path(name)}


def _sizes(path: StorePath, names: set[str]) -> dict[str, int]:
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="nvfp4-studio-listing") as pool:
        found = dict(zip(names, pool.map(path.folder.find, names), strict=True))
    return {name: one.nbytes for name, one in found.items() if one}
