"""A bucket on moto's server, an S3-compatible one in this process, and a proxy in front of it that has faults."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.core.stores.web import listening

BUCKET = "models"

Fault = Callable[["Handler", bytes], bool]
"""What a proxy does instead of its work: (handler, body of the request) -> True when it answered itself."""


def client() -> Any:
    """A client of the store itself, whatever stands in front of it."""
    return _client(os.environ["ENDPOINT_OF_TESTS"])


@cache
def _client(endpoint: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": "key-of-a-test", "aws_secret_access_key": "hunter2", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=endpoint, **keys)


def emptied() -> None:
    """Remove all that is in the bucket."""
    keys = [{"Key": entry["Key"]} for entry in client().list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    if keys:
        client().delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
    for upload in client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        client().abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


def put(folder: Path, prefix: str) -> None:
    for path in folder.iterdir():
        client().put_object(Bucket=BUCKET, Key=f"{prefix}/{path.name}", Body=path.read_bytes())


def held(prefix: str) -> dict[str, bytes]:
    """Name -> bytes of what lies below a folder of the bucket."""
    listed = client().list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", [])
    keys = [entry["Key"] for entry in listed]
    return {key[len(prefix) + 1 :]: client().get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


@dataclass
class Proxy:
    """A running proxy: its URL, the fault that it has, and the requests so far (method, path)."""

    url: str
    upstream: str
    fault: Fault | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)

    def puts(self, ending: str) -> int:
        """How many files of such names were put, in one piece."""
        return sum(method == "PUT" and path.partition("?")[0].endswith(ending) for method, path in self.requests)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.requests.append((self.command, self.path))
        if not (self.proxy.fault and self.proxy.fault(self, body)):
            self.answer(*self.forward(body))

    def do_PUT(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """What the store answers: status, headers, body."""
        connection = HTTPConnection(self.proxy.upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "content-length"}
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: int = 0) -> None:
        """Send an answer, but for its last `cut` bytes."""
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("date", "server", "connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        told = next((value for name, value in headers if name.lower() == "content-length"), str(len(body)))
        self.send_header("Content-Length", told if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - cut])
        self.close_connection = bool(cut)

    def drop(self) -> None:
        """End the connection without an answer."""
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def proxying(endpoint: str) -> Iterator[Proxy]:
    """A proxy on a free port in front of a store."""
    handler = type("Handler", (Handler,), {})
    with listening(handler) as url:
        handler.proxy = Proxy(url, endpoint.removeprefix("http://"))  # type: ignore[attr-defined]
        yield handler.proxy  # type: ignore[attr-defined]


def every(period: int, fault: Fault) -> Fault:
    """The fault in every `period`-th request, the first included."""
    count, lock = iter(range(1 << 30)), threading.Lock()

    def some(handler: Handler, body: bytes) -> bool:
        with lock:
            mine = next(count) % period == 0
        return mine and fault(handler, body)

    return some


def in_turn(faults: list[Fault]) -> Fault:
    """One after the other, and again from the first."""
    turns = cycle(faults)
    return lambda handler, body: next(turns)(handler, body)


def dropped(handler: Handler, _body: bytes) -> bool:
    """Nothing is done."""
    handler.drop()
    return True


def unheard(handler: Handler, body: bytes) -> bool:
    """All is done, but the answer is lost."""
    handler.forward(body)
    handler.drop()
    return True


def cut(handler: Handler, body: bytes) -> bool:
    """The answer ends early."""
    status, headers, data = handler.forward(body)
    handler.answer(status, headers, data, cut=min(len(data), 7))
    handler.close_connection = True
    return True


def status(code: int, error: str = "SlowDown") -> Fault:
    """An error as S3 tells one."""

    def fault(handler: Handler, _body: bytes) -> bool:
        text = f"<?xml version='1.0'?><Error><Code>{error}</Code><Message>m</Message></Error>".encode()
        handler.answer(code, [("Content-Type", "application/xml")], b"" if handler.command == "HEAD" else text)
        return True

    return fault
