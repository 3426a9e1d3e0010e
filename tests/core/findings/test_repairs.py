"""A repaired copy no longer shows what is mended for certain, holds all else as it was, and is whole or absent."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio import core
from studio.core.exporting.contents import MANIFEST, SUMS, read_sums
from studio.core.findings.kinds import KINDS
from studio.core.findings.repairs.table import REPAIRS
from tests.core.checkpoints import INDEX, shard_name, tensors_of
from tests.core.conftest import Studio
from tests.core.findings.building import WHERE, Draft, draft
from tests.core.findings.defects import BROKEN, DEFECTS, Spoil, entry, flip, set_part, swap_nibbles, third
from tests.core.findings.examining import examined, kinds

MENDED = {kind for found in REPAIRS.values() for kind in found}


def repaired(path: Path, target: Path, against: core.Model | None = None) -> core.Repaired:
    """What the repair tells at its end."""
    with core.start(core.Machine("cpu", 2)) as engine:
        *_, ended = core.repair(engine, path, target, against=against)
    assert isinstance(ended, core.Repaired)
    return ended


def arrays(path: Path) -> dict[str, Any]:
    """The tensors of a file: numbers where they are float32, otherwise bytes, in their shapes."""
    raw = np.fromfile(path, np.uint8)
    return {
        name: raw[x.start : x.start + x.nbytes].view(np.float32 if x.dtype == "F32" else np.uint8)
        for name, x in tensors_of(path).items()
    }


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_kind_with_a_repair_says_so_and_no_other() -> None:
    assert {name for name, row in KINDS.items() if row.repair} == MENDED
    assert all(kind in KINDS for kind in MENDED)


LEFT = {("weights-zero", "plain"), ("document-unreadable", "plain")}
"""Weights that are not packed are not written anew, and what the source has not is not taken from it."""

PLANTED = [
    pytest.param(kind, layout, spoil, options, id=f"{kind}-{layout}-{number}")
    for number, (kind, layouts, spoil, options) in enumerate(DEFECTS)
    for layout in layouts
    if kind in MENDED and (kind, layout) not in LEFT
]


@pytest.mark.sampled(17)
@pytest.mark.parametrize(("kind", "layout", "spoil", "options"), PLANTED)
def test_the_copy_no_longer_shows_it_and_the_folder_is_as_it_was(
    tmp_path: Path, kind: str, layout: str, spoil: Spoil, options: dict[str, Any]
) -> None:
    made = draft(layout, **options)
    good = draft("plain", **{name: value for name, value in options.items() if name == "experts"})
    source = good.write(tmp_path / "source")
    spoil(made)
    folder = made.write(tmp_path / "m")
    before = digests(folder)
    with core.open_model(source) as model:
        ended = repaired(folder, tmp_path / "out", model)
        assert digests(folder) == before
        assert kind in {one.kind for one in ended.repairs}
        found = examined(tmp_path / "out", against=model)
    assert sorted(found.findings, key=str) == sorted(ended.after.findings, key=str)
    assert kind not in kinds(found, "error", "warning", "note"), found.findings
    assert not kinds(found, "error"), found.findings
    with core.open_model(tmp_path / "out") as model:
        assert not model.quantized_by


@pytest.mark.proof
@pytest.mark.parametrize("layout", ["plain", "modelopt"])
@pytest.mark.parametrize(("kind", "spoil"), [row for row in BROKEN if row[0] in MENDED and "format" not in row[0]])
def test_indexes_are_written_anew_beside_shards_that_are_the_same(
    tmp_path: Path, kind: str, spoil: Any, layout: str
) -> None:
    folder = draft(layout, shards=3).write(tmp_path / "m")
    good = json.loads((folder / INDEX).read_text())
    spoil(folder)
    assert kind in {one.kind for one in repaired(folder, tmp_path / "out").repairs}
    assert not kinds(examined(tmp_path / "out"), "error", "warning")
    assert json.loads((tmp_path / "out" / INDEX).read_text()) == good
    ours, theirs = digests(tmp_path / "out"), digests(folder)
    changed = {INDEX, shard_name(2, 3)} if kind == "tensor-twice" else {INDEX}
    assert {name for name in theirs if ours.get(name) != theirs[name]} == changed


@pytest.mark.parametrize("spoil", [row[1] for row in BROKEN if row[0] == "metadata-format"])
def test_headers_gain_their_format_and_tensors_keep_their_bytes(tmp_path: Path, spoil: Any) -> None:
    made = draft("modelopt", shards=3)
    folder = made.write(tmp_path / "m")
    spoil(folder)
    repaired(folder, tmp_path / "out")
    assert not kinds(examined(tmp_path / "out"), "error", "warning")
    for number in range(3):
        for name, array in arrays(tmp_path / "out" / shard_name(number, 3)).items():
            assert array.tobytes() == made.tensors[name].tobytes()


def test_an_index_is_not_written_anew_where_that_would_hide_what_is_missing(tmp_path: Path) -> None:
    folder = draft("plain", shards=3).write(tmp_path / "m")
    content = json.loads((folder / INDEX).read_text())
    content["weight_map"]["lost.weight"] = shard_name(0, 3)
    content["metadata"]["total_size"] = 77
    (folder / INDEX).write_text(json.dumps(content))
    ended = repaired(folder, tmp_path / "out")
    assert (ended.target, ended.repairs) == (None, ())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("modelopt", lambda stored: 1 / stored),
        ("modelopt", lambda stored: stored * np.float32(2688)),
        ("compressed-tensors", lambda stored: 1 / stored),
        ("compressed-tensors", lambda stored: 2688 / stored),
    ],
)
def test_converted_tensor_scales_are_those_that_were_meant(tmp_path: Path, layout: str, change: Any) -> None:
    made = draft(layout)
    name = made.part("third")
    right = made.tensors[name].copy()
    made.tensors[name] = change(right)
    repaired(made.write(tmp_path / "m"), tmp_path / "out")
    stored = arrays(tmp_path / "out" / "model.safetensors")
    np.testing.assert_allclose(stored.pop(name), right.reshape(-1), rtol=2e-7)
    assert all(array.tobytes() == made.tensors[other].tobytes() for other, array in stored.items())


@pytest.mark.sampled(3)
@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors", "mlx"])
def test_swapped_codes_are_those_of_before(tmp_path: Path, layout: str) -> None:
    made = draft(layout, sigma=0.05)
    name = made.part("codes")
    right = made.tensors[name].copy()
    set_part("codes", swap_nibbles)(made)
    with core.open_model(draft("plain", sigma=0.05).write(tmp_path / "source")) as model:
        repaired(made.write(tmp_path / "m"), tmp_path / "out", model)
    assert arrays(tmp_path / "out" / "model.safetensors")[name].tobytes() == right.tobytes()


def test_swapped_stacks_of_experts_are_those_of_before(studio: Studio, tmp_path: Path) -> None:
    source = draft("plain", experts=4).write(tmp_path / "source")
    assert studio("quantize", source, tmp_path / "m", "--layout", "mlx", "--method", "max").code == 0
    path, name = tmp_path / "m" / "model.safetensors", "model.layers.1.mlp.switch_mlp.down_proj.weight"
    right, raw, place = path.read_bytes(), bytearray(path.read_bytes()), tensors_of(path)[name]
    raw[place.start : place.start + place.nbytes] = swap_nibbles(
        np.frombuffer(right, np.uint8, place.nbytes, place.start)
    ).tobytes()
    path.write_bytes(raw)
    (tmp_path / "m" / SUMS).unlink()
    with core.open_model(source) as model:
        ended = repaired(tmp_path / "m", tmp_path / "out", model)
    assert [(one.kind, one.where) for one in ended.repairs] == [("nibbles-swapped", (name.removesuffix(".weight"),))]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == right


@pytest.mark.sampled(2)
@pytest.mark.parametrize("row", ["nvfp4-2t", "nvfp4-3t"])
def test_stacks_of_experts_are_quantized_again_as_they_were(studio: Studio, tmp_path: Path, row: str) -> None:
    source = draft("plain", experts=4).write(tmp_path / "source")
    options = ("--layout", "mlx", "--format", row, "--method", "search")
    assert studio("quantize", source, tmp_path / "m", *options).code == 0
    path, module = tmp_path / "m" / "model.safetensors", "model.layers.1.mlp.switch_mlp.down_proj"
    right = path.read_bytes()
    place, raw = tensors_of(path)[f"{module}.scales"], bytearray(right)
    raw[place.start + place.nbytes // 2 : place.start + place.nbytes // 2 + 30] = b"\x7f" * 30
    path.write_bytes(raw)
    (tmp_path / "m" / SUMS).unlink()
    assert repaired(tmp_path / "m", tmp_path / "out").target is None
    with core.open_model(source) as model:
        ended = repaired(tmp_path / "m", tmp_path / "out", model)
    assert [(one.kind, one.where) for one in ended.repairs] == [("scales-nan", (module,))]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == right


def _broken_scales(made: Draft) -> None:
    name = made.part("scales")
    spoilt = made.tensors[name].view(np.uint8).copy()
    spoilt[5, :3] = 0x7F
    made.tensors[name] = spoilt.view(made.tensors[name].dtype)


def test_weights_are_quantized_again_only_from_the_source(tmp_path: Path) -> None:
    made = draft("modelopt")
    _broken_scales(made)
    folder = made.write(tmp_path / "m")
    assert repaired(folder, tmp_path / "out").target is None
    other = draft("plain")
    other.tensors = {name: array[::-1].copy() for name, array in other.tensors.items()}
    with core.open_model(other.write(tmp_path / "other")) as model:
        assert repaired(folder, tmp_path / "out", model).target is None
    with core.open_model(draft("plain").write(tmp_path / "source")) as model:
        ended = repaired(folder, tmp_path / "out", model)
        assert [one.kind for one in ended.repairs] == ["scales-nan"]
        with core.open_model(tmp_path / "out") as mended:
            mine, theirs = mended.by_name[WHERE], model.by_name[WHERE]
            a, b = (x.source.rows(x.matrices[0], 0, 256).astype(np.float64) for x in (mine, theirs))
    assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(b)


def test_what_runtimes_join_is_quantized_again_together(tmp_path: Path) -> None:
    made = draft("modelopt")
    query, key = (f"model.layers.1.self_attn.{leaf}_proj" for leaf in "qk")
    set_part("third", lambda stored: stored * np.float32(1.25), query)(made)
    with core.open_model(draft("plain").write(tmp_path / "source")) as model:
        repaired(made.write(tmp_path / "m"), tmp_path / "out", model)
    stored = arrays(tmp_path / "out" / "model.safetensors")
    assert stored[f"{query}.weight_scale_2"] == stored[f"{key}.weight_scale_2"]


def test_lists_keep_their_entries_and_gain_what_is_missing(tmp_path: Path) -> None:
    made = draft("compressed-tensors")
    made.section()["ignore"].remove("lm_head")
    entry(r"re:.*layers\.1\..*o_proj$")(made)
    entry("re:.*vision.*")(made)
    repaired(made.write(tmp_path / "m"), tmp_path / "out")
    section = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert section["ignore"] == ["re:.*vision.*", "lm_head"]
    assert {**section, "ignore": []} == {**made.section(), "ignore": []}


def _export(studio: Studio, tmp_path: Path) -> Path:
    source = draft("plain").write(tmp_path / "source")
    assert studio("quantize", source, tmp_path / "m", "--layout", "modelopt", "--method", "max").code == 0
    return tmp_path / "m"


def test_digests_follow_what_was_changed_and_nothing_else(studio: Studio, tmp_path: Path) -> None:
    folder = _export(studio, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float16"
    (folder / "config.json").write_text(json.dumps(config))
    flip("README.md")(folder)
    ended = repaired(folder, tmp_path / "out")
    assert {one.kind for one in ended.repairs} == {"config-dtype"}
    assert [(one.kind, one.where) for one in ended.after.findings if one.severity == "error"] == [
        ("digest", ("README.md",))
    ]
    assert (tmp_path / "out" / MANIFEST).read_bytes() == (folder / MANIFEST).read_bytes()
    listed = read_sums(tmp_path / "out" / SUMS, (tmp_path / "out" / SUMS).read_bytes())
    there = digests(tmp_path / "out")
    assert {name for name, digest in listed.items() if there[name] != digest} == {"README.md"}


def test_a_file_that_is_damaged_somewhere_is_not_mended(studio: Studio, tmp_path: Path) -> None:
    folder = _export(studio, tmp_path)
    flip("model.safetensors")(folder)
    with core.open_model(tmp_path / "source") as model:
        ended = repaired(folder, tmp_path / "out", model)
    assert ended.target is None


def test_a_manifest_that_tells_of_other_bytes_stays_behind(studio: Studio, tmp_path: Path) -> None:
    folder = _export(studio, tmp_path)
    stored = arrays(folder / "model.safetensors")
    (folder / SUMS).unlink()
    raw = (folder / "model.safetensors").read_bytes()
    scale = stored[f"{WHERE}.weight_scale_2"].tobytes()
    assert raw.count(scale) == 1
    (folder / "model.safetensors").write_bytes(raw.replace(scale, (1 / stored[f"{WHERE}.weight_scale_2"]).tobytes()))
    ended = repaired(folder, tmp_path / "out")
    assert ended.left_out == (f"{MANIFEST}: it tells of other bytes",)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_everything_beside_the_weights_goes_along_and_what_does_not_is_named(tmp_path: Path) -> None:
    folder = draft("modelopt").write(tmp_path / "m")
    _undo_section(folder)
    (folder / "extra").mkdir()
    (folder / "extra" / "notes.txt").write_text("notes")
    (folder / ".hidden").write_text("x")
    (folder / "away").symlink_to(tmp_path)
    ended = repaired(folder, tmp_path / "out")
    assert (tmp_path / "out" / "extra" / "notes.txt").read_text() == "notes"
    assert ended.left_out == (".hidden: hidden or temporary", "away: a link that leads out of the folder")


def _undo_section(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "hf_quant_config.json").unlink()


def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    folder = draft("modelopt").write(tmp_path / "m")
    _undo_section(folder)
    with core.start(core.Machine("cpu", 2)) as engine:
        events = core.repair(engine, folder, tmp_path / "out")
        for event in events:
            if isinstance(event, core.Progress) and event.phase == "repair":
                break
        events.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_a_target_that_is_not_empty_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = draft("modelopt").write(tmp_path / "m")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with core.start(core.Machine("cpu", 1)) as engine, pytest.raises(core.ExportError, match="not empty"):
        next(iter(core.repair(engine, folder, tmp_path / "out")))
    with core.start(core.Machine("cpu", 1)) as engine, pytest.raises(core.ExportError, match="same folder"):
        next(iter(core.repair(engine, folder, folder)))


def test_the_command_line_mends_and_tells_what_is_left(studio: Studio, tmp_path: Path) -> None:
    made = draft("modelopt")
    set_part("third", third(0))(made)
    made.section()["ignore"].clear()
    folder = made.write(tmp_path / "m")
    ran = studio("doctor", folder, "--fix", tmp_path / "out")
    assert ran.code == 1
    assert "mended: not-excluded: the list corrected" in ran.out
    assert "error: tensor-scale-unusable" in ran.out
    assert "error: not-excluded" not in ran.out
    source = draft("plain").write(tmp_path / "source")
    ran = studio("doctor", folder, "--fix", tmp_path / "all", "--source", source, "--json", "--quiet")
    assert ran.code == 0
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert {event["kind"] for event in events if event["event"] == "repair"} == {
        "not-excluded",
        "tensor-scale-unusable",
    }
    assert next(event for event in events if event["event"] == "repaired")["path"] == str(tmp_path / "all")
    ran = studio("doctor", tmp_path / "all", "--fix", tmp_path / "again")
    assert ran.code == 0
    assert "Nothing can be mended for certain" in ran.out
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("row", ["nvfp4-2t", "nvfp4-3t"])
def test_exports_for_mlx_get_the_section_back_that_they_had(studio: Studio, tmp_path: Path, row: str) -> None:
    folder = tmp_path / "m"
    assert studio("quantize", core.demo_checkpoint(), folder, "--layout", "mlx", "--format", row).code == 0
    config = json.loads((folder / "config.json").read_text())
    bare = {name: value for name, value in config.items() if not name.startswith("quantization")}
    (folder / "config.json").write_text(json.dumps(bare))
    for name in (MANIFEST, SUMS):
        (folder / name).unlink()
    assert "section-missing" in {one.kind for one in repaired(folder, tmp_path / "out").repairs}
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == config
