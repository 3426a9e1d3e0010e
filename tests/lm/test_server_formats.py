"""Formats of compressed-tensors in transformers: an export predicts what its decoded weights do."""

from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.exporting.decoded import write_exported
from tests.lm.models import LENGTH, write_llama
from tests.runtimes.checkpoints import write_qwen3_moe

for needed in ("torch", "transformers", "compressed_tensors"):
    pytest.importorskip(needed, reason="the extra `runtimes` brings it")

TOKENS = (np.arange(LENGTH) * 37 % 4096).astype(np.int64)
MIX = (("*down_proj", "mxfp8"), ("*layers.1.self_attn.o_proj", "mxfp4"))
WITH_FP8 = (("*down_proj", "fp8-channel"), ("*o_proj", "fp8-block"), ("*layers.1.mlp.[gu]*", "fp8-tensor"))
WITH_INTEGERS = (("*down_proj", "int4-sym-g32"), ("*o_proj", "fp8-block"))
WHOLE = ("mxfp4", "mxfp8", "fp8-tensor", "fp8-channel", "fp8-block", "int4-sym-g32", "int4-sym-g128", "int8-sym-g128")
EXPERTS = (("*experts*", "mxfp4"),)


def logits(folder: Path) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        found: np.ndarray = model(torch.from_numpy(TOKENS)[None]).logits[0].float().numpy()
    return found


def both(source: Path, folder: Path, row: str, rules=()) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """What an export predicts, and what its decoded weights do."""
    plan = core.preset("linear").with_format(row)
    plan = plan.preceded_by([core.Rule(names=(name,), format=form) for name, form in rules])
    with core.open_model(source) as model, core.start(core.Machine(threads=2), model) as engine:
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["compressed-tensors"], folder / "out")
        list(core.export(engine, job))
        with core.open_model(folder / "out") as opened:
            list(write_exported(engine, model, opened, folder / "decoded"))
    return logits(folder / "out"), logits(folder / "decoded")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("row", "rules"),
    [*((row, ()) for row in WHOLE), ("nvfp4-2t", MIX), ("nvfp4-2t", WITH_FP8), ("nvfp4-2t", WITH_INTEGERS)],
    ids=[*WHOLE, "mix", "mix with fp8", "mix with integers"],
)
def test_a_dense_model(tmp_path: Path, row: str, rules) -> None:  # type: ignore[no-untyped-def]
    found, wanted = both(write_llama(tmp_path / "m"), tmp_path, row, rules)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("row", "rules"),
    [
        ("mxfp4", ()),
        ("mxfp8", EXPERTS),
        ("fp8-tensor", ()),
        ("fp8-channel", ()),
        ("fp8-block", EXPERTS),
        ("int4-sym-g32", ()),
    ],
    ids=["mxfp4", "mix", "fp8-tensor", "fp8-channel", "fp8-block and mxfp4", "int4-sym-g32"],
)
def test_a_mixture_of_experts(tmp_path: Path, row: str, rules) -> None:  # type: ignore[no-untyped-def]
    source = write_qwen3_moe(tmp_path / "m", core.demo_checkpoint() / "tokenizer.json")
    found, wanted = both(source, tmp_path, row, rules)
    np.testing.assert_array_equal(found, wanted)
