"""Memory does not grow with a tensor or with the number of slabs, and less of it is never answered with more."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, Popen

import numpy as np
import pytest

from kernels import Census
from studio import core
from studio.core.running.tallies import CensusTally, exact_terms
from studio.core.running.tasks import BUNDLE_NBYTES, BUNDLE_STEPS, Tasks, bundles
from tests.core.checkpoints import checkpoint, gaussian, large_checkpoint
from tests.core.conftest import Studio

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which is Linux's")


def anonymous_peak(source: Path, *options: str) -> int:
    """Kilobytes of anonymous memory at the most while `source` is measured."""
    command = [sys.executable, "-m", "studio", "measure", str(source), "--quiet", "--threads", "2", *options]
    process, peak = Popen(command, stdout=DEVNULL), 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = status.read_text().splitlines()
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.005)
    assert process.returncode == 0
    return peak


@pytest.mark.proof
@linux
def test_a_lower_limit_never_takes_more_memory_and_none_grows_with_the_tensor(tmp_path: Path) -> None:
    small = large_checkpoint(tmp_path / "small", 1, rows=4096)
    large = large_checkpoint(tmp_path / "large", 1, rows=131072)
    free, tight = anonymous_peak(large), anonymous_peak(large, "--max-memory", "72M")
    assert max(free, tight) < 100_000
    assert tight < free + 2_000
    assert free < anonymous_peak(small) + 10_000
    assert tight < 72_000


@pytest.mark.proof
@linux
def test_a_layer_more_takes_two_kilobytes_at_most(tmp_path: Path) -> None:
    def tiny(folder: Path, count: int) -> Path:
        names = (f"model.layers.{i // 100}.mlp.experts.{i % 100}.up_proj.weight" for i in range(count))
        return checkpoint(folder, dict.fromkeys(names, gaussian(16, 64)))

    few, many = anonymous_peak(tiny(tmp_path / "few", 1000)), anonymous_peak(tiny(tmp_path / "many", 7000))
    assert (many - few) / 6000 < 2


def test_rows_that_are_encoded_together_are_counted(tmp_path: Path) -> None:
    wide = checkpoint(tmp_path / "wide", {"model.layers.0.mlp.down_proj.weight": gaussian(256, 65536)})
    tight = core.Machine("cpu", threads=1, max_memory=68 << 20)
    with core.open_model(wide) as model:
        choices = [
            core.resolve(core.preset("linear").with_format(name), model) for name in ("fp8-channel", "fp8-block")
        ]
        together = [core.rows_together(choice.recipe for choice in chosen) for chosen in choices]
        assert together == [1, 128]
        with core.start(tight, model, together[0]) as engine:
            assert engine.slab_nbytes < 1 << 20
        with pytest.raises(core.MemoryLimitError, match="the work needs"), core.start(tight, model, together[1]):
            pass
        with core.start(replace(tight, max_memory=170 << 20), model, together[1]):
            pass


def test_jobs_come_back_in_order_and_only_a_window_of_them_is_ever_started() -> None:
    started: list[int] = []
    gathered = 0

    def job(number: int) -> int:
        time.sleep(number % 3 / 1000)
        return number

    def jobs() -> Iterator[Callable[[], int]]:
        for number in range(50):
            started.append(number)
            assert len(started) - gathered <= 5
            yield partial(job, number)

    with ThreadPoolExecutor(3) as pool, Tasks(pool, window=4) as tasks:
        for number in tasks.in_order(jobs()):
            assert number == gathered
            gathered += 1
    assert gathered == 50


def test_leaving_the_block_early_starts_no_further_job() -> None:
    ran: list[int] = []
    lock = threading.Lock()

    def job(number: int) -> None:
        with lock:
            ran.append(number)

    with ThreadPoolExecutor(1) as pool:
        with Tasks(pool, window=4) as tasks:
            next(tasks.in_order(partial(job, number) for number in range(100)))
        assert len(ran) <= 5


@dataclass(frozen=True)
class Step:
    """A piece of work of so many bytes."""

    nbytes: int


def test_small_steps_are_bundled_in_order_and_large_ones_stand_alone() -> None:
    steps = [Step(100)] * (BUNDLE_STEPS + 1) + [Step(BUNDLE_NBYTES)] + [Step(BUNDLE_NBYTES // 2)] * 3
    found = list(bundles(steps))
    assert [len(bundle) for bundle in found] == [BUNDLE_STEPS, 1, 1, 2, 1]
    assert [step for bundle in found for step in bundle] == steps


def test_the_terms_that_are_kept_of_row_sums_add_up_to_exactly_the_same() -> None:
    rng = np.random.default_rng(3)
    values = (rng.lognormal(sigma=20, size=1000)).tolist()
    terms = exact_terms(values)
    assert sum(map(Fraction, terms)) == sum(map(Fraction, values))
    assert len(terms) < 10


@pytest.mark.parametrize("cut", [1, 2, 7, 20])
def test_a_census_is_the_same_however_its_slabs_are_spread_over_tasks(cut: int) -> None:
    rng = np.random.default_rng(4)
    parts = [Census(rng.integers(0, 9, 32768).astype(np.uint64), *rng.random(3)) for _ in range(20)]
    whole = CensusTally()
    for start in range(0, 20, cut):
        task = CensusTally()
        for part in parts[start : start + cut]:
            task.add(Census(part.counts.copy(), part.max_abs, part.sum2, part.sum4))
        whole.merge(task)
    found, wanted = whole.census(), sum(parts, Census.empty())
    assert (found.max_abs, found.sum2, found.sum4) == (wanted.max_abs, wanted.sum2, wanted.sum4)
    assert (found.counts == wanted.counts).all()


def test_a_manifest_has_a_line_a_layer_of_less_than_a_kilobyte(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model")
    assert studio("quantize", source, tmp_path / "out").code == 0
    text = (tmp_path / "out" / "nvfp4_studio.json").read_text()
    layers = json.loads(text)["layers"]
    lines = text.splitlines()
    first = lines.index('  "layers":[') + 1
    assert [json.loads(line.rstrip(",")) for line in lines[first : first + len(layers)]] == layers
    assert lines[first + len(layers) :] == ["  ]", "}"]
    assert sum(map(len, lines)) < 1000 * len(layers)
