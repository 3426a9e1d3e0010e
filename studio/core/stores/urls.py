"""URLs of checkpoints: which there are, and what is opened for one."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from studio.core.errors import CheckpointError
from studio.core.names import is_plain_path, printable
from studio.core.stores.http import HttpStore
from studio.core.stores.hub import HubStore
from studio.core.stores.patience import Patience
from studio.core.stores.remote_folder import RemoteFolder
from studio.core.stores.s3 import S3Store
from studio.core.stores.store import Store
from studio.core.stores.store_path import StorePath

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
STORES: dict[str, Callable[[str], Store]] = {"http": HttpStore, "https": HttpStore, "hf": HubStore, "s3": S3Store}
"""Scheme of a URL -> what opens it."""
_FILES = (".safetensors", ".gguf")


def is_url(text: str) -> bool:
    """True for what is no path on this machine but a URL, of whatever scheme."""
    return _URL.match(text) is not None


def store_path(url: str, patience: Patience | None = None) -> StorePath:
    """The checkpoint behind a URL, a folder or a file. Raises CheckpointError; close its `folder` afterwards."""
    scheme, folder, name = _checked(url)
    try:
        store = (patience or Patience()).persist(folder, lambda: STORES[scheme](folder))
    except ModuleNotFoundError as error:
        what = f"{scheme}:// needs the package {error.name}, which is not installed"
        raise CheckpointError(what, file=folder, hint="pip install 'nvfp4-studio[stores]'") from None
    return StorePath(RemoteFolder(store, patience), name)


def _checked(url: str) -> tuple[str, str, str]:
    """(scheme, URL of the folder, name of the file in it or "") of a URL in which there is nothing secret."""
    try:
        parts = urlsplit(url)
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
