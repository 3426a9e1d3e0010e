"""Runs spread over workers: the same bytes and results, whoever dies; what differs is refused by name."""

import asyncio
import concurrent.futures
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from studio import core
from studio.core.cluster import crew as crews
from studio.core.cluster import joining, work
from studio.core.cluster.order import Opened, Order
from studio.core.errors import BackendError, ExportError
from studio.core.exporting import steps
from studio.core.exporting.contents import JOURNAL
from studio.core.exporting.staged_folder import SharedFolder, StagedFolder
from studio.core.exporting.staging import Staging
from studio.core.running import spread as spreading
from studio.core.running.spread import Part
from studio.core.running.survey import MeasureLayers
from tests.core.checkpoints import BF16, CONFIG, checkpoint, gaussian, llama, snapshot
from tests.core.conftest import Studio
from tests.core.stores.web import serving

pytest.importorskip("distributed")
PLAN = core.preset("linear")
ONE = core.Machine("cpu", threads=1)
DEEP = {**CONFIG, "num_hidden_layers": 4}
SMALL = ("--shard-size", "40K")


@pytest.fixture(scope="module")
def two() -> Iterator[core.Crew]:
    with core.crew(workers=2) as crew:
        yield crew


@pytest.fixture(scope="module")
def mortal() -> Iterator[core.Crew]:
    """Two workers to kill."""
    with core.crew(workers=2) as crew:
        yield crew


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("source") / "model", llama(4), DEEP, shards=3)


def spread_over(crew: core.Workforce, job: core.Export) -> core.Spread:
    """The workers with an export in small shards opened."""
    order = core.order_for(job.model, job.plan, job.choices, ONE, export=job)
    return crew.spread(order, core.Opened(job.model, job.choices, job))


def exported(source: Path | str, target: Path, crew: core.Workforce | None, plan: core.Plan = PLAN) -> list[core.Event]:
    """The events of an export in small shards, by these workers or by none."""
    with core.open_model(source) as model, core.start(ONE, model) as started:
        choices = core.resolve(plan, model)
        job = core.prepare(model, plan, choices, core.LAYOUTS["mlx"], target, shard_nbytes=40_000)
        assert len(job.shards) >= 3
        spread = None
        if crew:
            spread = spread_over(crew, job)
        return list(core.export(started, job, spread))


def test_bytes_are_those_of_a_run_without_workers(two: core.Crew, source: Path, tmp_path: Path) -> None:
    exported(source, tmp_path / "alone", None)
    events = exported(source, tmp_path / "spread", two)
    assert snapshot(tmp_path / "spread") == snapshot(tmp_path / "alone")
    started = next(event for event in events if isinstance(event, core.Started))
    done = [event.done for event in events if isinstance(event, core.Progress)]
    assert done == sorted(done)
    assert done[-1] == started.total
    assert len([event for event in events if isinstance(event, core.LayerDone)]) == started.layers


def test_workers_do_not_hear_what_a_terminal_tells_all_of_its_processes(two: core.Crew) -> None:
    deaf = two._client.run(signal.pthread_sigmask, signal.SIG_BLOCK, ())
    assert all({signal.SIGINT, signal.SIGHUP} <= heard for heard in deaf.values())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("pays", [math.inf, 0.0])
def test_the_command_line_takes_a_number_of_workers(
    studio: Studio, two: core.Crew, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pays: float
) -> None:
    begun, given = at_once(monkeypatch, two, pays)
    assert studio("quantize", source, tmp_path / "alone", *SMALL).code == 0
    ran = studio("quantize", source, tmp_path / "by-2", *SMALL, "--workers", 2, "--json")
    assert ran.code == 0
    assert '"event": "workers", "count": 2' in ran.out
    assert snapshot(tmp_path / "by-2") == snapshot(tmp_path / "alone")
    assert (begun, bool(given)) == (([], False) if pays else ([2], True))


