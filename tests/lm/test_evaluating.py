"""Evaluations of small models, run by the runtimes that are here."""

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from studio import core
from studio.core.exporting.decoded import write_exported
from studio.core.quality.metrics import log_probabilities
from studio.lm.texts import read_text, windows
from tests.lm.models import LENGTH, WINDOWS, llama_logits, write_arcee, write_llama, write_text
from tests.runtimes.checkpoints import write_qwen3_moe, write_stacked_qwen3_moe

for needed in ("torch", "transformers", "mlx_lm"):
    pytest.importorskip(needed, reason="the extra `runtimes` brings it")

THREE, TWO = (core.preset("linear").with_format(name) for name in ("nvfp4-3t", "nvfp4-2t"))


class Bench:
    """Runs evaluations below a folder."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.text, self.cache = write_text(folder), folder / "cache"

    def open(self, path: Path) -> core.Model:
        return self._stack.enter_context(core.open_model(path))

    def export(self, model: core.Model, layout: str, plan: core.Plan = THREE) -> core.Model:
        target = self.folder / f"{model.path.name}-{layout}-{plan.format}"
        with core.start(core.Machine(threads=2), model) as engine:
            for _ in core.export(
                engine, core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS[layout], target)
            ):
                pass
        return self.open(target)

    def events(
        self, source: core.Model | None, *candidates: core.Candidate, runtime: str = "mlx-lm"
    ) -> Iterator[core.Event]:
        reading = core.Reading((self.text,), WINDOWS, LENGTH)
        first = source or candidates[0].model
        against = core.as_stored(source) if source else None
        with core.start(core.Machine(threads=2), first) as engine:
            yield from core.evaluate(engine, against, candidates, reading, folder=self.cache, runtime=runtime)

    def run(self, source: core.Model | None, *candidates: core.Candidate, **how: Any) -> core.Quality:
        found = list(self.events(source, *candidates, **how))
        assert list(self.cache.iterdir()) == []
        assert isinstance(found[-1], core.EvaluationDone)
        return found[-1].quality


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(tmp_path_factory.mktemp("bench"), stack)


@pytest.fixture(scope="module")
def source(bench: Bench) -> core.Model:
    return bench.open(write_llama(bench.folder / "llama"))


@pytest.fixture(scope="module")
def export(bench: Bench, source: core.Model) -> core.Model:
    return bench.export(source, "modelopt")


@pytest.fixture(scope="module")
def quality(bench: Bench, source: core.Model, export: core.Model) -> core.Quality:
    """The source against itself, an export, what its plan gives, and another plan, in one go."""
    plans = [core.as_planned(source, THREE, layout="modelopt"), core.as_planned(source, TWO)]
    return bench.run(source, core.as_stored(source), core.as_stored(export), *plans)


def figures(row: core.Evaluated) -> list[core.Estimate | None]:
    return [row.perplexity, row.increase, row.kl, row.top1]


@pytest.mark.proof
def test_the_source_against_itself_differs_in_nothing(quality: core.Quality) -> None:
    row = quality.models[0]
    assert row.kl == core.Estimate(0.0, 0.0)
    assert row.top1 == core.Estimate(1.0, 0.0)
    assert row.increase == core.Estimate(0.0, 0.0)
    assert quality.source is not None
    assert row.perplexity == quality.source.perplexity
    assert row.tokens == WINDOWS * (LENGTH - 1)


def test_figures_are_those_of_the_decoded_weights_computed_by_hand(
    bench: Bench, quality: core.Quality, source: core.Model, export: core.Model, tmp_path: Path
) -> None:
    with core.start(core.Machine(threads=2), source) as engine:
        for _ in write_exported(engine, source, export, tmp_path / "decoded"):
            pass
    tensors, decoded = (
        load_file(source.path / "model.safetensors"),
        load_file(tmp_path / "decoded" / "model.safetensors"),
    )
    loss = divergence = agreed = 0.0
    for tokens in windows(read_text([bench.text]), source.path, WINDOWS, LENGTH).tokens:
        p, q = (log_probabilities(llama_logits(each, tokens)[:-1]) for each in (tensors, decoded))
        loss -= q[np.arange(LENGTH - 1), tokens[1:]].sum()
        divergence += (np.exp(p) * (p - q)).sum()
        agreed += (p.argmax(1) == q.argmax(1)).sum()
    row, count = quality.models[1], WINDOWS * (LENGTH - 1)
    assert row.perplexity.value == pytest.approx(math.exp(loss / count), rel=1e-4)
    assert row.kl is not None
    assert row.kl.value == pytest.approx(divergence / count, rel=1e-3)
    assert row.kl.value > 1e-3
    assert row.top1 is not None
    assert row.top1.value == agreed / count


def test_an_export_and_its_plan_give_the_same_figures(quality: core.Quality) -> None:
    stored, planned = quality.models[1:3]
    assert figures(stored) == figures(planned)
    assert (stored.format, stored.rel_err) == (planned.format, planned.rel_err)
    assert planned.kl_difference is not None


@pytest.mark.proof
def test_several_plans_in_one_go_are_as_each_alone(bench: Bench, source: core.Model, quality: core.Quality) -> None:
    alone = bench.run(source, core.as_planned(source, TWO))
    assert figures(alone.models[0]) == figures(quality.models[3])
    assert alone.models[0].kl_difference is None
    assert figures(quality.models[3]) != figures(quality.models[2])


@pytest.mark.proof
def test_without_its_source_an_export_tells_perplexity_alone(
    bench: Bench, source: core.Model, export: core.Model, quality: core.Quality
) -> None:
    found = bench.run(None, core.as_stored(export), runtime="transformers")
    known = quality.models[1].perplexity.value
    assert found.source is None
    assert found.models[0].perplexity.value == pytest.approx(known, rel=1e-5)
    assert figures(found.models[0])[1:] == [None, None, None]
    mlx = bench.run(None, core.as_stored(bench.export(source, "mlx")), runtime="")
    assert mlx.runtime == "mlx-lm"
    assert mlx.models[0].perplexity.value == pytest.approx(known, rel=1e-4)


def interrupted(events: Iterator[core.Event], at: int) -> None:
    """Close a job after `at` tokens."""
    for event in events:
        if isinstance(event, core.Progress) and event.done >= at:
            break
    events.close()  # type: ignore[attr-defined]


@pytest.mark.proof
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the child in /proc")
def test_a_killed_child_leaves_what_is_finished_and_nothing_else(bench: Bench, source: core.Model) -> None:
    def killed() -> None:
        for event in bench.events(source, core.as_planned(source, THREE)):
            if isinstance(event, core.Progress) and event.done == LENGTH:
                children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
                os.kill(int(children[-1]), signal.SIGKILL)

    with pytest.raises(core.MemoryLimitError, match="ended by the system"):
        killed()
    (record,) = bench.cache.iterdir()
    assert len(record.read_text().splitlines()) >= 2
    record.unlink()


def test_a_stopped_evaluation_goes_on_where_it_stopped(bench: Bench, source: core.Model, quality: core.Quality) -> None:
    plan = core.as_planned(source, TWO)
    interrupted(bench.events(source, plan), (WINDOWS + 2) * LENGTH)
    left = sorted(path.name for path in bench.cache.iterdir())
    assert len(left) == 2
    assert all(name.endswith(".windows.jsonl") for name in left)
    with (bench.cache / left[0]).open("a") as file:
        file.write('{"index": 3, "su')  # as a kill leaves it
    found = list(bench.events(source, plan))
    started = next(event for event in found if isinstance(event, core.Started))
    assert started.total == 2 * (WINDOWS - 2) * LENGTH
    assert isinstance(found[-1], core.EvaluationDone)
    assert figures(found[-1].quality.models[0]) == figures(quality.models[3])
    assert list(bench.cache.iterdir()) == []


@pytest.fixture(scope="module")
def mixtures(bench: Bench) -> dict[str, core.Quality]:
    """A mixture with each expert in tensors of its own, and with all in stacks, which mlx-lm does not take."""
    found = {}
    for write, runtime in ((write_qwen3_moe, "mlx-lm"), (write_stacked_qwen3_moe, "")):
        model = bench.open(write(bench.folder / write.__name__, core.demo_checkpoint() / "tokenizer.json"))
        candidates = (core.as_stored(bench.export(model, "mlx", TWO)), core.as_planned(model, TWO))
        found[write.__name__] = bench.run(model, *candidates, runtime=runtime)
    return found


@pytest.mark.proof
def test_a_mixture_of_experts_runs_where_its_form_is_taken(mixtures: dict[str, core.Quality]) -> None:
    assert [found.runtime for found in mixtures.values()] == ["mlx-lm", "transformers"]
    for found in mixtures.values():
        stored, planned = found.models
        assert figures(stored) == figures(planned)


@pytest.mark.proof
def test_stacked_experts_are_those_that_stand_alone(mixtures: dict[str, core.Quality]) -> None:
    apart, stacked = (found.models[0] for found in mixtures.values())
    assert apart.kl is not None
    assert stacked.kl is not None
    assert apart.kl.value > 1e-6
    assert stacked.kl.value == pytest.approx(apart.kl.value, rel=0.01)
    assert stacked.perplexity.value == pytest.approx(apart.perplexity.value, rel=1e-4)


@pytest.mark.proof
def test_what_mlx_lm_does_not_know_runs_in_transformers(bench: Bench) -> None:
    model = bench.open(write_arcee(bench.folder / "arcee"))
    found = bench.run(model, core.as_planned(model, THREE), runtime="")
    assert found.runtime == "transformers"
    assert found.models[0].kl is not None
    assert found.models[0].kl.value > 1e-4


@pytest.mark.proof
def test_a_runtime_that_does_not_load_a_model_is_named(bench: Bench) -> None:
    model = bench.open(write_arcee(bench.folder / "arcee-again"))
    with pytest.raises(core.CheckpointError, match="mlx-lm does not load it"):
        bench.run(model, core.as_planned(model, THREE))
