"""The doctor finds what is planted under its name, and nothing wrong in good folders, whoever wrote them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio import core
from studio.core.exporting.contents import MANIFEST, SUMS
from studio.core.findings.claims import Matcher
from studio.core.findings.kinds import KINDS
from tests.core.conftest import Studio
from tests.core.findings.building import WHERE, draft
from tests.core.findings.defects import (
    BROKEN,
    DEFECTS,
    PACKED,
    QUERY,
    TORCH,
    Spoil,
    byte,
    entry,
    flip,
    set_part,
    swap_nibbles,
    third,
)
from tests.core.findings.examining import examined, kinds

DATA = Path(__file__).parents[2] / "data"


FOREIGN = [
    (layout, experts, inputs, sigma, shards)
    for layout in ("plain", *PACKED)
    for experts in (0, 4)
    for inputs in (False, True)
    for sigma, shards in ((0.02, 1), (0.004, 3))
    if (not inputs or layout in TORCH) and (layout != "mlx" or sigma == 0.02)
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("layout", "experts", "inputs", "sigma", "shards"), FOREIGN)
def test_good_folders_of_others_have_no_finding_above_a_note(
    tmp_path: Path, layout: str, experts: int, inputs: bool, sigma: float, shards: int
) -> None:
    made = draft(layout, experts=experts, inputs=inputs, sigma=sigma, shards=shards)
    found = examined(made.write(tmp_path / "m"))
    assert not kinds(found, "error", "warning"), found.findings


OWN = [
    (layout, row, experts)
    for layout, rows in {
        "mlx": ("nvfp4-2t", "nvfp4-3t", "mxfp4", "mxfp8", "int4-g64"),
        "modelopt": ("nvfp4-2t", "nvfp4-3t"),
        "compressed-tensors": ("nvfp4-2t", "nvfp4-3t"),
    }.items()
    for row in rows
    for experts in (0, 4)
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("layout", "row", "experts"), OWN)
def test_exports_of_ours_have_no_finding_above_a_note(
    studio: Studio, tmp_path: Path, layout: str, row: str, experts: int
) -> None:
    source = draft("plain", experts=experts).write(tmp_path / "m")
    options = ("--layout", layout, "--format", row, "--method", "max")
    assert studio("quantize", source, tmp_path / "out", *options).code == 0
    found = examined(tmp_path / "out")
    assert not kinds(found, "error", "warning"), found.findings


PLANTED = [
    pytest.param(kind, layout, spoil, options, id=f"{kind}-{layout}-{number}")
    for number, (kind, layouts, spoil, options) in enumerate(DEFECTS)
    for layout in layouts
]
ALSO = {
    "embedding-packed": {"excluded-packed"},
    "exclusions-idle": {"not-excluded"},
    "fused-partly": {"not-excluded"},
    "mlx-must-be-plain": {"weight-missing"},
    "head-tied-packed": {"excluded-packed", "head-untargeted"},
    "section-contradicts": {"claims-other-bits"},
    "tensor-scale-meaning": {"refused"},
    "sections-disagree": {"claims-other-format"},
    "scales-without-codes": {"refused"},
    "float16-overflow": {"tensor-scale-meaning"},
}
"""Findings that are as true of the same folder."""


@pytest.mark.sampled(8)
@pytest.mark.parametrize(("kind", "layout", "spoil", "options"), PLANTED)
def test_planted_defects_are_found_under_their_names_and_no_others(
    tmp_path: Path, kind: str, layout: str, spoil: Spoil, options: dict[str, Any]
) -> None:
    made = draft(layout, **options)
    spoil(made)
    found = examined(made.write(tmp_path / "m"))
    assert kind in kinds(found, KINDS[kind].severity), found.findings
    assert kinds(found, "error") <= {kind, *ALSO.get(kind, set())}, found.findings


def test_there_are_enough_planted_defects_and_good_folders() -> None:
    assert len(PLANTED) >= 60
    assert len(FOREIGN) + len(OWN) >= 30


@pytest.mark.sampled(3)
@pytest.mark.parametrize("layout", ["plain", "modelopt"])
@pytest.mark.parametrize(("kind", "spoil"), BROKEN)
def test_broken_folders_are_examined_as_far_as_they_can_be_read(
    tmp_path: Path, kind: str, spoil: Callable[[Path], Any], layout: str
) -> None:
    folder = draft(layout, shards=3).write(tmp_path / "m")
    spoil(folder)
    found = examined(folder)
    assert kind in kinds(found, KINDS[kind].severity), found.findings
    follow = {"refused", "shard-missing", "section-missing", "not-excluded", "head-missing"}
    assert kinds(found, "error") <= {kind, *follow}, found.findings


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("digest", flip("model.safetensors")),
        ("digest", flip("config.json")),
        ("digest-missing", lambda folder: (folder / "tokenizer.json").unlink()),
        ("digests-unreadable", lambda folder: (folder / SUMS).write_text("nothing")),
        ("manifest", lambda folder: (folder / MANIFEST).write_text("{}")),
    ],
)
def test_exports_that_were_changed_are_found(
    studio: Studio, tmp_path: Path, kind: str, spoil: Callable[[Path], Any]
) -> None:
    source = draft("plain").write(tmp_path / "m")
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt", "--method", "max").code == 0
    spoil(tmp_path / "out")
    assert kind in kinds(examined(tmp_path / "out"), KINDS[kind].severity)


def test_the_command_line_tells_findings_and_fails_from_the_severity_asked_for(studio: Studio, tmp_path: Path) -> None:
    made = draft("modelopt")
    made.files.clear()
    folder = made.write(tmp_path / "m")
    ran = studio("doctor", folder)
    assert ran.code == 0
    assert "warning: tokenizer-missing" in ran.out
    assert studio("doctor", folder, "--fail-on", "warning").code == 1
    set_part("scales", byte(0x7F))(made)
    made.write(tmp_path / "m")
    assert studio("doctor", folder, "--fail-on", "never").code == 0
    ran = studio("doctor", folder, "--json", "--quiet")
    assert ran.code == 1
    events = [json.loads(line) for line in ran.out.splitlines()]
    first = next(event for event in events if event["event"] == "finding")
    assert (first["kind"], first["severity"], first["count"]) == ("scales-nan", "error", 1)
    assert first["where"] == [WHERE]


@pytest.mark.parametrize("spared", ["the first pair of all", "the first pair of every row"])
def test_bytes_that_the_kernel_of_mlx_0_32_0_wrote_are_found(tmp_path: Path, spared: str) -> None:
    """Its text for Metal, run on a processor, on the weights of `llama`, as one row of threads."""
    made = draft("mlx")
    with np.load(DATA / "lane_bug.npz") as theirs:
        codes, scales = theirs["codes"], theirs["scales"]
    if "every" in spared:
        scales[:, :2] = made.tensors[made.part("scales")][:, :2]
    made.tensors |= {f"{WHERE}.weight": codes.view(np.uint32), f"{WHERE}.scales": scales}
    found = examined(made.write(tmp_path / "m"))
    assert kinds(found, "error") == {"lane-bug"}
    assert [one.where for one in found.findings if one.kind == "lane-bug"] == [(WHERE,)]


@pytest.mark.parametrize(
    "change",
    [
        np.ones_like,
        np.sign,
        lambda w: w * (np.abs(w) > np.quantile(np.abs(w), 0.9)),
        lambda w: w * np.float32(2.0**-120),
    ],
    ids=["constant", "binary", "pruned", "tiny"],
)
def test_plain_weights_of_few_values_are_no_grid_of_another_quantization(tmp_path: Path, change: Any) -> None:
    made = draft("plain")
    weight = made.tensors["lm_head.weight"]
    made.tensors["lm_head.weight"] = change(weight.astype(np.float32)).astype(weight.dtype)
    assert not kinds(examined(made.write(tmp_path / "m")), "error", "warning")


def test_blocks_of_another_kind_may_have_wider_heads(tmp_path: Path) -> None:
    made = draft("plain")
    for name in ("k_proj", "v_proj"):
        weight = made.tensors[f"model.layers.1.self_attn.{name}.weight"]
        made.tensors[f"model.layers.1.self_attn.{name}.weight"] = np.concatenate([weight, weight])
    assert "weight-shape" in kinds(examined(made.write(tmp_path / "odd")), "error", "warning")
    made.config["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    assert not kinds(examined(made.write(tmp_path / "kinds")), "error", "warning")


def test_quick_reads_tensor_scales_and_no_codes(tmp_path: Path) -> None:
    made = draft("modelopt")
    set_part("scales", byte(0x7F))(made)
    set_part("third", third(0))(made)
    folder = made.write(tmp_path / "m")
    assert kinds(examined(folder, quick=True), "error") == {"tensor-scale-unusable"}
    assert kinds(examined(folder), "error") == {"tensor-scale-unusable", "scales-nan"}


def test_where_is_bounded_and_counts_all(tmp_path: Path) -> None:
    made = draft("mlx")
    for name in [name for name in made.tensors if name.endswith(".scales")]:
        made.tensors[name] = byte(0x7F)(made.tensors[name])
    (found,) = (one for one in examined(made.write(tmp_path / "m")).findings if one.kind == "scales-nan")
    assert (len(found.where), found.count) == (8, 21)
    assert found.places.endswith("and 13 more")


def test_names_are_escaped(tmp_path: Path) -> None:
    made = draft("modelopt")
    weight = made.tensors.pop("lm_head.weight")
    made.tensors["lm\u202e_head\n.weight"] = weight
    for found in examined(made.write(tmp_path / "m")).findings:
        assert found.places.isprintable()
        assert found.evidence.isprintable()


def _rows_of_another(codes: Any) -> Any:
    return codes[::-1].copy()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("layout", PACKED)
@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("", lambda _made: None),
        ("nibbles-swapped", set_part("codes", swap_nibbles)),
        ("differs-from-source", set_part("codes", _rows_of_another)),
    ],
)
def test_a_source_tells_swapped_and_other_weights(tmp_path: Path, layout: str, kind: str, spoil: Spoil) -> None:
    made = draft(layout, sigma=0.05)
    spoil(made)
    source = draft("plain", sigma=0.05).write(tmp_path / "source")
    with core.open_model(source) as model:
        found = examined(made.write(tmp_path / "m"), against=model)
    assert kinds(found, "error") == ({kind} if kind else set()), found.findings
    assert all(one.where == (WHERE,) for one in found.findings if one.severity == "error")


def test_a_source_of_another_model_is_said_to_be_none(tmp_path: Path) -> None:
    other = draft("plain")
    other.tensors = {name.replace("layers", "blocks"): array for name, array in other.tensors.items()}
    with core.open_model(other.write(tmp_path / "source")) as model:
        found = examined(draft("modelopt").write(tmp_path / "m"), against=model)
    assert kinds(found, "error", "warning") == {"source-unlike"}


def test_closing_it_stops_it(tmp_path: Path) -> None:
    events = core.doctor(draft("modelopt").write(tmp_path / "m"))
    assert isinstance(next(events), core.Started)
    events.close()


def test_findings_are_told_as_they_are_made_and_progress_reaches_what_was_announced(
    studio: Studio, tmp_path: Path
) -> None:
    source = draft("plain").write(tmp_path / "m")
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt", "--method", "max").code == 0
    (tmp_path / "out" / "tokenizer.json").unlink()
    flip("model.safetensors")(tmp_path / "out")
    started, *events, ended = core.doctor(tmp_path / "out")
    assert isinstance(started, core.Started)
    assert isinstance(ended, core.Examined)
    made = [event.finding for event in events if isinstance(event, core.FindingMade)]
    assert {(one.kind, one.severity) for one in made} == {
        (one.kind, one.severity) for one in ended.examination.findings
    }
    assert made[-1].kind == "digest"
    done = [event.done for event in events if isinstance(event, core.Progress)]
    assert done == sorted(done)
    assert done[-1] == started.total > 0


@pytest.mark.parametrize("text", [r"re:(a+)+$", r"re:(.*)*x", r"re:.*.*.*.*.*y", r"re:(?=a)a", "re:" + "a" * 400])
def test_patterns_that_could_take_long_are_not_tried(text: str) -> None:
    matcher = Matcher("compressed-tensors", [text])
    assert matcher.unjudged == [text]
    assert matcher.entry("a" * 60) is None


def test_exclusions_match_as_their_readers_match() -> None:
    assert Matcher("compressed-tensors", ["re:.*gate$"]).entry("model.layers.0.mlp.gate")
    assert not Matcher("compressed-tensors", ["layers.0"]).entry("model.layers.0.mlp.gate")
    assert Matcher("modelopt", ["layers.1"]).entry("model.layers.10.mlp.gate")
    assert Matcher("modelopt", ["*gate"]).entry("model.layers.0.mlp.gate")
    assert Matcher("modelopt", ["language_model.model.layers.0.*"]).entry("model.language_model.layers.0.mlp")


QKV = tuple(f"model.layers.3.self_attn.{leaf}_proj" for leaf in "qkv")
GATE_UP = tuple(f"model.layers.3.mlp.{leaf}_proj" for leaf in ("gate", "up"))


@pytest.mark.parametrize(
    ("entries", "name", "joined", "excluded"),
    [
        (QKV, QKV[0], QKV, True),
        (QKV[:2], QKV[0], QKV, False),
        (["*q_proj"], QKV[0], QKV, False),
        (["*q_proj"], QKV[0], QKV[:1], True),
        (["*qkv_proj"], QKV[2], QKV, True),
        (["model.layers.3.self_attn*"], QKV[2], QKV, True),
        (["*gate_proj"], GATE_UP[0], GATE_UP, False),
        (["model.layers.3.mlp.gate"], GATE_UP[0], GATE_UP, True),
        (["model.layers.3.mlp.experts.0.up_proj"], "model.layers.3.mlp.experts.7.down_proj", (), True),
        (["model.layers.3.mlp.experts"], "model.layers.3.mlp.experts.7.down_proj", (), True),
        (["*down_proj"], "model.layers.3.mlp.experts.7.down_proj", (), False),
        ([], "model.visual.blocks.0.attn.proj", (), True),
        (["lm_head"], "model.layers.3.mlp.down_proj", (), False),
    ],
)
def test_lists_of_modelopt_are_tried_on_the_modules_of_vllm(
    entries: list[str], name: str, joined: tuple[str, ...], excluded: bool
) -> None:
    assert bool(Matcher("modelopt", entries).entry(name, joined)) is excluded


def test_a_part_of_what_vllm_joins_that_is_packed_and_listed_is_found(tmp_path: Path) -> None:
    made = draft("modelopt")
    entry(QUERY)(made)
    assert kinds(examined(made.write(tmp_path / "m")), "error") == {"excluded-packed"}
