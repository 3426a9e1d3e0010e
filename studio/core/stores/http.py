"""Checkpoints at http:// and https://: ranges of files whose names are known, every answer checked.

Credentials are those of `requests`: ~/.netrc, and proxies by the environment.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from studio.core.errors import CheckpointError
from studio.core.stores.connections import Connections
from studio.core.stores.store import BUSY, Object, TryAgainError, changed, refused, unusable

if TYPE_CHECKING:
    from requests import RequestException, Response

TIMEOUT = (10.0, 30.0)
"""Seconds for a connection, and for each piece of an answer."""

PIECE = 64 << 10
PARALLEL, MOST_REDIRECTS = 8, 10
_SMALL = 1 << 20
_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18})")
_COUNT = re.compile(r"[0-9]{1,18}")

USUAL = (
    "config.json",
    "model.safetensors.index.json",
    "model.safetensors",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "hf_quant_config.json",
    "quantize_config.json",
    "quant_config.json",
    "nvfp4_studio.json",
    "LICENSE",
)
"""Names that are looked for where a server does not list."""


class HttpStore:
    """A folder of a web server; `base` is its address where `url` is not, `headers` go along."""

    usual: tuple[str, ...] = USUAL

    def __init__(self, url: str, *, base: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self._base = base or url
        self._connections = Connections()
        self._session = self._connections.session(PARALLEL)
        self._session.max_redirects = MOST_REDIRECTS
        self._session.headers.update({**(headers or {}), "Accept-Encoding": "identity"})
        self._session.hooks["response"].append(_sent_on)

    def listed(self) -> dict[str, Object]:
        """Nothing: see `usual`."""
        return {}

    def find(self, name: str) -> Object | None:
        """See `Store.find`."""
        with closing(self._get(name, 0, 1)) as answer:
            if answer.status_code in (404, 410):
                return None
            if answer.status_code == 416 and (match := _RANGE.fullmatch(answer.headers.get("Content-Range", ""))):
                return Object(int(match[3]), _tag(answer))
            if answer.status_code == 200 and not _compressed(answer):
                return Object(self._whole(answer, name), _tag(answer))
            self._check(answer, name)
            return Object(self._sent(answer, name)[2], _tag(answer))

    def read(self, name: str, found: Object, start: int, stop: int) -> Iterator[bytes]:
        """See `Store.read`."""
        with closing(self._get(name, start, stop)) as answer:
            if answer.status_code in (404, 410, 412, 416):
                raise changed(self._shown(name))
            if answer.status_code == 200 and (start, stop) == (0, found.nbytes) and stop <= _SMALL:
                if self._whole(answer, name) != found.nbytes:
                    raise changed(self._shown(name))
            else:
                self._check(answer, name)
                first, last, whole = self._sent(answer, name)
                if whole != found.nbytes:
                    raise changed(self._shown(name))
                if (first, last + 1) != (start, stop):
                    raise unusable(self._shown(name), f"bytes {start}-{stop - 1} were asked for, {first}-{last} came")
            if self._differs(found.tag, _tag(answer)):
                raise changed(self._shown(name))
            yield from _pieces(answer)

    def _differs(self, tag: str, now: str) -> bool:
        return tag != now

    def hang_up(self) -> None:
        """See `Store.hang_up`."""
        self._connections.hang_up()

    def close(self) -> None:
        """See `Store.close`."""
        self._session.close()
        self._connections.close()

    def _shown(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _get(self, name: str, start: int, stop: int) -> "Response":
        """The answer, its body not read yet. Names are quoted: nothing in them reaches another address."""
        from requests import RequestException
        from requests.exceptions import InvalidHeader, SSLError, Timeout, TooManyRedirects

        address = f"{self._base}/{quote(name, safe='/')}"
        how: dict[str, Any] = {"headers": {"Range": f"bytes={start}-{stop - 1}"}, "stream": True, "timeout": TIMEOUT}
        try:
            answer = self._session.get(address, **how)
        except Timeout:
            raise TryAgainError("no answer in time") from None
        except SSLError:  # what these errors say can hold an address that is a secret
            raise CheckpointError("no encrypted connection (SSLError)", file=self._shown(name), hint=_TRUST) from None
        except TooManyRedirects:
            raise unusable(self._shown(name), "is sent on in a circle (TooManyRedirects)") from None
        except InvalidHeader:
            raise TryAgainError("the answer has headers that mean nothing") from None
        except ValueError:
            what = "no connection: this, or where the server sends it on to, is no address"
            raise CheckpointError(what, file=self._shown(name), hint="check the spelling of the URL") from None
        except RequestException as error:
            raise TryAgainError(_no_connection(error)) from None
        if self._base.startswith("https://") and not all(one.url.startswith("https://") for one in _way(answer)):
            answer.close()
            raise unusable(self._shown(name), "is sent on to an address without encryption")
        return answer

    def _check(self, answer: "Response", name: str) -> None:
        """Raise what a status other than that of a range means."""
        status = answer.status_code
        if status in BUSY:
            raise TryAgainError(f"HTTP {status}", _wait(answer))
        if status in (401, 403, 407):
            raise refused(self._shown(name), status, _PROXY if status == 407 else self._login)
        if status in (200, 206) and _compressed(answer):
            raise unusable(self._shown(name), "the server compresses what it sends, so that ranges have no meaning")
        if status == 200:
            raise unusable(self._shown(name), "the server gives whole files only, no ranges of bytes")
        if status != 206:
            raise unusable(self._shown(name), f"unexpected answer: HTTP {status}")

    _login = "put the credentials of this server into ~/.netrc"

    def _sent(self, answer: "Response", name: str) -> tuple[int, int, int]:
        """(first byte, last byte, bytes of the whole file) that a range answer names."""
        told = answer.headers.get("Content-Range", "")
        match = _RANGE.fullmatch(told)
        if not match or match[1] is None:
            raise unusable(self._shown(name), "the server does not say which range of bytes it sends")
        return int(match[1]), int(match[2]), int(match[3])

    def _whole(self, answer: "Response", name: str) -> int:
        """The size of a file that is sent whole although a range was asked for: only small ones are taken so."""
        told = answer.headers.get("Content-Length", "")
        if _compressed(answer) or not _COUNT.fullmatch(told) or int(told) > _SMALL:
            self._check(answer, name)
        return int(told)


_TRUST = "is it http:// there? REQUESTS_CA_BUNDLE names a file of certificates to trust instead of the usual ones"
_PROXY = "put the credentials of the proxy into HTTPS_PROXY"


def _no_connection(error: "RequestException") -> str:
    """Why there is none, without the addresses that the error names."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if type(reason).__name__ == "NameResolutionError":
        return "no connection: no host of this name is found"
    if isinstance(getattr(reason, "__cause__", None), ConnectionRefusedError):
        return "no connection: the host refuses it"
    return f"no connection ({type(error).__name__})"


