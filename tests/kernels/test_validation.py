"""The validation harness passes here, notices what is wrong, and tells it as text and as JSON."""

import json
import os

import numpy as np
import pytest

pytest.importorskip("mlx.core", reason="mlx is not installed: validation's operations are not tested")

from kernels import reference, validation
from kernels.formats import recipe
from kernels.gpu.requirements import SWITCH
from kernels.validation import Report, Table


@pytest.fixture(scope="module")
def report() -> Report:
    return validation.run("cpu", quick=True, timed=False)


def test_the_processor_passes(report: Report) -> None:
    assert report.passed, report.text()


def test_json_holds_every_table(report: Report) -> None:
    told = json.loads(report.to_json())
    assert told["passed"] is True
    assert [len(t["rows"]) for t in told["tables"]] == [len(t.rows) for t in report.tables]


def test_one_failed_row_fails_the_report() -> None:
    table = Table("t", ("a", "ok"), (("x", True), ("y", None), ("z", False)))
    assert not Report("here", (table,)).passed
    assert "FAIL" in Report("here", (table,)).text()


def test_the_switch_is_as_it_was(report: Report) -> None:  # noqa: ARG001
    assert SWITCH not in os.environ


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", [c for c in validation.CASES if c.name != "small"], ids=lambda c: c.name)
def test_generators_reproduce_the_original_errors(case: validation.Case) -> None:
    weight = case.make(512, case.shape[1])
    norm = np.linalg.norm(weight)
    g = float(reference.tensor_scale(float(np.abs(weight).max())))
    for expected, name in zip(case.expected, ("nvfp4-2t", "nvfp4-3t"), strict=False):
        packed = reference.encode(weight, recipe(name), g if name == "nvfp4-3t" else 1.0)
        assert np.linalg.norm(reference.decode(packed) - weight) / norm == pytest.approx(expected, rel=0.02)
    if case.expected[2]:
        bug = np.linalg.norm(validation.with_lane_bug(weight) - weight) / norm
        assert bug == pytest.approx(case.expected[2], rel=0.02)


def test_a_broken_backend_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = validation.Bench("cpu")
    encode = bench.encode

    def swapped(weight: np.ndarray, name: str) -> reference.Quantized:
        packed = encode(weight, name)
        codes = (packed.codes << 4) | (packed.codes >> 4)
        return reference.Quantized(packed.format, codes, packed.scales, packed.biases, packed.tensor_scale)

    monkeypatch.setattr(bench, "encode", swapped)
    assert not validation.round_trip(bench, True).passed
    assert not validation.matmul_quality(bench, True).passed
