"""Roles and joined matrices of real tensor names: names.tsv is the truth, the table must agree with it."""

import csv
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from studio import core
from studio.core.architectures import base_name, block_count, family_of, fused_group, is_known, role
from studio.core.architectures.generic import GENERIC
from studio.core.architectures.naming import fused_leaves

BLOCK = "model.layers.0"


@dataclass(frozen=True)
class Row:
    """A line of names.tsv."""

    config: dict[str, Any]
    tensor: str
    shape: tuple[int, ...]
    role: str
    fused: frozenset[str]

    @property
    def place(self) -> tuple[str, str]:
        """Model and parent, the same in all blocks."""
        return self.config["model_type"], re.sub(r"\d+", "0", base_name(self.tensor).rpartition(".")[0])

    @property
    def leaf(self) -> str:
        return base_name(self.tensor).rpartition(".")[2]


def rows() -> Iterator[Row]:
    with (Path(__file__).parent / "names.tsv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            config: dict[str, Any] = {"model_type": line["model_type"]}
            if found := re.search(r"architectures=(\w+)", line["note"]):
                config["architectures"] = [found[1]]
            if found := re.search(r"num_hidden_layers=(\d+)", line["note"]):
                config["num_hidden_layers"] = int(found[1])
            shape = tuple(int(size) for size in line["shape"].split("x") if size)
            yield Row(config, line["tensor"], shape, line["role"], frozenset(line["fused"].split(",")) - {""})


ROWS = tuple(rows())


def test_every_tensor_has_the_right_role() -> None:
    wrong = []
    for row in ROWS:
        found = role(row.tensor, row.shape, family_of(row.config), block_count(row.config))
        if found != row.role:
            wrong.append(f"{row.config['model_type']}: {row.tensor} {list(row.shape)} is {row.role}, not {found}")
    assert not wrong, "\n".join(wrong)


def test_every_matrix_is_joined_with_the_right_ones() -> None:
    """Where the truth names none, members that the model does not have do no harm."""
    beside = defaultdict(set)
    for row in ROWS:
        beside[row.place].add(row.leaf)
    wrong = []
    for row in ROWS:
        if row.role not in ("linear", "expert"):
            continue
        known = beside[row.place] | row.fused | {row.leaf}
        found = set(fused_leaves(base_name(row.tensor), family_of(row.config))) & known
        if found != row.fused and (row.fused or found & beside[row.place] - {row.leaf}):
            wrong.append(f"{row.config['model_type']}: {row.tensor} with {sorted(row.fused)}, not {sorted(found)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("afmoe", f"{BLOCK}.self_attn.gate_proj"),
        ("whisper", "model.decoder.layers.0.encoder_attn.q_proj"),
        ("dia", "model.decoder.layers.0.cross_attention.q_proj"),
        ("t5", "decoder.block.0.layer.1.EncDecAttention.q"),
        ("rwkv", "rwkv.blocks.0.attention.key"),
        ("rwkv7", "model.layers.0.attn.v_proj"),
        ("xlstm", "backbone.blocks.0.mlstm_layer.q"),
        ("", f"{BLOCK}.mlp.down_proj"),
        ("deepseek_v3", f"{BLOCK}.self_attn.kv_b_proj"),
    ],
)
def test_what_no_runtime_joins_stands_alone(kind: str, name: str) -> None:
    assert fused_group(name, family_of({"model_type": kind})) == ""


def groups(kind: str, *names: str) -> set[str]:
    return {fused_group(f"{BLOCK}.{name}", family_of({"model_type": kind})) for name in names}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        ("", ("self_attn.q_proj.base_layer", "self_attn.k_proj")),
        ("", ("mlp.experts.1.gate_proj", "mlp.experts.1.up_proj")),
        ("", ("block_sparse_moe.experts.1.w1", "block_sparse_moe.experts.1.w3")),
        ("", ("encoder_attn.k_proj", "encoder_attn.v_proj")),
        ("", ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa")),
        ("qwen", ("mlp.w1", "mlp.w2")),
        ("deepseek_v4", ("attn.wq_a", "attn.wkv")),
        ("deepseek_v4", ("attn.compressor.wkv", "attn.compressor.wgate")),
        ("minimax_m3_vl", ("self_attn.q_proj", "self_attn.index_k_proj")),
    ],
)
def test_what_a_runtime_joins_has_one_group(kind: str, names: tuple[str, ...]) -> None:
    (group,) = groups(kind, *names)
    assert group


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("", ("mlp.experts.1.gate_proj", "mlp.experts.2.gate_proj")),
        ("", ("self_attn.q_proj", "cross_attn.q_proj")),
        ("qwen", ("mlp.w1", "mlp.w3")),
        ("deepseek_v4", ("attn.wkv", "attn.compressor.wkv")),
        ("grovemoe", ("mlp.experts.0.gate_proj", "mlp.chunk_experts.0.gate_proj")),
    ],
)
def test_other_matrices_have_groups_of_their_own(kind: str, names: tuple[str, ...]) -> None:
    assert len(groups(kind, *names)) == len(names)


