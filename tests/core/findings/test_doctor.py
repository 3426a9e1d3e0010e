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
from tests.core.checkpoints import BF16, INDEX, shard_name
from tests.core.conftest import Studio
from tests.core.findings.building import FP8, WHERE, Draft, draft, llama, packed

TORCH = ("modelopt", "compressed-tensors")
PACKED = (*TORCH, "mlx")
QUERY = "model.layers.1.self_attn.q_proj"


def examined(path: Path, *, quick: bool = False, against: core.Model | None = None) -> core.Examination:
    """What the doctor found."""
    *_, ended = core.doctor(path, quick=quick, against=against)
    assert isinstance(ended, core.Examined)
    return ended.examination


def kinds(found: core.Examination, *severities: str) -> set[str]:
    """The kinds of the findings of these severities."""
    return {one.kind for one in found.findings if one.severity in severities}


FOREIGN = [
    (layout, experts, inputs, sigma, shards)
    for layout in ("plain", *PACKED)
    for experts in (0, 4)
    for inputs in (False, True)
    for sigma, shards in ((0.02, 1), (0.004, 3))
    if not inputs or layout in TORCH
]


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


@pytest.mark.parametrize(("layout", "row", "experts"), OWN)
def test_exports_of_ours_have_no_finding_above_a_note(
    studio: Studio, tmp_path: Path, layout: str, row: str, experts: int
) -> None:
    source = draft("plain", experts=experts).write(tmp_path / "m")
    options = ("--layout", layout, "--format", row, "--method", "max")
    assert studio("quantize", source, tmp_path / "out", *options).code == 0
    found = examined(tmp_path / "out")
    assert not kinds(found, "error", "warning"), found.findings


Spoil = Callable[[Draft], None]


def _set(part: str, change: Callable[[Any], Any], matrix: str = WHERE) -> Spoil:
    def spoil(made: Draft) -> None:
        name = made.part(part, matrix=matrix)
        made.tensors[name] = change(made.tensors[name])

    return spoil


def _drop(*parts: str, matrix: str = WHERE) -> Spoil:
    def spoil(made: Draft) -> None:
        for part in parts:
            del made.tensors[made.part(part, matrix=matrix)]

    return spoil


def _byte(value: int, share: float = 0.01) -> Callable[[Any], Any]:
    """Some block scales made this byte."""

    def change(scales: Any) -> Any:
        spoilt = scales.view(np.uint8).copy()
        spoilt.reshape(-1)[: max(int(spoilt.size * share), 1)] = value
        return spoilt.view(scales.dtype)

    return change


def _lane_bug(made: Draft) -> None:
    weight = llama()[WHERE]
    g = float(np.abs(weight).max()) / 2688
    made.tensors |= {f"{WHERE}.{leaf}": array for leaf, array in packed(made.layout, weight, g, block=32).items()}


def _plain(matrix: str) -> Spoil:
    """A packed matrix stored plain."""

    def spoil(made: Draft) -> None:
        for name in [name for name in made.tensors if name.startswith(f"{matrix}.")]:
            del made.tensors[name]
        made.tensors[f"{matrix}.weight"] = llama()[matrix].astype(BF16)

    return spoil


def _pack(matrix: str) -> Spoil:
    """A plain matrix stored packed."""

    def spoil(made: Draft) -> None:
        weight = llama()[matrix]
        del made.tensors[f"{matrix}.weight"]
        parts = packed(made.layout, weight, float(np.abs(weight).max()) / 2688)
        made.tensors |= {f"{matrix}.{leaf}": array for leaf, array in parts.items()}

    return spoil


def _list_of(made: Draft) -> list[str]:
    listed: list[str] = made.section()["ignore"]
    return listed


def _pack_listed_head(made: Draft) -> None:
    _pack("lm_head")(made)
    _list_of(made).remove("lm_head")
    if made.beside:
        made.beside["quantization"]["exclude_modules"] = _list_of(made)


def _pack_tied_head(made: Draft) -> None:
    _pack("lm_head")(made)
    made.config["tie_word_embeddings"] = True


def _eight_bits(made: Draft) -> None:
    codes = made.tensors[made.part("codes")]
    made.tensors[made.part("codes")] = np.repeat(codes, 2, axis=1)


def _as_fp8(made: Draft) -> None:
    for name in [name for name in made.tensors if name.startswith(f"{WHERE}.")]:
        del made.tensors[name]
    made.tensors[f"{WHERE}.weight"] = (llama()[WHERE] * 100).astype(FP8)
    made.tensors[f"{WHERE}.weight_scale"] = np.array([0.01], np.float32)


def _section(**content: Any) -> Spoil:
    def spoil(made: Draft) -> None:
        made.config["quantization_config"] = content

    return spoil


def _undeclared(made: Draft) -> None:
    for key in ("quantization", "quantization_config"):
        made.config.pop(key, None)
    made.beside = {}


