"""Checkpoints behind a web server: the same bytes as from a folder, whatever the network does, or words."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.containers.strict_json import read_object
from studio.core.stores.http import HttpStore
from studio.core.stores.patience import Patience
from studio.core.stores.urls import store_path
from tests.core.checkpoints import BF16, checkpoint, llama, snapshot, write_json, write_safetensors
from tests.core.conftest import Studio
from tests.core.stores.web import Fault, Handler, Web, cut, dropped, every, serving, status

pytest.importorskip("requests")

PAUSES: list[float] = []
AT_ONCE = Patience(sleep=PAUSES.append)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "served").mkdir()
    checkpoint(tmp_path / "served" / "model", llama(3), shards=3)
    with serving(tmp_path / "served") as served:
        yield served


def opened(web: Web) -> core.Model:
    return core.open_model(store_path(f"{web.url}/model", AT_ONCE))


def exported(model: core.Model, target: Path) -> dict[str, str]:
    """Quantizes in small shards, closes the model; name -> digest of what was written."""
    plan = core.preset("linear")
    with model, core.start(core.Machine("cpu", threads=2), model) as started:
        layout, reader = core.layout_for("mlx", "")
        choices = core.resolve(plan, model)
        job = core.prepare(model, plan, choices, layout, target, reader=reader, shard_nbytes=60_000)
        for _ in core.export(started, job):
            pass
    return snapshot(target)


def test_an_export_from_a_url_is_that_from_the_folder(studio: Studio, web: Web, tmp_path: Path) -> None:
    assert studio("quantize", f"{web.url}/model", tmp_path / "a").code == 0
    assert studio("quantize", web.folder / "model", tmp_path / "b").code == 0
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert studio("verify", tmp_path / "a", "--source", f"{web.url}/model/").code == 0


def test_inspect_plan_and_measure_take_a_url(studio: Studio, web: Web) -> None:
    for command in ("inspect", "plan", "measure"):
        ran = studio(command, f"{web.url}/model")
        assert ran.code == 0
        assert "model.layers.1" in ran.out
        assert "does not list its files" in ran.err


def test_one_file_behind_a_url_is_a_checkpoint(studio: Studio, web: Web) -> None:
    checkpoint(web.folder / "alone")
    ran = studio("inspect", f"{web.url}/alone/model.safetensors")
    assert ran.code == 0
    assert "LlamaForCausalLM" in ran.out


def test_opening_fetches_headers_and_no_weights(web: Web) -> None:
    checkpoint(web.folder / "large", {"model.layers.0.mlp.down_proj.weight": np.ones((4096, 2048), BF16)})
    with core.open_model(f"{web.url}/large") as model:
        assert model.nbytes == 4096 * 2048 * 2
    assert web.sent < 600_000


def test_bytes_are_fetched_once_although_they_are_read_three_times(web: Web, tmp_path: Path) -> None:
    exported(opened(web), tmp_path / "out")
    weights = sum(path.stat().st_size for path in (web.folder / "model").iterdir())
    assert web.sent < weights + 4096


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "fault",
    [
        dropped,
        cut,
        status(429),
        status(429, **{"Retry-After": "3"}),
        status(500),
        status(503),
        status(408),
    ],
)
def test_faults_of_the_network_cost_time_only(web: Web, tmp_path: Path, fault: Fault) -> None:
    good = exported(opened(web), tmp_path / "good")
    PAUSES.clear()
    web.fault = every(3, fault)
    assert exported(opened(web), tmp_path / "faulty") == good
    assert PAUSES


def test_a_pause_that_the_server_asks_for_is_kept_up_to_a_limit(web: Web) -> None:
    PAUSES.clear()
    web.fault = every(50, status(429, **{"Retry-After": "12"}))
    opened(web).close()
    web.fault = every(50, status(429, **{"Retry-After": "99999"}))
    opened(web).close()
    assert sorted(PAUSES) == [12.0, 30.0]


def test_what_never_succeeds_ends_with_how_often_it_was_tried(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    web.fault = status(503)
    caplog.set_level("INFO", "studio")
    with pytest.raises(core.CheckpointError, match=r"HTTP 503; tried 7 times in 31.5 s") as caught:
        opened(web)
    assert caught.value.hint == "try again when the store answers"
    said = [record.getMessage() for record in caplog.records]
    assert [line.rpartition("in ")[2] for line in said] == ["0.5 s", "1 s", "2 s", "4 s", "8 s", "16 s"]
    assert all("HTTP 503" in line for line in said)


def test_no_server_at_all_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/model"
        with pytest.raises(core.CheckpointError, match="no connection"):
            core.open_model(store_path(url, AT_ONCE))


def test_who_abandons_it_waits_for_no_other_attempt(web: Web) -> None:
    path = store_path(f"{web.url}/model")
    core.abandon(path)
    with pytest.raises(core.CheckpointError, match="it was closed"):
        path.folder.find("config.json")
    path.folder.close()
    assert not web.requests


@pytest.mark.parametrize("how", ["abandoned", "left while it is opened", "stopped"])
def test_a_request_in_flight_is_broken_off(web: Web, how: str) -> None:
    asked, ended, before = threading.Event(), threading.Event(), set(threading.enumerate())

    def silent(handler: Handler, _data: bytes, _start: int, _stop: int) -> bool:
        asked.set()
        ended.wait(20)  # far less than the time for an answer
        handler.drop()
        return True

    web.fault = silent
    try:
        if how == "left while it is opened":
            opening = core.opening(f"{web.url}/model")
            while not asked.is_set():
                assert next(opening) is None
            opening.close()  # type: ignore[attr-defined]
        else:
            path = store_path(f"{web.url}/model")
            thread = threading.Thread(target=pytest.raises, args=(core.CheckpointError, list, path.iterdir()))
            thread.start()
            asked.wait(20)
            core.abandon(path) if how == "abandoned" else core.abandon_all()
            thread.join(15)
            assert not thread.is_alive()
        deadline = time.monotonic() + 15
        while any(one.name.startswith(FETCHING) for one in set(threading.enumerate()) - before):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        ended.set()


FETCHING = ("nvfp4-studio-store", "nvfp4-studio-opening")


def test_an_export_goes_on_when_the_server_is_back(web: Web, tmp_path: Path) -> None:
    good = exported(opened(web), tmp_path / "good")
    model = opened(web)
    last = model.files[-1].path.name

    def gone(handler: Handler, _data: bytes, _start: int, _stop: int) -> bool:
        if not handler.path.endswith(last):
            return False
        handler.drop()
        return True

    web.fault = gone
    with pytest.raises(core.CheckpointError, match="tried 7 times"):
        exported(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "out.partial").glob("*.safetensors.json"))
    web.fault, before = None, len(web.requests)
    assert exported(opened(web), tmp_path / "out") == good
    assert before < len(web.requests)


def replaced(path: Path) -> None:
    """Another file of the same size and header."""
    data = bytearray(path.read_bytes())
    data[-64:] = bytes(64)
    path.write_bytes(data)


def test_a_shard_that_changes_while_it_is_read_is_noticed(web: Web) -> None:
    write_safetensors(web.folder / "one" / "model.safetensors", {"a.weight": np.ones((1024, 1024), BF16)})
    with core.open_model(f"{web.url}/one") as model:
        replaced(web.folder / "one" / "model.safetensors")
        with pytest.raises(core.CheckpointError, match="changed while it was in use"):
            model.files[0].read(1 << 20, 16)


def test_a_shard_that_grew_is_noticed_without_a_tag(web: Web) -> None:
    web.tagged = False
    path = write_safetensors(web.folder / "one" / "model.safetensors", {"a.weight": np.ones((1024, 1024), BF16)})
    with core.open_model(f"{web.url}/one") as model:
        assert any("neither ETag nor date" in warning for warning in model.warnings)
        path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(core.CheckpointError, match="changed while it was in use"):
            model.files[0].read(1 << 20, 16)


def test_a_source_that_changed_after_it_was_read_is_not_published(web: Web, tmp_path: Path) -> None:
    model = opened(web)
    plan, (layout, reader) = core.preset("linear"), core.layout_for("mlx", "")
    with model, core.start(core.Machine("cpu", threads=1), model) as started:
        job = core.prepare(model, plan, core.resolve(plan, model), layout, tmp_path / "out", reader=reader)
        events = core.export(started, job)
        next(event for event in events if isinstance(event, core.ShardWritten))
        replaced(web.folder / "model" / model.files[0].path.name)
        with pytest.raises(core.CheckpointError, match="changed while it was in use"):
            list(events)
    assert not (tmp_path / "out").exists()


def whole(handler: Handler, data: bytes, _start: int, _stop: int) -> bool:
    handler.answer(200, data)
    return True


def page(handler: Handler, _data: bytes, _start: int, _stop: int) -> bool:
    handler.answer(200, b"<html>log in</html>")
    return True


def compressed(handler: Handler, data: bytes, start: int, stop: int) -> bool:
    handler.part(data, start, stop, **{"Content-Encoding": "gzip"})
    return True


def elsewhere(handler: Handler, data: bytes, start: int, stop: int) -> bool:
    """Other bytes than were asked for, from the second byte of a file on."""
    handler.part(data, start + 1, stop + 1) if start else handler.part(data, start, stop)
    return True


def teapot(handler: Handler, _data: bytes, _start: int, _stop: int) -> bool:
    handler.answer(418, b"")
    return True


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (whole, "whole files only, no ranges"),
        (page, "not valid JSON"),
        (compressed, "compresses what it sends"),
        (status(403), r"refuses to give it \(HTTP 403\)"),
        (teapot, "unexpected answer: HTTP 418"),
    ],
)
def test_answers_that_nothing_can_be_read_by_are_refused_at_once(web: Web, fault: Fault, words: str) -> None:
    write_safetensors(web.folder / "model" / "model.safetensors", {"a.weight": np.ones((1024, 1024), BF16)})
    PAUSES.clear()
    web.fault = fault
    with pytest.raises(core.CheckpointError, match=words):
        opened(web)
    assert not PAUSES
    assert web.sent < 8 << 20


def test_other_bytes_than_were_asked_for_are_refused(web: Web) -> None:
    write_safetensors(web.folder / "one" / "model.safetensors", {"a.weight": np.ones((1024, 1024), BF16)})
    with core.open_model(f"{web.url}/one") as model:
        web.fault = elsewhere
        with pytest.raises(core.CheckpointError, match=r"bytes .* were asked for, .* came"):
            model.files[0].read(1 << 20, 16)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "http://elsewhere/x", "a\\b", "..", "a:b"])
def test_a_name_in_an_index_leads_nowhere_else(web: Web, name: str) -> None:
    write_json(web.folder / "model" / "model.safetensors.index.json", {"weight_map": {"a.weight": name}})
    with pytest.raises(core.CheckpointError, match="unsafe path"):
        opened(web)
    assert all(asked.startswith("model/") for asked, _, _ in web.requests)


def test_a_name_in_an_index_is_quoted(web: Web) -> None:
    name = "x?y=1#z %41.safetensors"
    write_json(web.folder / "model" / "model.safetensors.index.json", {"weight_map": {"a.weight": name}})
    write_safetensors(web.folder / "model" / name, {"a.weight": np.ones((16, 16), BF16)})
    with opened(web) as model:
        assert model.files[0].path.name == name
    assert f"model/{name}" in [asked for asked, _, _ in web.requests]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://me:hunter2@host/model", "user or a password"),
        ("https://host/model?X-Signature=hunter2", "without '\\?'"),
        ("https://host/a/../b", "no address of a folder"),
        ("gs://bucket/model", "no store of the kind gs:// is known"),
        ("https:///model", "no address of a folder"),
        ("hf://name", "no repository"),
    ],
)
def test_urls_that_are_refused_show_no_secret(studio: Studio, url: str, words: str) -> None:
    with pytest.raises(core.CheckpointError, match=words) as caught:
        core.open_model(url)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    ran = studio("inspect", url, "--json")
    assert ran.code == 2
    assert "hunter2" not in ran.out + ran.err


def test_credentials_of_netrc_are_sent_and_never_shown(
    web: Web, studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    ran = studio("quantize", f"{web.url}/model", tmp_path / "out", "--json")
    assert ran.code == 0
    assert all(asked["Authorization"].startswith("Basic ") for asked in web.asked)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors")
    assert "hunter2" not in ran.out + ran.err
    assert b"hunter2" not in written
    assert web.url.encode() not in written


def test_a_redirect_is_followed_without_the_credentials(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    other = checkpoint(tmp_path / "other" / "model", llama(3), shards=3)
    with serving(other.parent) as there:
        target = there.url.replace("127.0.0.1", "localhost")

        def sent_on(handler: Handler, _data: bytes, _start: int, _stop: int) -> bool:
            handler.answer(302, b"", Location=f"{target}{handler.path}")
            return True

        web.fault = sent_on
        with opened(web) as model:
            assert len(model.layers) == 30
        store = HttpStore(f"{web.url}/model", headers={"authorization": "Bearer hunter2"})  # as a hub has them
        assert store.find("config.json")
        store.close()
        assert there.asked
        assert not any(name.lower() == "authorization" for asked in there.asked for name in asked)


@pytest.mark.parametrize("command", [("generate", "a prompt"), ("calibrate",)])
def test_what_runs_a_model_wants_it_on_this_machine(
    studio: Studio, web: Web, tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *rest = command
    ran = studio(name, f"{web.url}/model", *rest)
    assert ran.code == 2
    assert "is behind a URL" in ran.err or "is not installed" in ran.err


def test_a_missing_model_is_told(web: Web) -> None:
    with pytest.raises(core.CheckpointError, match="no such file or folder"):
        core.open_model(f"{web.url}/nothing")


def test_a_shard_that_is_not_there_is_named(web: Web) -> None:
    index = read_object(web.folder / "model" / "model.safetensors.index.json")
    name = next(iter(index["weight_map"].values()))
    (web.folder / "model" / name).unlink()
    with pytest.raises(core.CheckpointError, match="shard missing"):
        opened(web)


def test_the_digest_of_a_file_is_that_of_its_bytes(web: Web) -> None:
    with opened(web) as model:
        for file in model.files:
            data = bytes(file.read(0, file.size))
            local = (web.folder / "model" / file.path.name).read_bytes()
            assert hashlib.sha256(data).digest() == hashlib.sha256(local).digest()