@pytest.mark.parametrize(
    ("tensor", "shape", "wanted"),
    [
        ("model.embed_tokens.weight", (96, 64), "embedding"),
        ("lm_head.weight", (96, 64), "head"),
        (f"{BLOCK}.self_attn.q_proj.weight", (64, 64), "linear"),
        (f"{BLOCK}.self_attn.q_proj.bias", (64,), "other"),
        (f"{BLOCK}.attention.output.weight", (64, 64), "linear"),
        (f"{BLOCK}.mlp.gate.weight", (8, 64), "router"),
        (f"{BLOCK}.mlp.router.classifier.weight", (8, 64), "router"),
        (f"{BLOCK}.mlp.gate_proj.weight", (128, 64), "linear"),
        (f"{BLOCK}.mlp.shared_expert_gate.weight", (1, 64), "gate"),
        (f"{BLOCK}.mlp.experts.7.w1.weight", (128, 64), "expert"),
        (f"{BLOCK}.mlp.experts.7.gate.weight", (128, 64), "expert"),
        (f"{BLOCK}.mlp.experts.gate_up_proj", (8, 128, 64), "expert"),
        (f"{BLOCK}.mlp.strange_stack", (8, 128, 64), "other"),
        (f"{BLOCK}.linear_attn.conv1d.weight", (64, 1, 4), "gate"),
        (f"{BLOCK}.input_layernorm.weight", (64,), "norm"),
        ("vision_tower.layers.0.q_proj.weight", (64, 64), "vision"),
        ("multi_modal_projector.norm.weight", (64,), "projector"),
        ("mtp.layers.0.mlp.experts.0.up_proj.weight", (64, 64), "draft"),
    ],
)
def test_an_unknown_architecture_is_read_by_the_usual_names(tensor: str, shape: tuple[int, ...], wanted: str) -> None:
    config = {"model_type": "born_yesterday"}
    assert family_of(config) is GENERIC
    assert not is_known(config)
    assert role(tensor, shape, family_of(config)) == wanted


@pytest.mark.parametrize("prefix", ["", "model.", "model.language_model.", "language_model.model.", "transformer."])
def test_blocks_beyond_those_of_the_config_are_drafts(prefix: str) -> None:
    for leaf, shape in (("mlp.up_proj.weight", (128, 64)), ("input_layernorm.weight", (64,)), ("a.bias", (64,))):
        assert role(f"{prefix}layers.4.{leaf}", shape, blocks=4) == "draft"
        assert role(f"{prefix}layers.3.{leaf}", shape, blocks=4) != "draft"
        assert role(f"{prefix}layers.4.{leaf}", shape) != "draft"
    assert role(f"vision_tower.{prefix}layers.9.mlp.up_proj.weight", (128, 64), blocks=4) == "vision"


@pytest.mark.parametrize(
    "tensor",
    [
        f"base_model.model.{BLOCK}.self_attn.q_proj.lora_A.weight",
        f"{BLOCK}.mlp.experts.0.up_proj.lora_B.default.weight",
        f"{BLOCK}.self_attn.qkv_proj.lora_A.speech.weight",
        "model.visual.blocks.0.attn.qkv.lora_B.weight",
        "model.embed_tokens.lora_embedding_A",
    ],
)
def test_adapters_are_never_layers(tensor: str) -> None:
    assert role(tensor, (16, 64)) == "other"


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLMEagle3"]}, "draft"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "linear"),
        ({"model_type": "qwen2", "architectures": ["Eagle2_5_VLForConditionalGeneration"]}, "linear"),
        ({"model_type": "llama", "architectures": 7}, "linear"),
        ({"model_type": "llama", "architectures": [None]}, "linear"),
        ({"model_type": "mimi"}, "audio"),
    ],
)
def test_a_checkpoint_can_be_one_part_alone(config: Mapping[str, Any], wanted: str) -> None:
    assert role(f"{BLOCK}.self_attn.q_proj.weight", (64, 64), family_of(config)) == wanted


def test_the_text_section_counts_where_the_whole_is_nothing_special() -> None:
    whole = {"model_type": "mistral3", "text_config": {"model_type": "mistral4"}}
    assert family_of(whole).name == "Mistral 4"
    assert family_of({"model_type": "mistral3", "text_config": {"model_type": "mistral"}}) is GENERIC


def test_a_checkpoint_of_sixty_thousand_tensors_is_read_in_a_moment() -> None:
    names = [f"model.layers.{block}.mlp.experts.{i}.up_proj.weight" for block in range(60) for i in range(1000)]
    family = family_of({"model_type": "deepseek_v3"})
    start = time.process_time()
    assert {role(name, (64, 64), family, 61) for name in names} == {"expert"}
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize(
    ("name", "expert"),
    [
        ("model.layers.3.mlp.experts.17.down_proj", 17),
        ("model.layers.3.block_sparse_moe.experts.0.w1", 0),
        ("model.layers.3.mlp.experts.gate_up_proj", None),
        ("model.layers.3.mlp.experts.17", None),
        ("model.layers.3.mlp.down_proj", None),
        ("3.down_proj", None),
        (f"layers.0.experts.{'9' * 5000}.w1", None),
    ],
)
def test_the_expert_of_a_layer_is_read_from_its_name(name: str, expert: int | None) -> None:
    assert core.expert_index(name) == expert