def at_once(monkeypatch: pytest.MonkeyPatch, crew: core.Crew, pays: float) -> tuple[list[int], list[str]]:
    """Workers that are there as soon as they are begun; returns how many were begun, and the parts given to them."""
    begun, given = list[int](), list[str]()
    begin, submit = joining.Joining.begin, crews.Crew.submit

    @contextmanager
    def found(workers: int) -> Iterator[core.Crew]:
        begun.append(workers)
        yield crew

    def waited(self: joining.Joining) -> None:
        begin(self)
        assert self._starting
        self._starting.join()

    def noted(self: core.Crew, order: Order, part: Part, *how: Any) -> Any:
        given.append(part.name)
        return submit(self, order, part, *how)

    monkeypatch.setattr(joining, "PAYS", pays)
    monkeypatch.setattr(joining, "TRIAL", 0.0)
    monkeypatch.setattr(joining, "crew", found)
    monkeypatch.setattr(joining.Joining, "begin", waited)
    monkeypatch.setattr(crews.Crew, "submit", noted)
    return begun, given


def test_this_process_begins_and_workers_take_the_rest(
    two: core.Crew, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = exported(source, tmp_path / "alone", None)
    _, given = at_once(monkeypatch, two, 0.0)
    with core.workforce(workers=2) as force:
        events = exported(source, tmp_path / "joined", force)
    assert snapshot(tmp_path / "joined") == snapshot(tmp_path / "alone")
    assert 1 < len(given) < len([event for event in events if isinstance(event, core.ShardWritten)])
    done = [event.done for event in events if isinstance(event, core.Progress)]
    assert done == sorted(done)
    assert done[-1] == next(event.total for event in alone if isinstance(event, core.Started))


def test_without_workers_that_start_this_process_goes_on(
    source: Path, tmp_path: Path, two: core.Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch, two, 0.0)

    def fails(**_: int) -> None:
        raise BackendError("no process can be started")

    monkeypatch.setattr(joining, "crew", fails)
    exported(source, tmp_path / "alone", None)
    with core.workforce(workers=2) as force:
        events = exported(source, tmp_path / "out", force)
    said = [event.message for event in events if isinstance(event, core.Warned)]
    assert said == ["no process can be started; this process goes on alone"]
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "alone")


def test_measuring_gives_the_same_results(two: core.Crew, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "SMALLEST_PART", 1)
    with core.open_model(source) as model, core.start(ONE, model) as started:
        choices = core.resolve(PLAN, model)
        order = core.order_for(model, PLAN, choices, ONE)
        *_, alone = core.measure(started, model, choices)
        *_, shared = core.measure(started, model, choices, two.spread(order, core.Opened(model, choices)))
    assert isinstance(alone, core.Finished)
    assert isinstance(shared, core.Finished)
    assert list(shared.outcome.layers) == list(alone.outcome.layers)


def test_layers_that_share_a_tensor_scale_are_never_parted(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "SMALLEST_PART", 1)
    with core.open_model(source) as model:
        parts = spreading.layer_parts(core.resolve(PLAN, model), 1000, MeasureLayers)
    where = {name: number for number, part in enumerate(parts) for name in part.task.names}  # type: ignore[attr-defined]
    for block in range(4):
        for group in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")):
            assert len({where[f"model.layers.{block}.{name}"] for name in group}) == 1
    assert len(parts) > 8


def test_kept_layers_and_lifting_reach_the_workers(two: core.Crew, tmp_path: Path) -> None:
    tensors = {name: array / 64 if array.ndim == 2 else array for name, array in llama(4).items()}
    source = checkpoint(tmp_path / "model", {name: array.astype(BF16) for name, array in tensors.items()}, DEEP)
    plan = PLAN.with_format("nvfp4-2t")
    for crew in (None, two):
        with core.open_model(source) as model, core.start(ONE, model) as started:
            choices = list(core.resolve(plan, model))
            at = next(i for i, choice in enumerate(choices) if choice.layer.name.endswith("1.mlp.down_proj"))
            choices[at] = replace(choices[at], recipe=None, reason="holds 3 NaN or Inf")
            prepared = core.prepare(model, plan, choices, core.LAYOUTS["mlx"], tmp_path / "x", shard_nbytes=40_000)
            *_, lifted = core.lift(started, model, prepared.choices)
            assert isinstance(lifted, core.Lifted)
            target = tmp_path / ("spread" if crew else "alone")
            how = {"shard_nbytes": 40_000, "lifting": lifted.lifting}
            job = core.prepare(model, plan, choices, core.LAYOUTS["mlx"], target, **how)
            assert job.lifting.exponents
            order = core.order_for(model, plan, choices, ONE, export=job)
            opened = core.Opened(job.model, job.choices, job)
            list(core.export(started, job, crew.spread(order, opened) if crew else None))
    assert snapshot(tmp_path / "spread") == snapshot(tmp_path / "alone")


