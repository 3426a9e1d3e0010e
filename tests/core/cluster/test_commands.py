"""Every command that takes workers gives with them what it gives without: bytes, results, findings, refusals."""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import STORED_FORMATS
from studio import core
from studio.core.cluster import order as orders
from studio.core.exporting.verification import CheckFile
from studio.core.running import spread as spreading
from tests.core.checkpoints import CONFIG, checkpoint, llama, snapshot, tensors_of
from tests.core.conftest import Ran, Studio

pytest.importorskip("distributed")
ONE = core.Machine("cpu", threads=1)
DEEP = {**CONFIG, "num_hidden_layers": 4}
SMALL = ("--shard-size", "40K")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The scheduler of two worker processes."""
    from distributed import LocalCluster

    how = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, **how) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "SMALLEST_PART", 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("source") / "model", llama(4), DEEP, shards=3)


@pytest.fixture
def export(studio: Studio, source: Path, tmp_path: Path) -> Path:
    """An export in several shards."""
    assert studio("quantize", source, tmp_path / "export", *SMALL, "--layout", "modelopt").code == 0
    return tmp_path / "export"


def events(ran: Ran, *kinds: str) -> list[dict[str, object]]:
    found = map(json.loads, ran.out.splitlines())
    return [line for line in found if line["event"] in kinds]


def refusal(ran: Ran) -> list[str]:
    return [line for line in ran.err.splitlines() if line.startswith(("error:", "hint:"))]


def spoil(folder: Path, tensor: str, value: int = 0x55) -> None:
    """Overwrite a byte of a tensor, in whatever shard it is."""
    for path in sorted(folder.glob("*.safetensors")):
        if found := tensors_of(path).get(tensor):
            data = bytearray(path.read_bytes())
            data[found.start + found.nbytes // 2] = value
            path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("layout", "more"), [("compressed-tensors", ()), ("plain", ("--dtype", "float32")), ("mlx", ("--allow-lossy",))]
)
def test_convert(
    studio: Studio, export: Path, tmp_path: Path, address: str, layout: str, more: tuple[str, ...]
) -> None:
    how = ("--layout", layout, *more, *SMALL)
    alone = studio("convert", export, tmp_path / "alone", *how, "--json")
    spread = studio("convert", export, tmp_path / "spread", *how, "--json", f"--cluster={address}")
    assert alone.code == spread.code == 0, spread.err
    assert snapshot(tmp_path / "spread") == snapshot(tmp_path / "alone")
    by_name = [sorted(events(ran, "layer"), key=lambda line: str(line["name"])) for ran in (alone, spread)]
    assert by_name[0] == by_name[1]


def test_convert_proves_casts(studio: Studio, source: Path, tmp_path: Path, address: str) -> None:
    assert studio("quantize", source, tmp_path / "mx", "--layout", "mlx", "--format", "mxfp4", *SMALL).code == 0
    how = ("--layout", "modelopt", "--allow-lossy", *SMALL)
    alone = studio("convert", tmp_path / "mx", tmp_path / "alone", *how)
    spread = studio("convert", tmp_path / "mx", tmp_path / "spread", *how, f"--cluster={address}")
    assert alone.code == spread.code == 0, spread.err
    assert "cast exactly" in alone.out
    assert snapshot(tmp_path / "spread") == snapshot(tmp_path / "alone")


def test_convert_refuses_the_same_losses(studio: Studio, export: Path, tmp_path: Path, address: str) -> None:
    how = ("--layout", "plain", "--dtype", "float16")
    alone = studio("convert", export, tmp_path / "out", *how)
    spread = studio("convert", export, tmp_path / "out", *how, f"--cluster={address}")
    assert alone.code == spread.code == 2
    assert refusal(alone) == refusal(spread)
    assert "can not be stored without a loss" in spread.err


def test_what_one_process_writes_takes_no_workers(studio: Studio, source: Path, tmp_path: Path) -> None:
    for command in (
        ("convert", source, tmp_path / "out.gguf", "--layout", "gguf"),
        ("doctor", source, "--fix", tmp_path / "out"),
    ):
        ran = studio(*command, "--workers", 2)
        assert ran.code == 2
        assert "leave --workers and --cluster out" in ran.err


def test_verify(studio: Studio, export: Path, source: Path, address: str) -> None:
    alone = studio("verify", export, "--source", source, "--json")
    spread = studio("verify", export, "--source", source, "--json", f"--cluster={address}")
    assert alone.code == spread.code == 0, spread.err
    assert len(events(alone, "layer")) > 30
    assert events(alone, "layer", "verified", "started") == events(spread, "layer", "verified", "started")


@pytest.mark.parametrize("listed", [False, True])
def test_verify_tells_the_same_of_damage(
    studio: Studio, export: Path, source: Path, address: str, *, listed: bool
) -> None:
    for block in (1, 3):
        spoil(export, f"model.layers.{block}.mlp.up_proj.weight")
    if listed:  # digests fit what is damaged
        rewrite_sums(export)
    alone = studio("verify", export, "--source", source)
    spread = studio("verify", export, "--source", source, f"--cluster={address}")
    assert alone.code == spread.code == 2
    assert ("its squared error is" if listed else "its SHA-256 is not") in alone.err
    assert refusal(alone) == refusal(spread)


def test_verify_tells_damage_inside_layers_as_soon_as_all_digests_are_known(
    studio: Studio, export: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(export, "model.layers.0.mlp.up_proj.weight")
    rewrite_sums(export)
    begun, steps = list[CheckFile](), CheckFile.steps

    def noted(self: CheckFile, *how: Any) -> Any:
        begun.append(self)
        return steps(self, *how)

    monkeypatch.setattr(CheckFile, "steps", noted)
    ran = studio("verify", export, "--source", source, "--workers", 2)
    assert "its squared error is" in ran.err
    listed = (export / "SHA256SUMS").read_text().splitlines()
    assert sum(one.hashed for one in begun) == len(listed)
    assert len(begun) < len(listed) + len(list(export.glob("*.safetensors")))


def rewrite_sums(folder: Path) -> None:
    path = folder / "SHA256SUMS"
    names = [line.split("  ")[1] for line in path.read_text().splitlines()]
    path.write_text("".join(f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names))


def test_verify_what_others_wrote(studio: Studio, export: Path, source: Path, address: str) -> None:
    (export / "nvfp4_studio.json").unlink()
    names = (line for line in (export / "SHA256SUMS").read_text().splitlines(keepends=True))
    (export / "SHA256SUMS").write_text("".join(line for line in names if "nvfp4_studio" not in line))
    for more in ((), ("--source", source)):
        alone, spread = (studio("verify", export, *more, "--json", *how) for how in ((), (f"--cluster={address}",)))
        assert alone.code == spread.code == 0, spread.err
        assert events(alone, "layer", "verified", "started") == events(spread, "layer", "verified", "started")
    spoil(export, "model.layers.1.mlp.up_proj.weight")
    alone, spread = (studio("verify", export, *how) for how in ((), (f"--cluster={address}",)))
    assert alone.code == spread.code == 2
    assert "its SHA-256 is not the one in" in spread.err
    (export / "SHA256SUMS").unlink()
    for block in (3, 2):
        spoil(export, f"model.layers.{block}.mlp.up_proj.weight_scale", 0x7F)
    alone, spread = (studio("verify", export, *how) for how in ((), (f"--cluster={address}",)))
    assert alone.code == spread.code == 2
    assert "model.layers.2.mlp.up_proj.weight_scale are E4M3 127, which is no number" in alone.err
    assert refusal(alone) == refusal(spread)


def test_doctor(studio: Studio, export: Path, source: Path, address: str) -> None:
    sick = {name: np.full_like(array, np.nan) if "norm" in name else array for name, array in llama(2).items()}
    bad = checkpoint(export.parent / "bad", sick, shards=2)
    spoil(export, "model.layers.1.mlp.up_proj.weight")
    for folder in (export, bad):
        alone, spread = (
            studio("doctor", folder, "--source", source, "--json", *how) for how in ((), (f"--cluster={address}",))
        )
        assert alone.code == spread.code == 1, spread.err
        assert events(alone, "finding", "started") == events(spread, "finding", "started")
        found = [line for line in alone.err.splitlines() if line.startswith("found:")]
        assert found == [line for line in spread.err.splitlines() if line.startswith("found:")]
        assert found


def test_what_is_decided_arrives_as_it_was(source: Path) -> None:
    with core.open_model(source) as model:
        choices = list(core.resolve(core.preset("linear"), model))
        numbered = [
            replace(
                choice, multipliers=(0.1, 2.5e-8), input_scales=(3.0,), reason="as \udcff it was", rounds_inputs=True
            )
            for choice in choices
        ]
        for told in (choices, numbered):
            assert list(orders._unpacked(orders._packed(told), model)) == told
        assert all(choice.recipe is None or choice.recipe.format.name in STORED_FORMATS for choice in choices)
        with pytest.raises(core.PlanError, match="elsewhere 1"):
            list(orders._unpacked(orders._packed(choices[:1]), model))


def test_orders_are_those_of_one_run(source: Path) -> None:
    with core.open_model(source) as model:
        one, other = (core.proof_order(model, ONE) for _ in range(2))
    assert one != other
    assert core.verify_order(source, ONE) != core.verify_order(source, ONE)
    assert core.doctor_order(source, ONE) != core.doctor_order(source, ONE)
