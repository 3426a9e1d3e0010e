"""Checkpoints of the packages that are installed here give the weights that these decode; and how results are told."""

import json
from dataclasses import replace

import numpy as np
import pytest

from studio import core
from tests.consumers.environments import Environment, recipe
from tests.core.checkpoints import CONFIG, checkpoint, gaussian
from tests.interop.judging import DIFFERS, EQUAL, NOT_INSTALLED, REFUSED, ROUNDED, Result, difference, judged
from tests.interop.making import DECODED, MODEL
from tests.interop.packages import PACKAGES
from tests.interop.report import line, markdown, merged, totals
from tests.runtimes.checkpoints import write_llama, write_qwen3_moe
from tests.runtimes.worker import Worker, missing

INSTALLED = {
    "make_mlx": ({"mlx": "", "mlx-lm": ""}, ("mixed", "mixed, experts", "nvfp4, experts in three tiers")),
    "make_transformers": ({"torch": "", "transformers": ""}, ("gpt-oss MXFP4", "FP8, tiles of 32, qwen3_moe")),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("sources"), core.demo_checkpoint() / "tokenizer.json"
    write_llama(folder / "llama", tokenizer)
    write_llama(folder / "wide", tokenizer, 384)
    write_qwen3_moe(folder / "moe", tokenizer)
    return folder


@pytest.mark.proof
@pytest.mark.parametrize("module", INSTALLED)
def test_what_an_installed_package_stored_is_read_as_it_decodes_it(module, sources, tmp_path):
    packages, cases = INSTALLED[module]
    if reason := missing(packages):
        pytest.skip(f"{reason}; the extra `runtimes` brings it")
    worker = Worker("tests.interop.making", tmp_path / "log.txt", arguments=[module])
    try:
        assert {*cases} <= {*worker.ask("cases")}
        for place, case in enumerate(cases):
            target = tmp_path / str(place)
            made = worker.ask("make", case=case, sources=sources, target=target)
            with np.load(target / DECODED) as decoded:
                found = judged(target / MODEL, dict(decoded), made["dtype"], made["refusal"])
            assert found["is_right"], found
    finally:
        worker.close()


WEIGHTS = np.array([[1 / 3, -2.0], [0.0, 5e-5]], np.float32)


@pytest.mark.parametrize(
    ("wanted", "dtype", "what"),
    [
        (WEIGHTS, "F32", EQUAL),
        (WEIGHTS - 0.0, "F32", EQUAL),
        (WEIGHTS.astype(np.float16).astype(np.float32), "F16", ROUNDED),
        (WEIGHTS.astype(np.float16).astype(np.float32), "BF16", DIFFERS),
        (WEIGHTS.astype(np.float16).astype(np.float32), "F32", DIFFERS),
        (WEIGHTS * np.float32(1 + 2**-23), "F32", DIFFERS),
        (WEIGHTS.T, "F32", DIFFERS),
        (WEIGHTS[:1], "F32", DIFFERS),
    ],
)
def test_weights_are_compared_to_the_bit(wanted, dtype, what):
    assert difference(WEIGHTS, wanted, dtype)[0] == what


def stored():
    """A layer in LLM.int8, what it decodes to, and a plain one."""
    codes, scale = np.full((4, 32), 127, np.int8), np.array([1, 2, 3, 4], np.float32)
    tensors = {"a.weight": codes, "a.SCB": scale, "norm.weight": np.ones(8, np.float32)}
    wanted = codes * scale[:, None] * np.float32(1 / 127)
    return tensors, {"a.weight": wanted.astype(np.float32), "norm.weight": np.ones(8, np.float32)}


def test_a_checkpoint_is_right_when_every_weight_is(tmp_path):
    tensors, wanted = stored()
    found = judged(checkpoint(tmp_path / "m", tensors, CONFIG), wanted, "F32", "")
    assert (found["what"], found["tensors"], found["is_right"]) == (EQUAL, 2, True)
    assert found["stored"] == "1 INT8, a scale per row, bitsandbytes"


@pytest.mark.parametrize("case", ["another weight", "one that is not there", "one too many", "nothing quantized"])
def test_a_checkpoint_is_wrong_otherwise(case, tmp_path):
    tensors, wanted = stored()
    if case == "another weight":
        wanted["a.weight"][2, 5] += 1
    elif case == "one that is not there":
        wanted["b.weight"] = np.ones(3, np.float32)
    elif case == "one too many":
        tensors["b.weight"] = gaussian(4, 4)
    else:
        tensors = {"a.weight": wanted["a.weight"], "norm.weight": wanted["norm.weight"]}
    assert not judged(checkpoint(tmp_path / "m", tensors, CONFIG), wanted, "F32", "")["is_right"]


def test_a_refusal_is_right_when_it_is_by_the_name_that_was_to_be(tmp_path):
    tensors = {"a.trellis": np.ones((2, 2, 8), np.int16), "a.suh": np.ones(8, np.float16), "norm.weight": gaussian(8)}
    folder = checkpoint(tmp_path / "m", tensors, CONFIG)
    assert judged(folder, {}, "F32", "EXL3") == {"what": REFUSED, "reason": "EXL3", "is_right": True}
    assert not judged(folder, {}, "F32", "quanto")["is_right"]


ONE = Result("gguf", "0.19.0", "Q4_K", EQUAL, stored="7 GGUF Q4_K; 2 GGUF Q4_K, rows in pairs", tensors=12)
OTHER = Result("hqq", "0.2.8", "4 bits", REFUSED, "hqq")


def test_the_table_counts_what_became_of_the_checkpoints_of_a_package():
    rounded = replace(ONE, case="NVFP4", what=ROUNDED, stored="4 NVFP4, three tiers, torchao; 2 INT8, one scale")
    table = markdown([ONE, rounded, OTHER], "2026-11-29")
    assert "| gguf 0.19.0 | INT8, NVFP4, Q4_K | 2 | 24 | 1 | 1 |  |" in table
    assert "| hqq 0.2.8 |  | 1 | 0 | 0 | 0 | 1 refused by name |" in table
    assert "3 checkpoints of 2 packages" in table


def test_what_is_wrong_or_skipped_is_marked():
    wrong = replace(ONE, what=DIFFERS, is_right=False)
    skipped = Result("torchao", "0.18.0", "", NOT_INSTALLED, "no such wheel")
    assert "<- WRONG" in line(wrong)
    assert "<- WRONG" not in line(ONE)
    assert totals([ONE, wrong, skipped]).startswith("skipped, as it could not be installed: torchao")
    assert totals([ONE, wrong]).endswith("1 wrong")


def test_results_of_other_packages_are_kept(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([row.to_json() for row in (OTHER, replace(ONE, case="old"))]), encoding="utf-8")
    assert merged(path, [ONE]) == [ONE, OTHER]


def test_an_environment_changes_with_the_one_below_it():
    below = Environment("torch", ("torch==1",))
    upon = Environment("x", ("x==1",), alone=("y==2",), upon=below)
    other = replace(upon, upon=replace(below, packages=("torch==2",)))
    assert recipe(upon) != recipe(other)
    assert recipe(upon).splitlines()[1:] == ["x==1", "=y==2", "+torch==1"]
    assert len({recipe(row.environment) for row in PACKAGES.values()}) == len(PACKAGES)
