"""Checkpoints at s3://BUCKET/FOLDER, through s3fs.

Credentials, endpoint and region are those of botocore (AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws, the machine's role).
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from copy import copy
from typing import Any, Self

from studio.core.errors import CheckpointError
from studio.core.names import is_plain_path
from studio.core.stores.asking import Asking
from studio.core.stores.pace import Pace, patience
from studio.core.stores.store import BUSY, PASSING, Object, TryAgainError, changed, refused, unusable

PIECE = 1 << 20
MOST_FILES, MOST_PAGES = 100_000, 1_000
TIMEOUTS = {"connect_timeout": 10, "read_timeout": 30}
"""Seconds for a connection, and for each piece of an answer."""
LASTS = {"complete_multipart_upload": 600.0}
"""Seconds in which a store answers that has more to do than to send or to take bytes."""
DIGEST = "nvfp4-studio-sha256"
"""The metadata of an object that this program put: the SHA-256 of its bytes, as hexadecimal text."""
_LOGIN = "botocore finds no credentials that may read it: see `aws configure`, AWS_PROFILE"


class S3Store:
    """A folder of a bucket; every read names the tag that it expects, so the store itself says when it changed."""

    usual = ()

    def __init__(self, url: str) -> None:
        from s3fs import S3FileSystem

        self.url = url
        self._bucket, _, folder = url.removeprefix("s3://").partition("/")
        self._prefix = f"{folder}/" if folder else ""
        settings = {**TIMEOUTS, "retries": {"max_attempts": 0}}
        self._files = S3FileSystem(config_kwargs=settings, skip_instance_cache=True, use_listings_cache=False)
        self._files.retries = 1
        self._asking = Asking(self._files.loop)

    def listed(self) -> dict[str, Object]:
        """See `Store.listed`."""
        found: dict[str, Object] = {}
        more: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            page = self._call("list_objects_v2", self.url, Prefix=self._prefix, **more)
            for entry in page.get("Contents", []):
                name = str(_field(entry, "Key", self.url)).removeprefix(self._prefix)
                if is_plain_path(name):
                    found[name] = Object(_field(entry, "Size", self.url), _field(entry, "ETag", self.url))
            if len(found) > MOST_FILES:
                raise unusable(self.url, f"holds more than {MOST_FILES:,} files")
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": _field(page, "NextContinuationToken", self.url)}
        raise unusable(self.url, f"has no end of its listing in {MOST_PAGES:,} pages")

    def find(self, name: str) -> Object | None:
        """See `Store.find`."""
        try:
            told = self._raw("head_object", Key=self._prefix + name)
        except Exception as error:
            if status_of(error) == 404:
                return None
            raise judged(error, self._shown(name)) from None
        nbytes, tag = (_field(told, field, self._shown(name)) for field in ("ContentLength", "ETag"))
        return Object(nbytes, tag, told.get("Metadata", {}).get(DIGEST, ""))

    def read(self, name: str, found: Object, start: int, stop: int) -> Iterator[bytes]:
        """See `Store.read`."""
        asked = {"Key": self._prefix + name, "Range": f"bytes={start}-{stop - 1}", "IfMatch": found.tag}
        answer = self._call("get_object", self._shown(name), **asked)
        with closing(answer["Body"]) as body:
            if answer.get("ContentRange") != f"bytes {start}-{stop - 1}/{found.nbytes}":
                raise unusable(self._shown(name), "the store does not send the range of bytes that was asked for")
            if answer.get("ETag") != found.tag:  # a store may pass over `IfMatch`
                raise changed(self._shown(name))
            pace = Pace()
            while piece := _tried(lambda: self._asking.ask(body.read(PIECE), patience(0)), self._shown(name)):
                pace.take(len(piece))
                yield piece

    def hang_up(self) -> None:
        """See `Store.hang_up`."""
        self._asking.hang_up()

    def once_more(self, seconds: float) -> Self:
        """The same folder, to be asked after `hang_up`, so many seconds for each request."""
        again = copy(self)
        again._asking = Asking(self._files.loop, seconds)
        return again

    def close(self) -> None:
        """See `Store.close`."""

    def _shown(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _call(self, method: str, shown: str, **asked: Any) -> Any:
        return _tried(lambda: self._raw(method, **asked), shown)

    def _raw(self, method: str, **asked: Any) -> Any:
        """The answer of the store, or what botocore says of it."""
        from botocore.exceptions import ClientError

        try:
            request = self._files._call_s3(method, Bucket=self._bucket, **asked)
            return self._asking.ask(request, LASTS.get(method, patience(len(asked.get("Body", b"")))))
        except Exception as error:
            raise error.__cause__ if isinstance(error.__cause__, ClientError) else error from None


def _tried(request: Any, shown: str) -> Any:
    try:
        return request()
    except Exception as error:  # aiohttp, botocore and s3fs each have their own; `judged` tells them apart
        raise judged(error, shown) from None


def _field(told: Mapping[str, Any], name: str, shown: str) -> Any:
    """What a store must tell. Raises CheckpointError where it does not."""
    if name not in told:
        raise unusable(shown, f"the store does not tell its {name}")
    return told[name]


def status_of(error: Exception) -> int:
    """The HTTP status of what botocore raised, 0 where there was no answer."""
    response = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _may_pass(error: Exception) -> bool:
    response = getattr(error, "response", None) or {}
    return status_of(error) in BUSY or response.get("Error", {}).get("Code") in PASSING


def judged(error: Exception, shown: str) -> CheckpointError | TryAgainError:
    """What a failure means; what botocore says is not shown, as it can hold signed addresses."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    if isinstance(error, CheckpointError | TryAgainError):
        return error
    status = status_of(error)
    if _may_pass(error):
        return TryAgainError(f"HTTP {status}")
    if status in (412, 416):
        return changed(shown)
    if status in (401, 403):
        return refused(shown, status, _LOGIN)
    if status == 404:
        return CheckpointError("there is no such bucket or file", file=shown, hint="check the spelling")
    if status:
        return unusable(shown, f"unexpected answer: HTTP {status}")
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return CheckpointError("there are no credentials for this store", file=shown, hint=_LOGIN)
    if type(error) is ValueError:  # as the parsers of botocore raise it
        return unusable(shown, "the store answers what means nothing")
    if isinstance(error, TypeError | ValueError | AttributeError | KeyError):
        raise error  # a bug, not a store
    return TryAgainError(f"no connection ({type(error).__name__})")