def test_a_refusal_on_a_worker_names_the_tensor(two: core.Crew, tmp_path: Path) -> None:
    tensors = dict(llama(4))
    bad = "model.layers.3.mlp.up_proj.weight"
    tensors[bad] = tensors[bad].copy()
    tensors[bad][3, 3] = np.nan
    source = checkpoint(tmp_path / "model", tensors, DEEP)
    with pytest.raises(core.CheckpointError, match="1 NaN and 0 Inf") as caught:
        exported(source, tmp_path / "out", two)
    assert caught.value.tensor == bad
    assert not (tmp_path / "out").exists()


def test_a_survey_goes_on_after_a_layer_that_can_not_be_read(
    two: core.Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "SMALLEST_PART", 1)
    tensors = dict(llama(4))
    bad = "model.layers.1.mlp.up_proj.weight"
    tensors[bad] = np.full_like(tensors[bad], np.nan)
    with core.open_model(checkpoint(tmp_path / "model", tensors, DEEP)) as model, core.start(ONE, model) as started:
        choices = [choice for choice in core.resolve(PLAN, model) if choice.recipe]
        alone = list(core.survey(started, model, choices))
        shared = list(core.survey(started, model, choices, two.spread(*core.choice_order(model, choices, ONE))))
    failed = [event for event in shared if isinstance(event, core.LayerFailed)]
    assert [event.name for event in failed] == ["model.layers.1.mlp.up_proj"]
    assert failed[0].error.tensor == bad
    results = [{e.result.name: e.result for e in run if isinstance(e, core.LayerDone)} for run in (alone, shared)]
    assert len(results[0]) == len(choices) - 1
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"version": "0.0.9"}, r"is of version 0\.0\.9, this is"),
        ({"program": "0" * 64}, "another state of the program"),
        ({"self_test": "codes of nvfp4-3t differ"}, "computes wrong: codes of nvfp4-3t differ"),
        ({"trouble": "/model: there is no such file"}, "can not begin: /model: there is no such file"),
        ({"identity": "0" * 64}, "sees another source"),
    ],
)
def test_a_worker_that_differs_is_refused_by_name(
    two: core.Crew, source: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, str], words: str
) -> None:
    real = two._client.run

    def run(function: object, order: Order, **how: str) -> dict[str, work.Seen]:
        answers = real(function, order, **how)
        return {**answers, max(answers): replace(answers[max(answers)], **other)}

    monkeypatch.setattr(two._client, "run", run)
    with core.open_model(source) as model:
        choices = core.resolve(PLAN, model)
        order = core.order_for(model, PLAN, choices, ONE)
        with pytest.raises(BackendError, match=rf"worker tls://.* {words}"):
            two.check(order, Opened(model, choices))


def test_a_worker_without_the_program_is_refused_and_a_dead_one_is_not(
    two: core.Crew, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, Exception] = {"tcp://a": OSError("closed")}
    monkeypatch.setattr(two._client, "run", lambda *_, **__: answers)
    with core.open_model(source) as model:
        choices = core.resolve(PLAN, model)
        order, known = core.order_for(model, PLAN, choices, ONE), Opened(model, choices)
        two.check(order, known)
        answers["tcp://b"] = ModuleNotFoundError("No module named 'studio'")
        with pytest.raises(BackendError, match="worker tcp://b does not run this program: ModuleNotFoundError"):
            two.check(order, known)


def test_a_worker_that_does_not_find_the_source_is_refused(two: core.Crew, source: Path) -> None:
    with core.open_model(source) as model:
        choices = core.resolve(PLAN, model)
        order = replace(core.order_for(model, PLAN, choices, ONE), source=str(source / "elsewhere"))
        with pytest.raises(BackendError, match="there is no such file or folder"):
            two.check(order, Opened(model, choices))


def test_no_scheduler_is_told(monkeypatch: pytest.MonkeyPatch, studio: Studio, source: Path) -> None:
    monkeypatch.setattr(crews, "WAIT", 1)
    ran = studio("measure", source, "--cluster", "tcp://127.0.0.1:9")
    assert ran.code == 2
    assert "no scheduler with workers answers at tcp://127.0.0.1:9" in ran.err
    assert "dask scheduler" in ran.err


