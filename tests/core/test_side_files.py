"""Side files: what a runtime may need goes along, into folders too; the rest is named with its reason."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from studio import core
from studio.core import open_model
from tests.core.checkpoints import checkpoint, gaussian, snapshot, write_safetensors
from tests.core.conftest import Refused, Studio

_NAMES = """
tekken.json params.json SYSTEM_PROMPT.txt tiktoken.model qwen.tiktoken sentencepiece.bpe.model tokenizer.model.v3
vocab.bpe bpe.codes prophetnet.tokenizer chat_template.jinja special_tokens_map.json added_tokens.json
generation_config.json preprocessor_config.json processor_config.json video_preprocessor_config.json
audio_preprocessor_config.json feature_extractor_config.json image_processor_config.json tokenizer.jinja modules.json
config_sentence_transformers.json sentence_bert_config.json LICENSE USE_POLICY.md Notice.txt
additional_chat_templates/tool_use.jinja 1_Pooling/config.json 2_Dense/config.json query_0_Router/config.json
decoder_tokenizer/vocab.json speech_tokenizer/preprocessor_config.json
"""
TAKEN = _NAMES.split()
LEFT = {
    "modeling_x.py": "code",
    "tokenizer.pkl": "code",
    "pytorch_model.bin": "weights of another kind",
    "model.onnx_data": "weights of another kind",
    "pytorch_model.bin.index.json": "weights of another kind",
    "2_Dense/model.safetensors": "must be copied by hand",
    "README.md": "card of the source",
    "hf_quant_config.json": "left from a quantization",
    "nvfp4_studio.json": "left from a quantization",
    "SHA256SUMS": "left from a quantization",
    "journal.json": "left from a quantization",
    "recipe.yaml": "left from a quantization",
    ".gitattributes": "hidden",
    "tokenizer.json.tmp": "temporary",
    "logo.PNG": "pictures",
    "trainer_state.json": "records of training",
    "back\\slash.json": "a name that not every system can store",
    "new\nline.json": "a name that not every system can store",
    "original/consolidated.00.pth": "a folder that runtimes do not read",
    "additional_chat_templates/deeper/x.jinja": "a folder inside a folder",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = checkpoint(tmp_path / "model")
    for name in (*TAKEN, *LEFT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_whatever_a_runtime_may_need_goes_along_and_is_listed_and_verified(
    folder: Path, studio: Studio, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert studio("quantize", folder, out).code == 0
    assert all((out / name).read_bytes() == name.encode() for name in TAKEN)
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    own = {"README.md", "nvfp4_studio.json", "SHA256SUMS"}
    assert not written & set(LEFT) - own
    ran = studio("verify", out, "--source", folder)
    assert ran.code == 0
    assert "not part of the export" not in ran.err
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=out, check=True, capture_output=True)


def test_each_file_that_is_left_out_is_named_with_its_reason(folder: Path) -> None:
    with open_model(folder) as model:
        assert set(TAKEN) <= set(model.side_names)
        for name, reason in LEFT.items():
            shown = name.split("/")[0] if "folder that runtimes" in reason else name.encode("unicode_escape").decode()
            shown = shown.removesuffix("/x.jinja").replace("\\\\", "\\")
            lines = [line for line in model.warnings if reason in line]
            assert any(shown in line or "more:" in line for line in lines), (name, model.warnings)
        usual = [line for line in model.warnings if core.is_usual(line)]
        assert any("README.md" in line for line in usual)
        assert any("nvfp4_studio.json" in line for line in usual)
        assert not any("not every system" in line or "by hand" in line for line in usual)


def test_many_leftovers_of_a_kind_are_one_line_with_their_number(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    for number in range(100):
        (folder / f"consolidated.{number:02}.pth").touch()
        write_safetensors(folder / f"extra-{number:02}.safetensors", {"a": gaussian(1, 16)})
    with open_model(folder) as model:
        assert len(model.warnings) == 2
        assert "consolidated.00.pth, consolidated.01.pth, consolidated.02.pth and 97 more" in model.warnings[1]
        assert "extra-00.safetensors" in model.warnings[0]
        assert "97 more" in model.warnings[0]


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_side_file_in_a_folder_that_leads_out_is_left_out_and_named(
    tmp_path: Path, studio: Studio, whole_folder: bool
) -> None:
    folder = checkpoint(tmp_path / "model")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "id.jinja").write_text("secret")
    templates = folder / "additional_chat_templates"
    if whole_folder:
        templates.symlink_to(secret)
    else:
        templates.mkdir()
        (templates / "id.jinja").symlink_to(secret / "id.jinja")
    ran = studio("quantize", folder, tmp_path / "out")
    assert ran.code == 0
    assert "a link that leads out of the folder" in ran.err
    assert not (tmp_path / "out" / "additional_chat_templates").exists()


def test_names_that_differ_by_case_alone_are_written_once(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "vocab.txt").touch()
    (folder / "Vocab.TXT").touch()
    if len([path for path in folder.iterdir() if path.suffix.lower() == ".txt"]) < 2:
        pytest.skip("this file system does not tell case apart")
    with open_model(folder) as model:
        assert [name for name in model.side_names if name.lower() == "vocab.txt"] == ["Vocab.TXT"]
        assert any("vocab.txt: named like another but for case" in line for line in model.warnings)


def test_a_socket_of_another_program_beside_the_weights_stops_nothing(tmp_path: Path, studio: Studio) -> None:
    folder = checkpoint(tmp_path / "model")
    os.mkfifo(folder / "debug.pipe")
    ran = studio("quantize", folder, tmp_path / "out")
    assert ran.code == 0
    assert "debug.pipe: not a regular file, left out" in ran.err


def test_a_single_file_goes_with_the_config_beside_it(tmp_path: Path, studio: Studio) -> None:
    folder = checkpoint(tmp_path / "model")
    assert studio("quantize", folder / "model.safetensors", tmp_path / "out").code == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_one_shard_of_several_is_said_to_be_one(tmp_path: Path, studio: Studio) -> None:
    folder = checkpoint(tmp_path / "model", shards=2)
    assert "shard 1 of 2 alone" in studio("inspect", folder / "model-00001-of-00002.safetensors").err


@pytest.mark.parametrize("name", ["../model/config.json", "/etc/passwd", "a/../../x", "a//b", "./a", "a/", "C:a", ".."])
def test_verify_never_leaves_the_folder(tmp_path: Path, studio: Studio, name: str) -> None:
    out = tmp_path / "out"
    assert studio("quantize", checkpoint(tmp_path / "model"), out).code == 0
    with (out / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  {name}\n")
    ran = studio("verify", out)
    assert ran.code == 2
    assert "an unsafe name" in ran.err


def test_verify_notices_what_was_changed_added_or_lost_in_a_folder(tmp_path: Path, studio: Studio) -> None:
    folder, out = checkpoint(tmp_path / "model"), tmp_path / "out"
    for name in ("additional_chat_templates/tool.jinja", "1_Pooling/config.json"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("{}")
    assert studio("quantize", folder, out).code == 0
    whole = snapshot(out)
    (out / "additional_chat_templates" / "rag.jinja").write_text("added")
    (out / "stranger").mkdir()
    ran = studio("verify", out)
    assert ran.code == 0
    assert "additional_chat_templates/rag.jinja: not part of the export" in ran.err
    assert "stranger: not part of the export" in ran.err
    (out / "1_Pooling" / "model.safetensors").write_text("added")
    assert "1_Pooling/model.safetensors: is not listed" in studio("verify", out).err
    (out / "1_Pooling" / "model.safetensors").unlink()
    (out / "1_Pooling" / "config.json").write_text("{} ")
    ran = studio("verify", out)
    assert ran.code == 2
    assert "1_Pooling/config.json: damaged" in ran.err
    (out / "1_Pooling" / "config.json").unlink()
    assert "1_Pooling/config.json: missing" in studio("verify", out).err
    assert set(whole) > set(snapshot(out)) - {"additional_chat_templates/rag.jinja", "stranger"}


def test_a_name_of_a_tokenizer_that_can_not_be_read_is_refused(tmp_path: Path, refused: Refused) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "tekken.json").symlink_to("nowhere")
    refused(folder, "tekken.json", "broken or circular link")
