"""A hub on this machine: what `huggingface_hub` asks for to read and write repositories, and the faults of one."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.core.stores.web import Handler, serving

TOKEN = "hf_hunter2"  # noqa: S105 - of nobody
PART = 20_000
"""Bytes of a part: larger files are sent in several."""

Fault = Callable[["HubHandler", str, str], bool]
"""What the hub does instead: (handler, method, path) -> True when it answered itself."""


@dataclass
class Repo:
    """A repository: its files by name at every commit, the newest last."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"*.safetensors lfs\n"}])
    large: set[str] = field(default_factory=set)

    @property
    def head(self) -> str:
        return f"{len(self.commits):040x}"

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1]

    def at(self, revision: str) -> dict[str, bytes]:
        return self.files if revision == "main" else self.commits[int(revision, 16) - 1]


@dataclass
class Hub:
    """A running hub; `wrong` names files of which it then tells another digest."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    received: int = 0
    wrong: set[str] = field(default_factory=set)
    fault: Fault | None = None
    lock: Any = field(default_factory=threading.Lock)

    def count(self, method: str, pattern: str) -> int:
        """How often something was asked."""
        return sum(one == method and re.search(pattern, path) is not None for one, path in self.asked)


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class HubHandler(Handler):
    hub: Hub

    def do_GET(self) -> None:  # noqa: N802
        self._serve("GET", b"")

    def do_POST(self) -> None:  # noqa: N802
        self._serve("POST", None)

    def do_PUT(self) -> None:  # noqa: N802
        self._serve("PUT", None)

    def _serve(self, method: str, body: bytes | None) -> None:
        path = unquote(self.path)
        with self.hub.lock:
            self.hub.asked.append((method, path))
            if path.startswith("/api/"):
                self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.hub.fault and self.hub.fault(self, method, path):
            return
        data = self.body() if body is None else body
        for pattern, answer in ROUTES:
            if match := re.fullmatch(pattern, f"{method} {path}"):
                answer(self, data, *match.groups())
                return
        self.say(404, {"error": "nothing here"})

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def say(self, status: int, what: Any, **headers: str) -> None:
        self.answer(status, json.dumps(what).encode(), **{"Content-Type": "application/json", **headers})

    def repo(self, name: str) -> Repo | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self.say(404, {"error": "Repository not found"}, **{"X-Error-Code": "RepoNotFound"})
            return None
        return repo


def _info(handler: HubHandler, _: bytes, name: str, *_more: str) -> None:
    if repo := handler.repo(name):
        handler.say(200, {"id": name, "sha": repo.head, "private": repo.private})


def _tree(handler: HubHandler, _: bytes, name: str, revision: str) -> None:
    if repo := handler.repo(name):
        handler.say(200, [_entry(handler.hub, repo, path, data) for path, data in repo.at(revision).items()])


def _entry(hub: Hub, repo: Repo, path: str, data: bytes) -> dict[str, Any]:
    oid, sha256 = blob(data), digest(data)
    if path in hub.wrong:
        oid, sha256 = "0" * 40, "0" * 64
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
    if path in repo.large:
        entry |= {"lfs": {"oid": sha256, "size": len(data), "pointerSize": 134}}
    return entry


def _create(handler: HubHandler, body: bytes) -> None:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if name in handler.hub.repos:
        handler.say(409, {"error": "exists", "url": f"{handler.hub.url}/{name}"})
        return
    handler.hub.repos[name] = Repo(asked.get("visibility") == "private" or asked.get("private") is True)
    handler.say(200, {"url": f"{handler.hub.url}/{name}"})


def _preupload(handler: HubHandler, body: bytes, name: str) -> None:
    if repo := handler.repo(name):
        files = [_mode(repo, file["path"]) for file in json.loads(body)["files"]]
        handler.say(200, {"files": files})


def _mode(repo: Repo, path: str) -> dict[str, Any]:
    large = path.endswith((".safetensors", "tokenizer.json"))
    data = repo.files.get(path)
    oid = None if data is None else digest(data) if large else blob(data)
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}


def _batch(handler: HubHandler, body: bytes, name: str) -> None:
    if handler.repo(name):
        handler.say(200, {"objects": [_actions(handler.hub, **one) for one in json.loads(body)["objects"]]})


def _actions(hub: Hub, oid: str, size: int) -> dict[str, Any]:
    if oid in hub.objects:
        return {"oid": oid, "size": size}
    verify = {"href": f"{hub.url}/verify"}
    signed = "?X-Signature=s3cret"
    if size <= PART:
        only = {"href": f"{hub.url}/object/{oid}{signed}"}
        return {"oid": oid, "size": size, "actions": {"upload": only, "verify": verify}}
    count = -(-size // PART)
    parts = {str(n): f"{hub.url}/part/{oid}/{n}{signed}" for n in range(1, count + 1)}
    upload = {"href": f"{hub.url}/complete/{oid}", "header": {"chunk_size": str(PART), **parts}}
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}


def _put(handler: HubHandler, body: bytes, oid: str) -> None:
    handler.hub.received += len(body)
    _keep(handler, oid, body)


def _part(handler: HubHandler, body: bytes, oid: str, number: str) -> None:
    handler.hub.received += len(body)
    handler.hub.parts.setdefault(oid, {})[int(number)] = body
    handler.answer(200, b"", ETag=f'"{number}"')


def _complete(handler: HubHandler, body: bytes, oid: str) -> None:
    parts = handler.hub.parts.pop(oid)
    assert [part["partNumber"] for part in json.loads(body)["parts"]] == sorted(parts)
    _keep(handler, oid, b"".join(parts[number] for number in sorted(parts)))


def _keep(handler: HubHandler, oid: str, data: bytes) -> None:
    if digest(data) != oid:
        handler.say(422, {"error": "another digest"})
        return
    handler.hub.objects[oid] = data
    handler.answer(200, b"")


def _verify(handler: HubHandler, body: bytes) -> None:
    asked = json.loads(body)
    there = handler.hub.objects.get(asked["oid"])
    handler.say(200 if there is not None and len(there) == asked["size"] else 404, {})


def _commit(handler: HubHandler, body: bytes, name: str) -> None:
    repo = handler.repo(name)
    if repo is None:
        return
    if handler.headers.get("Authorization") != f"Bearer {TOKEN}":
        handler.say(403, {"error": "no"})
        return
    lines = [json.loads(line) for line in body.splitlines()]
    assert lines[0]["key"] == "header"
    if lines[0]["value"].get("parentCommit") not in (None, repo.head):
        handler.say(412, {"error": "A commit has happened since"})
        return
    files = dict(repo.files)
    for line in lines[1:]:
        _apply(handler.hub, repo, files, line["key"], line["value"])
    repo.commits.append(files)
    handler.say(200, {"commitUrl": f"{handler.hub.url}/{name}/commit/{repo.head}", "commitOid": repo.head})


def _apply(hub: Hub, repo: Repo, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "deletedFile":
        del files[path]
    elif key == "lfsFile":
        files[path] = hub.objects[value["oid"]]
        repo.large.add(path)
    else:
        assert key == "file"
        files[path] = base64.b64decode(value["content"])
        repo.large.discard(path)


def _resolve(handler: HubHandler, _: bytes, name: str, revision: str, path: str) -> None:
    if repo := handler.repo(name):
        data = repo.at(revision).get(path)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        if data is None or match is None:
            handler.answer(404, b"")
        else:
            handler.part(data, int(match[1]), min(int(match[2]) + 1, len(data)))


_NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (rf"GET /api/models/{_NAME}", _info),
    (rf"GET /api/models/{_NAME}/revision/(\w+)", _info),
    (rf"GET /api/models/{_NAME}/tree/(\w+)(?:\?.*)?", _tree),
    (r"POST /api/repos/create", _create),
    (r"POST /api/validate-yaml", lambda handler, _: handler.say(200, {"warnings": [], "errors": []})),
    (rf"POST /api/models/{_NAME}/preupload/main", _preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _batch),
    (r"PUT /object/(\w+)\?.*", _put),
    (r"PUT /part/(\w+)/(\d+)\?.*", _part),
    (r"POST /complete/(\w+)", _complete),
    (r"POST /verify", _verify),
    (rf"POST /api/models/{_NAME}/commit/main", _commit),
    (rf"GET /{_NAME}/resolve/(\w+)/(.+)", _resolve),
]


@contextmanager
def hub_on(folder: Path) -> Iterator[Hub]:
    """A hub on a free port, without repositories."""
    hub = Hub()
    with serving(folder, kind=type("OfThis", (HubHandler,), {"hub": hub})) as web:
        hub.url = web.url
        yield hub


def failing(status: int, method: str, pattern: str, times: int, **headers: str) -> Fault:
    """This status for the first so many requests of a kind."""
    left, lock = iter(range(times)), threading.Lock()

    def fault(handler: HubHandler, asked: str, path: str) -> bool:
        if asked != method or not re.search(pattern, path):
            return False
        with lock:
            mine = next(left, None) is not None
        if mine:
            handler.body()
            handler.say(status, {"error": "busy"}, **headers)
        return mine

    return fault