@pytest.mark.parametrize(
    ("address", "told", "words"),
    [
        ("127.0.0.1", {}, "no address of a scheduler: 127.0.0.1: missing port.*; write tcp://HOST:PORT"),
        ("http://127.0.0.1:9", {}, "no address of a scheduler: http://127.0.0.1:9: unknown address scheme"),
        ("tls://127.0.0.1:9", {}, "wants a certificate, and Dask is told of none.*; .*tls.yaml"),
        ("tls://127.0.0.1:9", {"tls.ca-file": "/none", "tls.client.cert": "/none"}, "certificates .* can not be read"),
        ("tcp://127.0.0.1:9", {"require-encryption": True}, "told to encrypt all.*; begin .* tls://"),
    ],
)
def test_what_no_scheduler_can_be_reached_by_is_told_at_once(address: str, told: dict[str, object], words: str) -> None:
    import dask

    settings = dask.config.set({f"distributed.comm.{name}": value for name, value in told.items()})
    with settings, pytest.raises(BackendError) as caught, core.crew(address):
        pass
    assert re.search(words, f"{caught.value}; {caught.value.hint}")


CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)


@pytest.mark.parametrize(
    ("question", "how"),
    [
        (lambda gone: core.Crew(gone).size, (OSError, *CANCELLED)),
        (lambda gone: core.Crew(gone).busy(), (OSError, *CANCELLED)),
        (lambda gone: crews._result(gone, Part("a", 1, MeasureLayers(("a",)))), CANCELLED),
    ],
    ids=["workers", "busy", "result"],
)
def test_a_scheduler_that_goes_is_told(question: Callable[[Any], Any], how: tuple[type[BaseException], ...]) -> None:
    for kind in how:

        def ask(*_: object, kind: type[BaseException] = kind, **__: object) -> Any:
            raise kind

        with pytest.raises(BackendError, match="scheduler of the workers is gone") as caught:
            question(SimpleNamespace(scheduler_info=ask, processing=ask, result=ask))
        assert "what is finished is kept" in caught.value.hint


def large(folder: Path) -> Path:
    """A source that keeps two workers busy for a while."""
    shapes = {f"model.layers.{i}.mlp.down_proj.weight": gaussian(1024, 2048, seed=i) for i in range(12)}
    return checkpoint(folder, shapes, shards=3)


def test_workers_that_are_killed_cost_a_shard_each(mortal: core.Crew, tmp_path: Path) -> None:
    source = large(tmp_path / "model")
    exported(source, tmp_path / "alone", None)
    with core.open_model(source) as model, core.start(ONE, model) as started:
        choices = core.resolve(PLAN, model)
        job = core.prepare(model, PLAN, choices, core.LAYOUTS["mlx"], tmp_path / "out", shard_nbytes=40_000)
        killed = 0
        for event in core.export(started, job, spread_over(mortal, job)):
            if isinstance(event, core.ShardWritten) and killed < 3:
                os.kill(next(iter(mortal._client.run(os.getpid, on_error="ignore").values())), signal.SIGKILL)
                killed += 1
    assert killed == 3
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "alone")


def hang() -> None:
    """Run in a worker: what it is to write from now on never ends."""

    def never(*_: object) -> Iterator[core.Event]:
        threading.Event().wait()
        yield from ()

    steps.run_shard = never


@pytest.fixture
def both() -> Iterator[core.Crew]:
    """Two workers, of which one is to hang."""
    with core.crew(workers=2) as crew:
        yield crew


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["waits", "is stopped"])
def test_a_worker_that_hangs_is_ended(
    both: core.Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(crews, "SILENCE", 0.5)
    monkeypatch.setattr(crews, "LOOK", 0.2)
    source = large(tmp_path / "model")
    exported(source, tmp_path / "alone", None)
    with core.open_model(source) as model, core.start(ONE, model) as started:
        choices = core.resolve(PLAN, model)
        job = core.prepare(model, PLAN, choices, core.LAYOUTS["mlx"], tmp_path / "out", shard_nbytes=40_000)
        address, process = min(both._client.run(os.getpid).items())
        heard = {address: 0.0}
        monkeypatch.setattr(crews.Standing, "heard", lambda _, other: heard.get(other, math.inf))
        if kind == "waits":
            both._client.run(hang, workers=[address])
        said = []
        for event in core.export(started, job, spread_over(both, job)):
            if isinstance(event, core.Warned):
                said.append(event.message)
            if isinstance(event, core.Started) and kind == "is stopped":
                os.kill(process, signal.SIGSTOP)
    told = re.compile(f"nothing was heard of worker (at {address}|.*:{process}).* for 0.5 s; it is ended")
    assert any(map(told.search, said)), said
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "alone")


