"""Checkpoints at hf://: repositories of a Hugging Face hub, pinned to the commit that is there when one is opened.

hf://ORG/NAME, hf://ORG/NAME@REVISION, and hf://ORG/NAME/FOLDER below. Credentials, endpoint and being offline are those
of `huggingface_hub` (`hf auth login`, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE).
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from studio.core.errors import CheckpointError
from studio.core.names import is_plain_path, printable
from studio.core.stores.http import HttpStore
from studio.core.stores.store import BUSY, Object, TryAgainError, changed, refused, unusable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LOGIN = "log in by `hf auth login`; some models want their terms accepted on their page first"


class AbsentError(CheckpointError):
    """A hub has no such repository, revision or folder, or does not tell that it has."""


class HubStore(HttpStore):
    """One commit of a repository: what is listed can not change any more."""

    usual = ()
    _login = _LOGIN

    def __init__(self, url: str) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import build_hf_headers

        self._repository, revision, self._folder = parts(url)
        self._api = HfApi(library_name="nvfp4-studio")
        self._commit = asked(url, lambda: self._api.model_info(self._repository, revision=revision or None).sha)
        address = f"{self._api.endpoint}/{self._repository}/resolve/{self._commit}"
        below = f"/{quote(self._folder)}" if self._folder else ""
        super().__init__(url, base=address + below, headers=build_hf_headers(library_name="nvfp4-studio"))
        self._listed: dict[str, Object] = {}

    def listed(self) -> dict[str, Object]:
        """See `Store.listed`."""
        self._listed = self._listed or asked(self.url, lambda: _tree(self._api, *self._place))
        return self._listed

    @property
    def _place(self) -> tuple[str, str, str]:
        return self._repository, str(self._commit), self._folder

    def find(self, name: str) -> Object | None:
        """See `Store.find`."""
        return self.listed().get(name)

    def _differs(self, tag: str, now: str) -> bool:
        return False  # a commit does not change, and what carries its files has tags of its own


def parts(url: str) -> tuple[str, str, str]:
    """(repository, revision, folder in it) of hf://ORG/NAME[@REVISION][/FOLDER]."""
    organization, _, rest = url.removeprefix("hf://").partition("/")
    name, _, folder = rest.partition("/")
    name, _, revision = name.partition("@")
    if not is_plain_path("/".join([organization, name, *([folder] if folder else [])])):
        raise CheckpointError("no repository of a hub", file=url, hint="write hf://ORG/NAME or hf://ORG/NAME@REVISION")
    return f"{organization}/{name}", revision, folder


def _tree(api: "HfApi", repository: str, commit: str, folder: str) -> dict[str, Object]:
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(repository, folder or None, recursive=True, revision=commit)
    files = (entry for entry in entries if isinstance(entry, RepoFile))
    prefix = f"{folder}/" if folder else ""
    return {
        file.path.removeprefix(prefix): Object(file.size, file.lfs.sha256 if file.lfs else file.blob_id)
        for file in files
        if is_plain_path(file.path) and file.path.startswith(prefix)
    }


def asked(url: str, question: Any) -> Any:
    """What the hub answers; raises as stores do."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return question()
    except HFValidationError:
        raise CheckpointError("no name of a repository", file=url, hint="write hf://ORG/NAME") from None
    except OfflineModeIsEnabled:
        raise CheckpointError("HF_HUB_OFFLINE is set", file=url, hint="unset it, or give a folder") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in BUSY:
            raise TryAgainError(f"HTTP {status}") from None
        if status == 404:
            hint = "check the spelling and the revision"
            raise AbsentError("there is no such repository, revision or folder", file=url, hint=hint) from None
        if status == 412:
            raise changed(url) from None
        if status in (401, 403):
            raise refused(url, status, f"{_LOGIN}; the name may also be wrong") from None
        raise unusable(url, f"unexpected answer: HTTP {status}") from None
    except Exception as error:
        if not (isinstance(error, OSError) or _is_of_transport(error)):
            raise
        raise TryAgainError(f"no connection ({printable(type(error).__name__)})") from None


def _is_of_transport(error: Exception) -> bool:
    """True for what httpx raises where no answer came; the hub's package has it under more than one name."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
