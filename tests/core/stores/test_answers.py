"""Answers of web servers that are odd, broken or hostile: the right bytes, or words, within the limit of attempts."""

import hashlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import BytesIO
from itertools import count

import numpy as np
import pytest

from studio import core
from studio.core.errors import CheckpointError
from studio.core.stores import http, pace
from studio.core.stores.patience import Patience
from studio.core.stores.urls import store_path
from tests.core.checkpoints import BF16, write_safetensors
from tests.core.stores.web import Fault, Handler, Web, serving, status

pytest.importorskip("requests")

PAUSES: list[float] = []
AT_ONCE = Patience(sleep=PAUSES.append)
WEIGHT = np.arange(1 << 17, dtype=np.float32).reshape(64, 2048).astype(BF16)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("served")
    for name in ("model", "twin"):
        write_safetensors(folder / f"{name}.safetensors", {"a.weight": WEIGHT})
    with serving(folder) as web:
        yield web


@pytest.fixture
def web(served: Web) -> Iterator[Web]:
    PAUSES.clear()
    yield served
    served.fault = None


def read(web: Web) -> bytes:
    """Opens the checkpoint, one file; gives all of it."""
    with core.open_model(store_path(f"{web.url}/model.safetensors", AT_ONCE)) as model:
        (file,) = model.files
        return bytes(file.read(0, file.size))


def head(data: bytes, start: int, stop: int, *more: str) -> bytes:
    """The head of a good answer to a range, its length left out."""
    lines = ["HTTP/1.1 206 OK", f"Content-Range: bytes {start}-{stop - 1}/{len(data)}", f"ETag: {tag(data)}", *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def tag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()}"'


Sent = Callable[[bytes, int, int], bytes]


def bare(made: Sent, *, kept: bool = False) -> Fault:
    """These bytes, whatever they are; the connection ends, unless it is `kept`."""

    def fault(handler: Handler, data: bytes, start: int, stop: int) -> bool:
        handler.close_connection = not kept
        handler.wfile.write(made(data, start, stop))
        return True

    return fault


def told(**headers: str) -> Fault:
    """A good answer with other headers."""

    def fault(handler: Handler, data: bytes, start: int, stop: int) -> bool:
        handler.part(data, start, stop, **headers)
        return True

    return fault