def test_the_workers_of_a_scheduler_are_taken_by_its_address(studio: Studio, source: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    assert studio("quantize", source, tmp_path / "alone", *SMALL).code == 0
    with LocalCluster(n_workers=2, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        address = f"--cluster={cluster.scheduler_address}"
        ran = studio("quantize", source, tmp_path / "out", *SMALL, address)
        measured = studio("measure", source, address)
    assert ran.code == measured.code == 0
    assert "2 workers at" in ran.err
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "alone")


def test_workers_read_a_source_behind_a_url_themselves(two: core.Crew, source: Path, tmp_path: Path) -> None:
    pytest.importorskip("requests")
    exported(source, tmp_path / "alone", None)
    with serving(source) as web:
        exported(web.url, tmp_path / "out", two)
        written = web.sent
    assert written > 3 * 100_000
    out, alone = snapshot(tmp_path / "out"), snapshot(tmp_path / "alone")
    assert {name for name in alone if out[name] != alone[name]} <= {"README.md", "SHA256SUMS"}  # they name the source


def test_a_coordinator_that_is_killed_is_gone_on_with(studio: Studio, tmp_path: Path) -> None:
    source, target = large(tmp_path / "model"), tmp_path / "out"
    assert studio("quantize", source, tmp_path / "alone", *SMALL).code == 0
    command = [
        sys.executable,
        "-m",
        "tests.faults.at_once",
        "quantize",
        str(source),
        str(target),
        *SMALL,
        "--workers",
        "2",
    ]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not list((tmp_path / "out.partial").glob("*.safetensors.json")) and running.poll() is None:
        time.sleep(0.02)
    second = studio("quantize", source, target, *SMALL)
    running.kill()
    running.communicate()
    assert second.code == 4
    assert "another export to this target is running" in second.err
    assert not target.exists()
    again = studio("quantize", source, target, *SMALL)
    assert again.code == 0
    assert "finished already" in again.err
    assert snapshot(target) == snapshot(tmp_path / "alone")


def test_a_run_that_is_stopped_goes_on_from_there(two: core.Crew, tmp_path: Path) -> None:
    source = large(tmp_path / "model")
    exported(source, tmp_path / "alone", None)
    with core.open_model(source) as model, core.start(ONE, model) as started:
        choices = core.resolve(PLAN, model)
        job = core.prepare(model, PLAN, choices, core.LAYOUTS["mlx"], tmp_path / "out", shard_nbytes=40_000)
        events = core.export(started, job, spread_over(two, job))
        next(event for event in events if isinstance(event, core.ShardWritten))
        events.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists()
    again = exported(source, tmp_path / "out", two)
    assert any(isinstance(event, core.Resumed) for event in again)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "alone")


def test_nothing_is_settled_in_the_folder_of_another_run(tmp_path: Path) -> None:
    folder = SharedFolder(tmp_path, {"plan": "a", "shards": [("x", 1)]})
    (tmp_path / JOURNAL).write_text('{"identity": {"plan": "a", "shards": [["x", 1]]}}')
    folder.write_file("one", [b"1"])
    (tmp_path / JOURNAL).write_text('{"identity": {"plan": "b", "shards": [["x", 1]]}}')
    with pytest.raises(ExportError, match="another run has taken this folder"):
        folder.write_file("two", [b"2"])
    assert not (tmp_path / "two").exists()


def test_what_a_lost_worker_left_is_not_published(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "out")
    staging.write_file("config.json", [b"{}"])
    StagedFolder(staging.path, f".{'0' * 32}").temporary("model.safetensors").write_bytes(b"half")
    staging.publish(overwrite=False)
    staging.close()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]


def test_a_shard_that_another_run_replaced_is_noticed(source: Path, tmp_path: Path) -> None:
    with core.open_model(source) as model, core.start(ONE, model) as started:
        job = core.prepare(model, PLAN, core.resolve(PLAN, model), core.LAYOUTS["mlx"], tmp_path / "out")
        events = core.export(started, job)
        written = next(event for event in events if isinstance(event, core.ShardWritten))
        record = tmp_path / "out.partial" / f"{written.shard}.json"
        record.write_bytes(record.read_bytes().replace(written.sha256.encode(), b"0" * 64))
        with pytest.raises(ExportError, match="was replaced while the export ran"):
            list(events)
