"""A repository of a hub, to write to: what is there, sending files, and the commit in which they appear.

Token and endpoint are those of `huggingface_hub`, which also makes requests again that fail; files are sent by its
protocol for large ones, which takes a file that the hub has already without sending it again.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import kernels
from studio.core.errors import CheckpointError, ExportError, StudioError
from studio.core.names import printable
from studio.core.publishing.folder import Upload, check_digest
from studio.core.stores.hub import AbsentError, asked, parts
from studio.core.stores.store import BarredError, TryAgainError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

LOGIN = "log in by `hf auth login`, with a token that may write there"


class StoppedError(StudioError):
    """Nobody waits for this any more."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of a repository: its size, the SHA-256 of a large file, "" for others, and the name git gives it."""

    nbytes: int
    sha256: str
    blob: str

    def holds(self, upload: Upload) -> bool:
        """True when it has the bytes of `upload`."""
        if self.nbytes != upload.nbytes:
            return False
        return self.sha256 == upload.sha256 if self.sha256 else self.blob == upload.blob


@dataclass(frozen=True, slots=True)
class There:
    """A repository as it is: its last commit, whether others can not see it, and its files."""

    commit: str
    private: bool
    files: Mapping[str, Stored]


Told = Callable[[int], None]
"""Told how many bytes of a file were worked through; it may raise to end that."""


class Repository:
    """One attempt each; every call raises TryAgainError, or what the store of a hub raises."""

    def __init__(self, url: str) -> None:
        try:
            from huggingface_hub import HfApi
        except ModuleNotFoundError as error:
            what = f"publishing needs the package {error.name}, which is not installed"
            raise CheckpointError(what, hint="pip install 'nvfp4-studio[stores]'") from None
        _hush()
        self.url = url
        self.name = _name(url)
        self._api = HfApi(library_name="nvfp4-studio", library_version=kernels.__version__)

    @property
    def page(self) -> str:
        """Its address for people."""
        return f"{self._api.endpoint}/{self.name}"

    def look(self) -> There | None:
        """What is there now, None when there is no such repository."""
        try:
            info = asked(self.url, lambda: self._api.model_info(self.name))
        except AbsentError:
            return None
        return There(str(info.sha), bool(info.private), self.files_at(str(info.sha)))

    def files_at(self, commit: str) -> dict[str, Stored]:
        """The files of a commit."""
        from huggingface_hub.hf_api import RepoFile

        entries = asked(self.url, lambda: list(self._api.list_repo_tree(self.name, recursive=True, revision=commit)))
        return {
            entry.path: Stored(entry.size, entry.lfs.sha256 if entry.lfs else "", entry.blob_id)
            for entry in entries
            if isinstance(entry, RepoFile)
        }

    def create(self, *, private: bool) -> None:
        """Make it."""
        self._write(lambda: self._api.create_repo(self.name, private=private, exist_ok=True))

    @contextmanager
    def reading(self, upload: Upload, told: Told) -> Iterator["CommitOperationAdd"]:
        """A file opened, hashed and found to be what was exported; `told` is told of both times it is read."""
        from huggingface_hub import CommitOperationAdd

        with _Told(upload, told) as file:
            adding = CommitOperationAdd(upload.name, file)
            check_digest(upload, adding.upload_info.sha256.hex())
            file.begin_again()
            yield adding

    def send(self, adding: "CommitOperationAdd") -> None:
        """Send the bytes of a large file, unless the hub has them; others go with the commit."""
        self._write(lambda: self._api.preupload_lfs_files(self.name, [adding], num_threads=1, free_memory=False))

    def commit(self, adding: Sequence["CommitOperationAdd"], removing: Sequence[str], parent: str) -> str:
        """Let files appear, or go, in a commit that follows `parent`; its name. CheckpointError when others came in."""
        from huggingface_hub import CommitOperationDelete

        what: list[Any] = [*adding, *(CommitOperationDelete(name) for name in removing)]
        message = f"Publish an export of NVFP4 Studio {kernels.__version__}"
        how: dict[str, Any] = {"commit_message": message, "parent_commit": parent, "num_threads": 1}
        return str(self._write(lambda: self._api.create_commit(self.name, what, **how)).oid)

    def _write(self, question: Callable[[], Any]) -> Any:
        try:
            return asked(self.url, lambda: _unwrapped(question))
        except BarredError as error:
            what = error.what.replace("to give it", "to take it")
            raise ExportError(what, file=self.url, hint=LOGIN) from None


def _hush() -> None:
    """Let the hub's package show nothing by itself: what it says of a failure can hold an address that is a secret.

    For good, as a request that nobody waits for any more may still be made again.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, logging

    logging.set_verbosity(logging.CRITICAL)
    if not are_progress_bars_disabled():
        disable_progress_bars()


def _unwrapped(question: Callable[[], Any]) -> Any:
    """What the hub's package wraps in an error of its own is raised as what it was."""
    try:
        return question()
    except RuntimeError as error:
        raise error.__cause__ or error from None
    except ValueError as error:
        if "LFS batch API" in str(error):
            raise TryAgainError("the hub does not take a file now") from None
        if "README.md" in str(error):
            raise ExportError("the hub refuses the head of the model card", hint=printable(str(error), 300)) from None
        raise


def _name(url: str) -> str:
    name, revision, folder = parts(url)
    if revision or folder or not url.startswith("hf://"):
        raise CheckpointError("no name of a repository", file=url, hint="write hf://USER/NAME")
    return name


class _Told(io.BufferedReader):
    """A file, or bytes, that tells how far it was read, all times together."""

    def __init__(self, upload: Upload, told: Told) -> None:
        super().__init__(io.BytesIO(upload.content) if upload.path is None else io.FileIO(upload.path))
        self._told, self._before, self._nbytes = told, 0, upload.nbytes

    def begin_again(self) -> None:
        """The first reading is over."""
        self._before = self._nbytes

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.BufferedReader.read`."""
        data = super().read(size)
        self._told(self._before + self.tell())
        return data