def _entry(text: str) -> Spoil:
    def spoil(made: Draft) -> None:
        _list_of(made).append(text)
        if made.beside:
            made.beside["quantization"]["exclude_modules"] = _list_of(made)

    return spoil


def _stale_list(made: Draft) -> None:
    _list_of(made)[:] = ["transformer.output"]
    if made.beside:
        made.beside["quantization"]["exclude_modules"] = _list_of(made)


def _no_expert_input(made: Draft) -> None:
    del made.tensors[made.part("input", matrix="model.layers.0.mlp.experts.2.up_proj")]


def _no_inputs(made: Draft) -> None:
    for name in [name for name in made.tensors if "input_" in name and "layernorm" not in name]:
        del made.tensors[name]


def _config(**values: Any) -> Spoil:
    def spoil(made: Draft) -> None:
        made.config |= values

    return spoil


def _third(value: float) -> Callable[[Any], Any]:
    return lambda stored: np.full_like(stored, value)


def _override(said: Any, path: str) -> Spoil:
    def spoil(made: Draft) -> None:
        made.config["quantization"][path] = said

    return spoil


def _global_scale(made: Draft) -> None:
    made.tensors[f"{WHERE}.global_scale"] = np.array(2688.0, np.float32)


def _no_head(made: Draft) -> None:
    del made.tensors["lm_head.weight"]


DEFECTS: list[tuple[str, tuple[str, ...], Spoil, dict[str, Any]]] = [
    ("scales-nan", PACKED, _set("scales", _byte(0x7F)), {}),
    ("scales-nan", PACKED, _set("scales", _byte(0xFF, 0)), {}),
    ("scales-negative", PACKED, _set("scales", _byte(0xB8)), {}),
    ("scales-zero", PACKED, _set("scales", _byte(0x00)), {}),
    ("scales-saturated", PACKED, _set("scales", _byte(0x7E, 0.2)), {}),
    ("lane-bug", PACKED, _lane_bug, {}),
    ("tensor-scale-missing", TORCH, _drop("third"), {}),
    ("tensor-scale-unusable", TORCH, _set("third", _third(0)), {}),
    ("tensor-scale-unusable", TORCH, _set("third", _third(-1e-5)), {}),
    ("tensor-scale-unusable", TORCH, _set("third", _third(float("nan"))), {}),
    ("tensor-scale-unusable", TORCH, _set("third", _third(float("inf"))), {}),
    ("tensor-scale-meaning", TORCH, _set("third", lambda stored: 1 / stored), {}),
    ("tensor-scale-meaning", ("modelopt",), _set("third", lambda stored: stored * np.float32(2688)), {}),
    ("tensor-scale-meaning", ("compressed-tensors",), _set("third", lambda stored: 2688 / stored), {}),
    ("fused-scales", TORCH, _set("third", lambda stored: stored * np.float32(1.25), QUERY), {}),
    ("fused-partly", TORCH, _plain(QUERY), {}),
    ("codes-without-scales", PACKED[1:], _drop("scales"), {}),
    ("scale-shape", TORCH, _set("scales", lambda scales: scales[:, :-1].copy()), {}),
    ("scale-shape", TORCH, _set("scales", lambda scales: scales[:-1].copy()), {}),
    ("claims-other-bits", TORCH, _eight_bits, {}),
    ("claims-other-bits", TORCH, _as_fp8, {}),
    ("not-excluded", TORCH, _plain(WHERE), {}),
    ("not-excluded", TORCH, lambda made: _list_of(made).remove("lm_head"), {}),
    ("excluded-packed", TORCH, _entry(WHERE), {}),
    ("excluded-packed", ("compressed-tensors",), _entry(r"re:.*layers\.1\..*o_proj$"), {}),
    ("excluded-packed", ("modelopt",), _entry("model.layers.1.*"), {}),
    ("exclusions-idle", TORCH, _stale_list, {}),
    ("exclusion-malformed", ("compressed-tensors",), _entry("re:(lm_head"), {}),
    ("section-leftover", ("plain",), _section(quant_method="compressed-tensors", config_groups={}), {}),
    ("section-leftover", ("plain",), _section(quant_method="modelopt", quant_algo="NVFP4"), {}),
    ("section-missing", PACKED, _undeclared, {}),
    ("section-contradicts", PACKED[1:], _section(quant_method="modelopt", quant_algo="NVFP4"), {}),
    ("head-untargeted", ("compressed-tensors",), _pack_listed_head, {}),
    ("head-tied-packed", PACKED, _pack_tied_head, {}),
    ("head-missing", ("plain", *PACKED), _no_head, {}),
    ("embedding-packed", TORCH, _pack("model.embed_tokens"), {}),
    ("inputs-missing", TORCH, _no_inputs, {"inputs": True}),
    ("inputs-unusable", TORCH, _set("input", _third(0)), {"inputs": True}),
    ("experts-unrouted", TORCH, _no_expert_input, {"inputs": True, "experts": 4}),
    ("mlx-tensor-scale", ("mlx",), _global_scale, {}),
    ("mlx-model-file", ("mlx",), _config(model_file="tiers.py"), {}),
    ("mlx-override", ("mlx",), _override(False, WHERE), {}),
    ("mlx-override", ("mlx",), _override({"group_size": 64, "bits": 8}, "lm_head"), {}),
    ("mlx-must-be-plain", ("mlx",), lambda made: _as_mla(made), {}),
    ("tokenizer-missing", ("plain", *PACKED), lambda made: made.files.clear(), {}),
    ("config-dtype", ("plain", *PACKED), _config(dtype="float16"), {}),
]