def chunked(data: bytes, start: int, stop: int) -> bytes:
    pieces = [data[at : min(at + 1000, stop)] for at in range(start, stop, 1000)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head(data, start, stop, "Transfer-Encoding: chunked") + body + b"0\r\n\r\n"


RIGHT: dict[str, Fault] = {
    "no length": bare(lambda d, a, b: head(d, a, b) + d[a:b]),
    "chunks": bare(chunked, kept=True),
    "more after the body": bare(lambda d, a, b: head(d, a, b, f"Content-Length: {b - a}") + d[a:b] + b"xx", kept=True),
    "a length below zero": bare(lambda d, a, b: head(d, a, b, "Content-Length: -5") + d[a:b]),
    "a weak tag": told(ETag='W/"same"'),
    "an empty encoding": told(**{"Content-Encoding": "Identity"}),
}


@pytest.mark.parametrize("fault", RIGHT.values(), ids=RIGHT)
def test_odd_answers_give_the_right_bytes(web: Web, fault: Fault) -> None:
    web.fault = fault
    assert read(web) == (web.folder / "model.safetensors").read_bytes()


def reset(handler: Handler, data: bytes, start: int, stop: int) -> bool:
    """Half of the body, then the connection is reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.wfile.write(head(data, start, stop, f"Content-Length: {stop - start}") + data[start : (start + stop) // 2])
    handler.drop()
    return True


def sent_on(place: str) -> Fault:
    return status(302, Location=place)


def never_the_same() -> Fault:
    """Another tag in each answer."""
    tags = count()

    def fault(handler: Handler, data: bytes, start: int, stop: int) -> bool:
        handler.part(data, start, stop, ETag=f'"{next(tags)}"')
        return True

    return fault


LENGTH = "9" * 5000
AT_ONCE_REFUSED: dict[str, tuple[Fault, str]] = {
    "no size": (told(**{"Content-Range": "bytes 0-0/*"}), "does not say which range"),
    "a size of 5,000 digits": (told(**{"Content-Range": f"bytes 0-0/{LENGTH}"}), "does not say which range"),
    "a length of 5,000 digits": (
        bare(lambda d, *_: f"HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n".encode() + d),
        "whole files only",
    ),
    "several ranges": (
        bare(lambda *_: b"HTTP/1.1 206 OK\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n--x--\r\n"),
        "does not say which range",
    ),
    "a tag that changes": (never_the_same(), "changed while it was in use"),
    "416": (status(416), "HTTP 416"),
    "204": (status(204), "HTTP 204"),
    "304": (status(304), "HTTP 304"),
    "401": (status(401), r"refuses to give it \(HTTP 401\).*netrc"),
    "407": (status(407), r"refuses to give it \(HTTP 407\).*proxy"),
    "404": (status(404), "no such file or folder.*spelling"),
    "a whole, compressed file": (status(200, **{"Content-Encoding": "gzip"}), "compresses what it sends"),
    "a circle": (sent_on("/model.safetensors"), "in a circle"),
    "sent nowhere": (status(302), "HTTP 302"),
    "sent to a file": (sent_on("file:///etc/passwd"), "is no address.*spelling"),
    "sent to half an address": (sent_on("http://[::1/x"), "is no address"),
    "sent to a long label": (sent_on(f"http://{'a' * 70}.example/x"), "is no address"),
    "sent to a strange port": (sent_on("http://host:99999999/x"), "is no address"),
    "sent to what is no text": (sent_on("/\xe9\xff"), "is no address"),
}


@pytest.mark.parametrize(("fault", "words"), AT_ONCE_REFUSED.values(), ids=AT_ONCE_REFUSED)
def test_answers_that_mean_nothing_are_refused_at_once(web: Web, fault: Fault, words: str) -> None:
    web.fault = fault
    with pytest.raises(CheckpointError) as caught:
        read(web)
    assert re.search(words, f"{caught.value}; {caught.value.hint}"), caught.value
    assert not PAUSES


TRIED: dict[str, tuple[Fault, str, float]] = {
    "a reset": (reset, "the connection broke", 31.5),
    "broken chunks": (bare(lambda d, a, b: head(d, a, b, "Transfer-Encoding: chunked") + b"zz\r\n"), "broke", 31.5),
    "more than was asked for": (bare(lambda d, a, b: head(d, a, b) + d[a:b] + b"x"), "more bytes came", 31.5),
    "two lengths": (bare(lambda d, a, b: head(d, a, b, "Content-Length: 3, 5")), "headers that mean nothing", 31.5),
    "no HTTP": (bare(lambda *_: b"hello\r\n\r\n"), "no connection", 31.5),
    "300 headers": (bare(lambda d, a, b: head(d, a, b, *(f"X-{i}: y" for i in range(300)))), "no connection", 31.5),
    "a long header": (bare(lambda d, a, b: head(d, a, b, f"X: {'y' * 70_000}")), "no connection", 31.5),
    "520": (status(520), "HTTP 520", 31.5),
    "a pause below zero": (status(429, **{"Retry-After": "-1"}), "HTTP 429", 31.5),
    "a pause without end": (status(429, **{"Retry-After": LENGTH}), "HTTP 429", 31.5),
    "a pause of 1e9 s": (status(503, **{"Retry-After": "1000000000"}), "HTTP 503", 180.0),
    "until 2099": (status(503, **{"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}), "HTTP 503", 180.0),
    "until 1999": (status(503, **{"Retry-After": "Wed, 21 Oct 1999 07:28:00 -0000"}), "HTTP 503", 31.5),
    "sent to nobody": (sent_on("http://me:hunter2@127.0.0.1:9/x"), "the host refuses it", 31.5),
}


@pytest.mark.parametrize(("fault", "words", "waited"), TRIED.values(), ids=TRIED)
def test_answers_that_may_pass_are_tried_within_the_limit(web: Web, fault: Fault, words: str, waited: float) -> None:
    web.fault = fault
    with pytest.raises(core.CheckpointError, match=rf"{words}.*; tried 7 times in {waited:g} s") as caught:
        read(web)
    assert "hunter2" not in f"{caught.value}"


def test_a_moment_that_a_server_names_is_waited_for(web: Web) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=20)
    web.fault = status(503, **{"Retry-After": format_datetime(soon, usegmt=True)})
    with pytest.raises(core.CheckpointError, match="HTTP 503"):
        read(web)
    assert all(pause <= 30.0 for pause in PAUSES)
    assert 0.5 < PAUSES[0] <= 20.0


@pytest.mark.parametrize(
    ("limits", "fault", "words"),
    [
        ({"SLOW_AFTER": 0.0, "SLOWEST": 1 << 50}, None, "less than 1,125,899,906,842,624 bytes/s"),
        ({"SLOW_AFTER": 0.0, "SLOWEST": 1 << 50}, RIGHT["chunks"], "less than 1,125,899,906,842,624 bytes/s"),
        ({"HEAD": -1.0}, None, "the headers of the answer were not there after -1 s"),
    ],
    ids=["body", "chunks", "headers"],
)
def test_a_trickle_is_broken_off(
    web: Web, monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], fault: Fault | None, words: str
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(pace, name, value)
    web.fault = fault
    with pytest.raises(core.CheckpointError, match=f"{words}; tried 7 times"):
        read(web)


def test_the_body_of_what_only_sends_on_is_left_unread(web: Web) -> None:
    taken = list[int]()

    def endless(handler: Handler, _data: bytes, _start: int, _stop: int) -> bool:
        if "twin" in handler.path:
            return False
        handler.send_response(302)
        handler.send_header("Location", "/twin.safetensors")
        handler.end_headers()
        handler.close_connection = True
        with suppress(OSError):
            taken.extend(handler.wfile.write(bytes(1 << 20)) for _ in range(200))
        return True

    web.fault = endless
    assert read(web) == (web.folder / "twin.safetensors").read_bytes()
    assert len(taken) < 100 * len(web.requests)


@pytest.mark.parametrize(
    ("url", "words", "tried"),
    [
        ("https://127.0.0.1:{port}/model", "no encrypted connection.*http:// there", 0),
        ("http://host.invalid/model", "no host of this name is found.*answers", 1),
        ("http://127.0.0.1:99999999/model", "is no address.*spelling", 0),
        (f"http://{'a' * 70}.example/model", "is no address.*spelling", 0),
        ("http://ho st/model", "is no address.*spelling", 0),
    ],
)
def test_addresses_that_nobody_answers_at_are_told(
    web: Web, monkeypatch: pytest.MonkeyPatch, url: str, words: str, tried: int
) -> None:
    if tried:
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(CheckpointError) as caught:
        core.open_model(store_path(url.format(port=web.url.rpartition(":")[2]), AT_ONCE)).close()
    assert re.search(words, f"{caught.value}; {caught.value.hint}"), caught.value
    assert bool(PAUSES) == bool(tried)


def unknown(*_: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "not known")


def test_a_way_that_leaves_encryption_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    from requests import Response

    between, last = Response(), Response()
    between.url, last.url = "http://elsewhere/config.json", "https://elsewhere/config.json"
    last.raw, last.history = BytesIO(), [between]
    store = http.HttpStore("https://host/model")
    monkeypatch.setattr(store._session, "get", lambda *_, **__: last)
    with pytest.raises(core.CheckpointError, match="without encryption"):
        store.find("config.json")


@pytest.mark.parametrize("name", ["a b", "100%", "modèle 模型", "a+b&c=d", "~x;y"])
def test_names_are_quoted(web: Web, name: str) -> None:
    path = web.folder / f"{name}.safetensors"
    write_safetensors(path, {"a.weight": WEIGHT})
    found = store_path(web.url, AT_ONCE)
    assert (found / path.name).read_bytes() == path.read_bytes()
    found.folder.close()


def test_an_empty_file_is_refused_as_on_this_machine(web: Web) -> None:
    path = web.folder / "empty.safetensors"
    path.touch()
    said = []
    for place in (path, store_path(f"{web.url}/empty.safetensors", AT_ONCE)):
        with pytest.raises(core.CheckpointError) as caught:
            core.open_model(place)
        said.append(caught.value.what)
    assert said[0] == said[1]
