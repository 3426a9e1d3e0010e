"""URLs of checkpoints: which there are, and what is opened for one."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from studio.core.errors import CheckpointError, ExportError
from studio.core.names import is_plain_path, printable
from studio.core.running.ending import Ending
from studio.core.stores.http import HttpStore
from studio.core.stores.hub import HubStore
from studio.core.stores.patience import Patience
from studio.core.stores.remote_folder import RemoteFolder
from studio.core.stores.s3 import S3Store
from studio.core.stores.s3_target import S3Target
from studio.core.stores.store import Store
from studio.core.stores.store_path import StorePath

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
STORES: dict[str, Callable[[str], Store]] = {"http": HttpStore, "https": HttpStore, "hf": HubStore, "s3": S3Store}
"""Scheme of a URL -> what opens it."""
TARGETS: dict[str, Callable[[str], S3Target]] = {"s3": S3Target}
"""Scheme of a URL -> what writes there."""
_FILES = (".safetensors", ".gguf")
_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/?#]+/[^/?#]+)"
    r"(?:/(?:tree|blob)/([^/?#]+)((?:/[^/?#]+)*))?/?(?:[?#].*)?"
)
"""The page of a repository, of a revision of it, and of a folder or file in that, as a browser shows its address."""


def is_url(text: str) -> bool:
    """True for what is no path on this machine but a URL, of whatever scheme."""
    return _URL.match(text) is not None


def store_path(url: str, patience: Patience | None = None, over: Ending | None = None) -> StorePath:
    """The checkpoint behind a URL, a folder or a file. Raises CheckpointError; close its `folder` afterwards.

    over: from when on nobody wants it any more.
    """
    scheme, folder, name = _checked(url)
    try:
        store = replace(patience or Patience(), over=over).persist(folder, lambda: STORES[scheme](folder))
    except ModuleNotFoundError as error:
        raise _not_installed(scheme, error, folder) from None
    return StorePath(RemoteFolder(store, patience, over=over), name)


def place_of(place: str | Path) -> Path:
    """A path on this machine, or what is behind a URL. Raises CheckpointError; see `store_path`."""
    return store_path(place) if isinstance(place, str) and is_url(place) else Path(place)


def local_target(place: str | Path) -> Path:
    """Where one file is to appear on this machine. Raises ExportError for a URL."""
    if isinstance(place, str) and is_url(place):
        raise ExportError("one file is written on this machine only", file=place, hint="give a path, and copy the file")
    return Path(place)


def target_path(place: str | Path) -> Path:
    """Where an export is to appear: a path on this machine, or a folder behind a URL. Raises ExportError."""
    if isinstance(place, Path) or not is_url(place):
        return place if isinstance(place, Path) else Path(place)
    try:
        scheme, folder, name = _checked(place)
        if scheme not in TARGETS:
            what = f"nothing is written at {scheme}://"
            raise ExportError(what, file=folder, hint=f"give a folder on this machine, or at {', '.join(TARGETS)}://")
        return StorePath(RemoteFolder(TARGETS[scheme](folder)), name)
    except ModuleNotFoundError as error:
        raise _not_installed(scheme, error, folder) from None


def _not_installed(scheme: str, error: ModuleNotFoundError, folder: str) -> CheckpointError:
    what = f"{scheme}:// needs the package {error.name}, which is not installed"
    return CheckpointError(what, file=folder, hint="pip install 'nvfp4-studio[stores]'")


def _checked(url: str) -> tuple[str, str, str]:
    """(scheme, URL of the folder, name of the file in it or "") of a URL in which there is nothing secret."""
    try:
        parts = urlsplit(_without_page(url))
    except ValueError:
        raise CheckpointError("no URL", file="a URL", hint="check the spelling") from None
    scheme, path = parts.scheme.lower(), parts.path.strip("/")
    if parts.username is not None or parts.password is not None:
        what = "a user or a password in a URL is refused, as it would be shown and kept"
        raise CheckpointError(what, file=f"{scheme}://…", hint="put it where the library of the store looks for it")
    if parts.query or parts.fragment or "%" in path:
        what = "a URL is taken without '?', '#' and '%'"
        raise CheckpointError(what, file=f"{scheme}://{parts.netloc}", hint="give the plain address of the folder")
    if scheme not in STORES:
        what = f"no store of the kind {printable(scheme, 20)}:// is known"
        raise CheckpointError(what, file=f"{scheme}://{parts.netloc}", hint=f"known are {', '.join(STORES)}")
    if not parts.netloc or (path and not is_plain_path(path)):
        raise CheckpointError("no address of a folder", file=f"{scheme}://{parts.netloc}", hint="check the spelling")
    folder, _, name = path.rpartition("/") if path.endswith(_FILES) else (path, "", "")
    return scheme, f"{scheme}://{parts.netloc}" + (f"/{folder}" if folder else ""), name


def _without_page(url: str) -> str:
    """hf:// for the page of a repository on the Hugging Face hub, which holds no files itself; any other as it is."""
    if (page := _PAGE.fullmatch(url)) is None:
        return url
    repository, revision, folder = page.groups(default="")
    return f"hf://{repository}" + (f"@{revision}" if revision not in ("", "main") else "") + folder
