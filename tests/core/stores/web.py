"""A web server on this machine that gives ranges of files, and the faults of one, for tests."""

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Fault = Callable[["Handler", bytes, int, int], bool]
"""What a server does instead of its answer: (handler, whole file, start, stop) -> True when it answered itself."""


@dataclass
class Web:
    """A running server: its URL, the folder that it serves, the requests so far, and the fault that it has."""

    url: str
    folder: Path
    fault: Fault | None = None
    tagged: bool = True
    interface: "Callable[[Handler], bool] | None" = None
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    sent: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def do_GET(self) -> None:
        name = unquote(self.path).lstrip("/")
        self.web.asked.append(dict(self.headers.items()))
        if self.web.interface and self.web.interface(self):
            return
        path = self.web.folder / name
        if not path.is_file():
            self.answer(404, b"")
            return
        data = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop = (int(match[1]), min(int(match[2]) + 1, len(data))) if match else (0, len(data))
        self.web.requests.append((name, start, stop))
        if self.web.fault and self.web.fault(self, data, start, stop):
            return
        self.part(data, start, stop)

    def part(self, data: bytes, start: int, stop: int, **headers: str) -> None:
        """A good answer."""
        if start >= len(data):
            self.answer(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
            return
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        if self.web.tagged:
            told["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        self.answer(206, data[start:stop], **{**told, **headers})

    def answer(self, status: int, body: bytes, *, length: int | None = None, **headers: str) -> None:
        """Any answer."""
        self.web.sent += len(body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if length is not None:
            self.close_connection = True

    def drop(self) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128  # with the usual five, clients that come at once wait a second

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open: set[socket.socket] = set()

    def process_request(self, request: Any, address: Any) -> None:
        self.open.add(request)
        super().process_request(request, address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that clients keep."""
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """A client that went away is no fault of the test."""


@contextmanager
def serving(
    folder: Path,
    interface: Callable[[Handler], bool] | None = None,
    kind: type[Handler] = Handler,
    at: tuple[str, int] = ("127.0.0.1", 0),
) -> Iterator[Web]:
    """A server, on a free port unless told otherwise; `interface` answers what is no file, `kind` all requests."""
    handler = type("Handler", (kind,), {})
    with listening(handler, at) as url:
        handler.web = Web(url, folder, interface=interface)  # type: ignore[attr-defined]
        yield handler.web  # type: ignore[attr-defined]


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], at: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[str]:
    """The URL of a server, on a free port unless told otherwise, which ends with all its connections."""
    server = _Server(at, handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


def every(number: int, fault: Fault) -> Fault:
    """The fault at every `number`-th request, the first included."""
    count = iter(range(1 << 30))
    lock = threading.Lock()

    def some(handler: Handler, data: bytes, start: int, stop: int) -> bool:
        with lock:
            mine = next(count) % number == 0
        return mine and fault(handler, data, start, stop)

    return some


def dropped(handler: Handler, _data: bytes, _start: int, _stop: int) -> bool:
    """No answer, the connection ends."""
    handler.drop()
    return True


def cut(handler: Handler, data: bytes, start: int, stop: int) -> bool:
    """Half of the bytes that the headers say."""
    tag = f'"{hashlib.sha256(data).hexdigest()}"'
    half = data[start : (start + stop) // 2]
    told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", "ETag": tag}
    handler.answer(206, half, length=stop - start, **told)
    return True


def status(number: int, **headers: str) -> Fault:
    """This status."""

    def fault(handler: Handler, _data: bytes, _start: int, _stop: int) -> bool:
        handler.answer(number, b"busy", **headers)
        return True

    return fault
