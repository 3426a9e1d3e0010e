"""verify finds every flipped bit, every missing file and every untrue error."""

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from studio import core
from tests.core.checkpoints import checkpoint, gaussian, llama
from tests.core.conftest import Studio

FLIPS = 300
CHANGES = 150


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", llama(1))


@pytest.fixture
def export(studio: Studio, source: Path, tmp_path: Path) -> Path:
    assert studio("quantize", source, tmp_path / "out", "--shard-size", "30k", "--layout", "modelopt").code == 0
    return tmp_path / "out"


def damaged(engine: core.Engine, folder: Path) -> bool:
    try:
        for _ in core.verify(engine, folder):
            pass
    except core.CheckpointError:
        return True
    return False


def test_every_flipped_bit_is_found(export: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - places to damage, no secret
    files = sorted(path for path in export.iterdir())
    with core.start(core.Machine(threads=1)) as engine:
        assert not damaged(engine, export)
        for _ in range(FLIPS):
            path = chance.choices(files, [file.stat().st_size + 200 for file in files])[0]
            content = bytearray(path.read_bytes())
            bit = chance.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
            good = path.read_bytes()
            path.write_bytes(content)
            assert damaged(engine, export), f"{path.name}, bit {bit}"
            path.write_bytes(good)
        assert not damaged(engine, export)


def test_a_missing_file_is_named(studio: Studio, export: Path) -> None:
    for path in sorted(export.iterdir()):
        content = path.read_bytes()
        path.unlink()
        ran = studio("verify", export)
        assert ran.code == 2
        assert path.name in ran.err
        path.write_bytes(content)


def test_a_file_too_many_is_only_told(studio: Studio, export: Path) -> None:
    (export / "notes.txt").write_text("mine")
    ran = studio("verify", export)
    assert ran.code == 0
    assert "notes.txt" in ran.err


def test_another_source_is_told_apart(studio: Studio, export: Path, tmp_path: Path) -> None:
    tensors = dict(llama(1))
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = gaussian(*tensors[name].shape, seed=77)
    ran = studio("verify", export, "--source", checkpoint(tmp_path / "other", tensors))
    assert ran.code == 2
    assert "up_proj" in ran.err
    ran = studio("verify", export, "--source", checkpoint(tmp_path / "short", {name: tensors[name]}))
    assert ran.code == 2
    assert "was not made from short" in ran.err


def test_an_error_that_was_prettied_up_is_found(studio: Studio, export: Path, source: Path) -> None:
    path = export / "nvfp4_studio.json"
    manifest = json.loads(path.read_text())
    layer = next(layer for layer in manifest["layers"] if layer["format"] != "keep")
    layer["sum_error"] *= 0.9
    path.write_text(json.dumps(manifest))
    sums = (export / "SHA256SUMS").read_text().splitlines()
    digest = sha256(path.read_bytes()).hexdigest()
    lines = [f"{digest}  {path.name}" if line.endswith(path.name) else line for line in sums]
    (export / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    assert studio("verify", export).code == 0
    ran = studio("verify", export, "--source", source)
    assert ran.code == 2
    assert layer["name"] in ran.err


def with_sums(export: Path, lines: list[str]) -> Path:
    (export / "SHA256SUMS").write_text("".join(f"{line}\n" for line in lines))
    return export


def sum_lines(export: Path) -> list[str]:
    return (export / "SHA256SUMS").read_text().splitlines()


def test_a_digest_that_is_missing_or_given_twice_is_found(studio: Studio, export: Path) -> None:
    lines = sum_lines(export)
    loaded = [line for line in lines if line.endswith((".safetensors", "config.json", "index.json", "studio.json"))]
    assert len(loaded) > 4
    for line in loaded:
        name = line.split("  ")[1]
        ran = studio("verify", with_sums(export, [other for other in lines if other != line]))
        assert ran.code == 2
        assert name in ran.err
        ran = studio("verify", with_sums(export, [*lines, f"{'0' * 64}  {name}"]))
        assert ran.code == 2
        assert "twice" in ran.err
    assert studio("verify", with_sums(export, lines)).code == 0


def test_a_stray_shard_that_a_runtime_would_load_is_refused(studio: Studio, export: Path) -> None:
    shutil.copy(next(export.glob("*.safetensors")), export / "model-extra.safetensors")
    ran = studio("verify", export)
    assert ran.code == 2
    assert "model-extra.safetensors" in ran.err


def places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The paths to everything in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


ODD = [None, -1, 0, 10**18, 1.5, True, "", "keep", "mxfp4", "../x", [], [1], {}, {"a": 1}, [[]]]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("layout", list(core.LAYOUTS))
def test_a_hostile_manifest_is_refused_or_harmless(studio: Studio, source: Path, tmp_path: Path, layout: str) -> None:
    export = tmp_path / layout
    assert studio("quantize", source, export, "--layout", layout).code == 0
    path, lines, chance = export / "nvfp4_studio.json", sum_lines(export), random.Random(3)  # noqa: S311
    good = json.loads(path.read_text())
    everything = list(places(good))
    with core.open_model(source) as model, core.start(core.Machine(threads=1)) as engine:
        for _ in range(CHANGES):
            manifest = json.loads(json.dumps(good))
            *parents, last = chance.choice(everything[1:])
            place = manifest
            for key in parents:
                place = place[key]
            place[last] = chance.choice(ODD)
            path.write_text(json.dumps(manifest))
            digest = sha256(path.read_bytes()).hexdigest()
            with_sums(export, [f"{digest}  {path.name}" if line.endswith(path.name) else line for line in lines])
            for origin in (None, model):
                try:
                    outcome = list(core.verify(engine, export, origin))[-1].outcome  # type: ignore[union-attr]
                except core.CheckpointError:
                    continue
                json.dumps([outcome.summary(), *(layer.to_json() for layer in outcome.layers)])


@pytest.mark.parametrize("kind", ["nothing", "empty", "sums", "manifest"])
def test_what_is_no_whole_export_of_ours_is_refused(studio: Studio, export: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()
    place = {"nothing": tmp_path / "nowhere", "empty": tmp_path / "empty"}.get(kind, export)
    with suppress(FileNotFoundError):
        (place / {"sums": "SHA256SUMS", "manifest": "nvfp4_studio.json"}.get(kind, "none")).unlink()
    assert studio("verify", place).code == 2


def test_the_digests_are_those_of_the_usual_tool(export: Path) -> None:
    for line in (export / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256((export / name).read_bytes()).hexdigest() == digest
    shutil.rmtree(export)