def _as_mla(made: Draft) -> None:
    made.config |= {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}
    for leaf in ("weight", "scales"):
        made.tensors[f"model.layers.1.self_attn.kv_b_proj.{leaf}"] = made.tensors.pop(f"{WHERE}.{leaf}")


PLANTED = [
    pytest.param(kind, layout, spoil, options, id=f"{kind}-{layout}-{number}")
    for number, (kind, layouts, spoil, options) in enumerate(DEFECTS)
    for layout in layouts
]
ALSO = {
    "embedding-packed": {"excluded-packed"},
    "exclusions-idle": {"not-excluded"},
    "fused-partly": {"not-excluded"},
    "head-tied-packed": {"excluded-packed", "head-untargeted"},
    "section-contradicts": {"claims-other-bits"},
    "tensor-scale-meaning": {"refused"},
}
"""Findings that are as true of the same folder."""


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


def _cut(folder: Path) -> None:
    path = folder / shard_name(1, 3)
    path.write_bytes(path.read_bytes()[:-100])


def _lfs(folder: Path) -> None:
    (folder / shard_name(1, 3)).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


def _index(size: int = 0, **changes: str | None) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / INDEX
        content = json.loads(path.read_text())
        content["metadata"] |= {"total_size": size} if size else {}
        for name, file in changes.items():
            if file is None:
                del content["weight_map"][name.replace("__", ".")]
            else:
                content["weight_map"][name.replace("__", ".")] = file
        path.write_text(json.dumps(content))

    return spoil


BROKEN: list[tuple[str, Callable[[Path], Any]]] = [
    ("shard-unreadable", _cut),
    ("shard-unreadable", _lfs),
    ("shard-missing", lambda folder: (folder / shard_name(1, 3)).unlink()),
    ("index-unreadable", lambda folder: (folder / INDEX).write_text("{")),
    ("index-unreadable", lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": 1}}')),
    ("index-size", _index(77)),
    ("tensor-missing", _index(lost__weight=shard_name(0, 3))),
    ("tensor-moved", _index(lm_head__weight=shard_name(0, 3))),
    ("tensor-unlisted", _index(lm_head__weight=None)),
    ("config-missing", lambda folder: (folder / "config.json").unlink()),
    ("config-unreadable", lambda folder: (folder / "config.json").write_text("{]")),
]


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


def _flip(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return spoil


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("digest", _flip("model.safetensors")),
        ("digest", _flip("config.json")),
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
    _set("scales", _byte(0x7F))(made)
    made.write(tmp_path / "m")
    assert studio("doctor", folder, "--fail-on", "never").code == 0
    ran = studio("doctor", folder, "--json", "--quiet")
    assert ran.code == 1
    events = [json.loads(line) for line in ran.out.splitlines()]
    first = next(event for event in events if event["event"] == "finding")
    assert (first["kind"], first["severity"], first["count"]) == ("scales-nan", "error", 1)
    assert first["where"] == [WHERE]


def test_quick_reads_tensor_scales_and_no_codes(tmp_path: Path) -> None:
    made = draft("modelopt")
    _set("scales", _byte(0x7F))(made)
    _set("third", _third(0))(made)
    folder = made.write(tmp_path / "m")
    assert kinds(examined(folder, quick=True), "error") == {"tensor-scale-unusable"}
    assert kinds(examined(folder), "error") == {"tensor-scale-unusable", "scales-nan"}


def test_where_is_bounded_and_counts_all(tmp_path: Path) -> None:
    made = draft("mlx")
    for name in [name for name in made.tensors if name.endswith(".scales")]:
        made.tensors[name] = _byte(0x7F)(made.tensors[name])
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


def _swap_nibbles(codes: Any) -> Any:
    pairs = codes.view(np.uint8)
    return (pairs << 4 | pairs >> 4).view(codes.dtype)


def _rows_of_another(codes: Any) -> Any:
    return codes[::-1].copy()


@pytest.mark.parametrize("layout", PACKED)
@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("", lambda _made: None),
        ("nibbles-swapped", _set("codes", _swap_nibbles)),
        ("differs-from-source", _set("codes", _rows_of_another)),
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
