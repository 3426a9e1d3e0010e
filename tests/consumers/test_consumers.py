"""The parts of `make consumers` that need no consumer: judging, the table of consumers, reports, decoding."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from studio import core
from tests.consumers.consumers import CONSUMERS
from tests.consumers.decoding import DecodingError, write_decoded
from tests.consumers.environments import recipe
from tests.consumers.exporting import cases
from tests.consumers.models import MODELS
from tests.consumers.report import line, markdown, merged, totals
from tests.consumers.verdicts import FAILS, NOT_INSTALLED, RIGHT, WRONG, Verdict, distance, is_right, loss


def verdict(what=RIGHT, said="runs", **fields):
    return Verdict("mlx-vlm", "demo", "mlx", "nvfp4-2t", what, said=said, claim="mlx-vlm: as said", **fields)


@pytest.mark.parametrize(
    ("what", "said", "expected"),
    [
        (RIGHT, "runs", False),
        (RIGHT, "untried", False),
        (RIGHT, "fails", True),
        (WRONG, "runs", True),
        (FAILS, "runs", True),
        (FAILS, "fails", False),
        (WRONG, "untried", False),
        (NOT_INSTALLED, "runs", False),
    ],
)
def test_a_claim_is_contradicted_by_what_was_seen(what, said, expected):
    assert verdict(what, said).contradicts is expected


def test_a_version_that_no_claim_speaks_of_contradicts_none():
    assert not verdict(FAILS, "runs", is_claimed=False).contradicts


def test_loss_is_that_of_the_next_token():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]))
    assert loss(logits, [2, 0, 1]) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)


def test_logits_are_compared_up_to_a_constant_in_each_row():
    logits = np.random.default_rng(0).standard_normal((5, 7))
    assert distance(logits + np.arange(5)[:, None], logits) == pytest.approx(0, abs=1e-12)
    assert distance(np.full((5, 7), np.nan), logits) == float("inf")


@pytest.mark.parametrize(
    ("far", "difference", "expected"),
    [(0.01, 1.0, True), (0.05, 0.001, True), (0.05, 0.01, False), (0.5, 0.0, False), (float("inf"), 0.0, False)],
)
def test_near_logits_are_right_and_the_same_loss_is_when_logits_are_not_far(far, difference, expected):
    assert is_right(far, difference, 0.02) is expected


def test_every_consumer_is_one_that_a_layout_names_and_runs_known_models():
    assert {row.reader for row in CONSUMERS.values()} == set(core.readers())
    assert all(set(row.models) <= set(MODELS) for row in CONSUMERS.values())
    assert all("==" in package for row in CONSUMERS.values() for package in row.packages)


def test_another_package_is_another_environment():
    assert len({recipe(row.environment) for row in CONSUMERS.values()}) == len(CONSUMERS)


def test_reports_mark_what_contradicts_and_name_the_models():
    found = [verdict(distance=0.01, loss=1.0, decoded_loss=1.0), verdict(FAILS, reason="KeyError: no such thing")]
    assert "CONTRADICTS" not in line(found[0])
    assert "CONTRADICTS" in line(found[1])
    assert "2 verdicts, 1 contradict" in totals(found)
    assert f"| mlx-vlm 0.7.10 | {found[0].layout} | right: demo; fails: demo |" in markdown(found)


def test_results_of_other_consumers_and_models_are_kept(tmp_path):
    path, other = tmp_path / "results.json", replace(verdict(FAILS), consumer="vllm")
    path.write_text(json.dumps([found.to_json() for found in (other, verdict(WRONG))]), encoding="utf-8")
    assert merged(path, [verdict(RIGHT)]) == [verdict(RIGHT), other]
    assert merged(tmp_path / "none.json", [other]) == [other]


def test_every_layout_decodes_to_the_same_weights(tmp_path):
    source = core.demo_checkpoint()
    made = list(cases("demo", source, tmp_path, frozenset(core.readers())))
    assert {case.layout for case in made} == set(core.LAYOUTS)
    two_tiers = [case for case in made if case.format == "nvfp4-2t"]
    decoded = [load_file(write_decoded(source, case.folder, tmp_path) / "model.safetensors") for case in two_tiers]
    assert len(decoded) > 2
    for tensors in decoded[1:]:
        assert all(np.array_equal(tensors[name], decoded[0][name]) for name in decoded[0])


def test_an_export_of_other_weights_is_noticed(tmp_path):
    source = core.demo_checkpoint()
    case = next(iter(cases("demo", source, tmp_path, frozenset(["vllm"]))))
    path = case.folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-200_000:] = bytes(200_000)
    path.write_bytes(data)
    with pytest.raises(DecodingError, match="decodes to something else"):
        write_decoded(source, case.folder, tmp_path / "decoded")
