"""What may be published: a whole, finished export and nothing beside it; what an evaluation found goes along."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from studio import core
from studio.core.publishing import publish as publishing
from tests.core.conftest import Studio
from tests.core.publishing.hub import Hub
from tests.core.publishing.test_publishing import URL, pytestmark, run

__all__ = ["pytestmark"]


def refused(folder: Path, *words: str, **how: object) -> None:
    with pytest.raises(core.StudioError) as caught:
        core.publication(folder, URL, **how)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)
    assert caught.value.hint


def first_shard(export: Path) -> Path:
    return next(iter(sorted(export.glob("*.safetensors"))))


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no folder of an export")
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "holds no nvfp4_studio.json")


def test_an_export_that_is_not_finished_is_refused(export: Path) -> None:
    partial = export.rename(export.with_name("export.partial"))
    (partial / "journal.json").write_text(json.dumps({"identity": {}}))
    refused(partial, "not finished")
    (partial / "SHA256SUMS").unlink()
    refused(partial.rename(export), "holds no SHA256SUMS")


def test_files_that_are_missing_or_changed_are_refused(export: Path) -> None:
    config = export / "config.json"
    text = config.read_text()
    config.write_text(text + " ")
    refused(export, "config.json", "was changed since it was exported")
    config.write_text(text)
    shard = first_shard(export)
    with shard.open("ab") as file:
        file.write(b"x")
    refused(export, shard.name, "was changed")
    shard.unlink()
    refused(export, shard.name, "missing")


def test_a_flipped_bit_is_found_before_anything_is_sent(hub: Hub, export: Path) -> None:
    shard = first_shard(export)
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(core.ExportError, match="its SHA-256 is not the one in SHA256SUMS"):
        run(export)
    assert len(hub.repos["me/small"].commits) == 1


@pytest.mark.parametrize("inside", [True, False])
def test_links_are_refused(export: Path, inside: bool) -> None:
    shard = first_shard(export)
    real = (export if inside else export.parent) / "real.bin"
    shard.rename(real)
    shard.symlink_to(real)
    refused(export, shard.name, "a link")


def test_names_that_lead_out_are_refused(export: Path) -> None:
    sums = export / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  ../secret\n")
    refused(export, "an unsafe name")
    sums.write_text(sums.read_text().replace("../secret", ".git/hook"))
    (export / ".git").mkdir()
    (export / ".git" / "hook").write_text("")
    refused(export, "no repository takes")


def test_weights_beside_the_export_are_refused_and_other_files_stay_behind(
    studio: Studio, hub: Hub, export: Path
) -> None:
    (export / "notes.txt").write_text("mine")
    ran = studio("publish", export, URL, "--dry-run")
    assert "Stays behind: notes.txt" in ran.out
    assert studio("publish", export, URL).code == 0
    assert "notes.txt" not in hub.repos["me/small"].files
    os.link(first_shard(export), export / "more.safetensors")
    with pytest.raises(core.CheckpointError, match="would be loaded"):
        core.publication(export, URL)


def test_names_of_repositories_are_checked(export: Path) -> None:
    for url in ("https://example.org/x", "hf://me", "hf://me/a/folder", "hf://me/a@branch", "me/small"):
        with pytest.raises(core.CheckpointError, match=r"no (name of a )?repository"):
            core.publication(export, url)
    for base in ("base", "a/b/c", "../b", "a/b\n"):
        refused(export, "no name of a repository", base_model=base)


def test_what_an_evaluation_found_is_in_the_card(hub: Hub, export: Path) -> None:
    quality = evaluation("model")
    run(export, quality=quality)
    card = hub.repos["me/small"].files["README.md"].decode()
    assert "| model | nvfp4-3t |" in card
    assert card.index("## What it costs in tokens") < card.index("| role | format |")
    run(export, quality=evaluation("model", kl=0.25), overwrite=True)
    again = hub.repos["me/small"].files["README.md"].decode()
    assert again.count("## What it costs in tokens") == 1
    assert "0.2500" in again
    refused(export, "the evaluation is of other", quality=evaluation("other"))
    refused(export, "has no row for nvfp4-3t", quality=evaluation("model", format_="mxfp4"))


def evaluation(name: str, kl: float = 0.5, format_: str = "nvfp4-3t") -> core.Quality:
    from dataclasses import replace

    from studio.core.quality.results import Text

    rows = core.Evaluated(name, "", "", "", 10, 1.0, core.Estimate(5.0, 0.1))
    methods = "importance, search"
    row = replace(rows, format=format_, method=methods, kl=core.Estimate(kl, 0.01))
    return core.Quality((row,), rows, Text("text", "0" * 64, 2, 5, 0), "transformers", "5", 1.0)


def test_many_files_come_in_several_commits_config_last(
    hub: Hub, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "MOST", 2)
    run(export)
    commits = hub.repos["me/small"].commits
    added = [after.keys() - before.keys() for before, after in pairwise(commits)]
    assert len(added) == -(-len(list(export.iterdir())) // 2)
    assert all(name.endswith(".safetensors") for name in added[0])
    assert "config.json" in added[-1]