def _sent_on(answer: "Response", **_: Any) -> None:
    """Leave the body of an answer that only sends on unread, unless it is small: `requests` reads all of it."""
    told = answer.headers.get("Content-Length", "")
    if answer.is_redirect and not (_COUNT.fullmatch(told) and int(told) <= PIECE):
        answer.raw.close()
        answer.raw = BytesIO()


def _way(answer: "Response") -> "list[Response]":
    """The answers that led to it, and it."""
    return [*answer.history, answer]


def _compressed(answer: "Response") -> bool:
    return answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity"


def _pieces(answer: "Response") -> Iterator[bytes]:
    """The body as it comes. Raises TryAgainError when it breaks off, or comes too slowly to ever end."""
    from urllib3.exceptions import HTTPError

    try:
        while piece := answer.raw.read1(PIECE):
            yield piece
    except (HTTPError, OSError, ValueError):
        raise TryAgainError("the connection broke") from None


def _tag(answer: "Response") -> str:
    return str(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")


def _wait(answer: "Response") -> float:
    """The pause in seconds that a server asks for, 0 for none: a number, or until a moment."""
    told = answer.headers.get("Retry-After", "").strip()
    if _COUNT.fullmatch(told):
        return float(told)
    with suppress(ValueError, OverflowError):
        moment = parsedate_to_datetime(told)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
    return 0.0
