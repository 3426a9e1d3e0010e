"""Exports fit the runtimes that they are written for: what a reader joins, renames or can not load is honoured."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio import core
from tests.core.checkpoints import CONFIG, Tensors, checkpoint, gaussian, llama

ATTENTION = [f"model.layers.0.self_attn.{name}_proj" for name in "qkv"]
EXPERTS = 4
MOE = {**CONFIG, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 1}


def moe() -> Tensors:
    """One block with single experts."""
    tensors = {name: array for name, array in llama(1).items() if ".mlp." not in name}
    for expert in range(EXPERTS):
        prefix = f"model.layers.0.mlp.experts.{expert}"
        tensors |= {f"{prefix}.{part}_proj.weight": gaussian(128, 64, seed=expert) for part in ("gate", "up")}
        tensors[f"{prefix}.down_proj.weight"] = gaussian(64, 128, seed=expert)
    return {**tensors, "model.layers.0.mlp.gate.weight": gaussian(EXPERTS, 64)}


@contextmanager
def prepared(
    folder: Path,
    layout: str,
    tensors: Tensors | None = None,
    config: dict[str, Any] | None = None,
    rules: Sequence[tuple[str, str]] = (),
    reader: str = "",
    row: str = "nvfp4-3t",
) -> Iterator[core.Export]:
    """An export that is about to begin."""
    source = checkpoint(folder / "source", tensors, config)
    plan = core.preset("linear").with_format(row)
    plan = plan.preceded_by([core.Rule(names=(name,), format=format_) for name, format_ in rules])
    with core.open_model(source) as model:
        choices = core.resolve(plan, model)
        yield core.prepare(model, plan, choices, core.LAYOUTS[layout], folder / "out", reader=reader)


def formats(job: core.Export, *names: str) -> set[str]:
    """The formats of the layers that end in one of `names`."""
    return {choice.format for choice in job.choices if choice.layer.name.endswith(names)}


def config_of(job: core.Export) -> dict[str, Any]:
    """The config.json that will be written."""
    found: dict[str, Any] = json.loads(job.documents["config.json"])
    return found


def test_experts_for_transformers_have_two_tiers_and_say_so(tmp_path: Path) -> None:
    with prepared(tmp_path, "compressed-tensors", moe(), MOE) as job:
        assert job.reader == "transformers"
        assert formats(job, "gate_proj", "up_proj", "down_proj") == {"nvfp4-2t"}
        assert formats(job, *ATTENTION) == {"nvfp4-3t"}
        assert ["12 layers" in sentence and "transformers drops" in sentence for sentence in job.changes] == [True]


def test_experts_for_vllm_keep_their_three_tiers(tmp_path: Path) -> None:
    with prepared(tmp_path, "compressed-tensors", moe(), MOE, reader="vllm") as job:
        assert formats(job, "gate_proj", "up_proj", "down_proj") == {"nvfp4-3t"}
        assert not job.changes
        assert any("load this export with vLLM" in sentence for sentence in job.cautions)


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_a_fused_group_of_which_one_is_kept_is_kept_whole_and_named(layout: str, tmp_path: Path) -> None:
    with prepared(tmp_path, layout, rules=[("model.layers.0.self_attn.k_proj", "keep")]) as job:
        assert formats(job, *ATTENTION) == {"keep"}
        assert formats(job, "model.layers.1.self_attn.k_proj", "o_proj") == {"nvfp4-3t"}
        (told,) = job.changes
        assert "vLLM loads it as one with model.layers.0.self_attn.k_proj" in told


def test_a_fused_group_in_mlx_may_be_kept_in_part(tmp_path: Path) -> None:
    with prepared(tmp_path, "mlx", rules=[("*k_proj", "keep")]) as job:
        assert formats(job, "q_proj") == {"nvfp4-3t"}
        assert not job.changes


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_a_fused_group_of_two_formats_is_refused_by_name(layout: str, tmp_path: Path) -> None:
    with (
        pytest.raises(core.PlanError, match=r"self_attn\.q_proj and .*self_attn\.k_proj as one, which nvfp4"),
        prepared(tmp_path, layout, rules=[("*k_proj", "nvfp4-2t")]),
    ):
        pass


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_experts_of_which_some_are_kept_are_all_kept(layout: str, tmp_path: Path) -> None:
    with prepared(tmp_path, layout, moe(), MOE, rules=[("*experts.3.*", "keep")], reader="vllm") as job:
        assert formats(job, "gate_proj", "up_proj", "down_proj") == {"keep"}


def test_a_group_split_by_weights_that_are_no_numbers_is_kept_whole(tmp_path: Path) -> None:
    tensors = llama(1)
    tensors[f"{ATTENTION[1]}.weight"][0, 0] = np.inf
    source = checkpoint(tmp_path / "source", tensors)
    plan = core.preset("linear")
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        choices = core.keep_nonfinite(engine, core.resolve(plan, model))
        job = core.prepare(model, plan, choices, core.LAYOUTS["modelopt"], tmp_path / "out")
        assert formats(job, *ATTENTION) == {"keep"}


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe_lite", "mistral4", "longcat_flash"])
@pytest.mark.parametrize("row", ["nvfp4-2t", "nvfp4-3t", "int4-g32"])
def test_mlx_keeps_what_mlx_lm_takes_apart(kind: str, row: str, tmp_path: Path) -> None:
    tensors = {**llama(1), "model.layers.0.self_attn.kv_b_proj.weight": gaussian(64, 64)}
    with prepared(tmp_path, "mlx", tensors, {**CONFIG, "model_type": kind}, row=row) as job:
        assert formats(job, "kv_b_proj") == {"keep"}
        assert "takes it apart" in job.changes[0]


@pytest.mark.parametrize(
    ("kind", "kept"), [("aria_text", True), ("of_tomorrow", True), ("qwen3_moe", False), ("llama4_text", False)]
)
def test_stacks_of_experts_are_packed_for_transformers_only_where_it_joins_single_ones(
    kind: str, kept: bool, tmp_path: Path
) -> None:
    tensors = {name: array for name, array in moe().items() if ".experts." not in name}
    tensors["model.layers.0.mlp.experts.gate_up_proj"] = gaussian(4, 64, 256)
    tensors["model.layers.0.mlp.experts.down_proj"] = gaussian(4, 128, 64)
    config = {**MOE, "model_type": kind, "num_local_experts": 4}
    for reader in ("transformers", "vllm"):
        with prepared(tmp_path / reader, "compressed-tensors", tensors, config, reader=reader) as job:
            assert (formats(job, "gate_up_proj", ".experts.down_proj") == {core.KEEP}) is (kept and reader != "vllm")


@pytest.mark.parametrize(
    ("kind", "stored", "loaded"),
    [
        ("deepseek_v4", "model.layers.0.attn.compressor.wkv", "model.layers.0.self_attn.compressor.kv_proj"),
        ("axk2", "model.layers.0.input_layernorm.W_down", "model.layers.0.input_layernorm.mlp.fc1"),
        ("mistral_large4", "layers.0.attention.indexer.wk", "model.language_model.layers.0.self_attn.indexer.wk"),
        ("inkling2_text", "model.llm.layers.0.attn.k_sconv.weight_proj", "model.layers.0.attn.k_sconv.weight_proj"),
    ],
)
def test_kept_modules_are_excluded_by_the_names_that_transformers_gives_them(
    kind: str, stored: str, loaded: str, tmp_path: Path
) -> None:
    name = stored if kind == "inkling2_text" else f"{stored}.weight"
    tensors, config = {**llama(1), name: gaussian(64, 64)}, {**CONFIG, "model_type": kind}
    with prepared(tmp_path, "compressed-tensors", tensors, config) as job:
        assert any(re.match(text, loaded) for text in _patterns(job))


@pytest.mark.parametrize("head", ["cls.predictions.decoder", "lm_head.decoder", "output_projection", "proj_out"])
def test_tied_heads_are_excluded_whatever_transformers_calls_them(head: str, tmp_path: Path) -> None:
    with prepared(tmp_path, "compressed-tensors") as job:
        patterns = _patterns(job)
    assert any(re.match(text, head) for text in patterns)
    assert not any(re.match(text, "model.layers.0.self_attn.q_proj") for text in patterns)


def test_an_architecture_that_a_runtime_can_not_load_packed_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with (
        pytest.raises(core.PlanError, match="--for vllm"),
        prepared(tmp_path, "compressed-tensors", config={**CONFIG, "model_type": "olmo_hybrid"}),
    ):
        pass
    with prepared(tmp_path / "b", "compressed-tensors", config={**CONFIG, "model_type": "olmo_hybrid"}, reader="vllm"):
        pass
    with (
        pytest.raises(core.PlanError, match="multipliers") as refused,
        prepared(tmp_path / "c", "mlx", config={**CONFIG, "model_type": "falcon_h1"}),
    ):
        pass
    assert "mlx" not in refused.value.hint
    assert "compressed-tensors" in refused.value.hint


def test_a_layout_follows_from_the_reader_and_a_reader_that_can_not_load_it_is_refused() -> None:
    assert core.layout_for("", "vllm")[0].name == "modelopt"
    assert core.layout_for("", "transformers")[0].name == "compressed-tensors"
    assert core.layout_for("", "")[0].name == "mlx"
    assert core.layout_for("compressed-tensors", "vllm")[1] == "vllm"
    with pytest.raises(core.PlanError, match="does not load") as refused:
        core.layout_for("modelopt", "transformers")
    assert "compressed-tensors" in refused.value.hint


TOWERS = {
    "model.visual.blocks.0.attn.qkv": ["visual.blocks.0.attn.qkv", "model.visual.blocks.7.mlp.linear_fc1"],
    "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj": [
        "model.vision_tower.vision_model.encoder.layers.3.self_attn.q_proj",
        "model.vision_tower.encoder.layers.0.mlp.fc1",
    ],
    "multi_modal_projector.linear_1": ["model.multi_modal_projector.linear_1"],
    "language_model.lm_head": ["lm_head"],
    "model.layers.0.mlp.gate": ["model.language_model.layers.0.mlp.gate", "model.layers.0.mlp.router"],
    "mtp.layers.0.self_attn.q_proj": ["model.mtp.layers.0.self_attn.q_proj"],
    "model.layers.2.self_attn.q_proj": ["model.language_model.layers.2.self_attn.q_proj"],
}


@pytest.mark.parametrize("kept", TOWERS)
def test_the_exclusion_list_matches_kept_modules_under_every_spelling_and_no_quantized_one(
    kept: str, tmp_path: Path
) -> None:
    tensors = {**llama(2), f"{kept}.weight": gaussian(64, 64)}
    with prepared(tmp_path, "compressed-tensors", tensors) as job:
        patterns = _patterns(job)
        assert formats(job, kept) == {"keep"}
        for spelling in [kept, *TOWERS[kept]]:
            assert any(re.match(text, spelling) for text in patterns), spelling
        quantized = [m.name for choice in job.choices if choice.recipe for m in choice.layer.matrices]
        spelled = [*quantized, *(name.replace("model.", "model.language_model.", 1) for name in quantized)]
        assert not [name for name in spelled for text in patterns if re.match(text, name)]


@pytest.mark.parametrize(("kept", "others"), [("*.0.mlp.experts.*", True), ("*experts*", False)])
def test_kept_experts_are_excluded_by_the_module_that_holds_them(kept: str, others: bool, tmp_path: Path) -> None:
    blocks = {name.replace(".0.", ".1.", 1): array for name, array in moe().items() if ".layers.0." in name}
    config = {**MOE, "num_hidden_layers": 2}
    how = {"rules": [(kept, "keep")], "reader": "vllm"}
    with prepared(tmp_path, "compressed-tensors", {**moe(), **blocks}, config, **how) as job:
        patterns = _patterns(job)
        for module in ("model.layers.0.mlp.experts", "model.language_model.layers.0.mlp.experts.routed_experts"):
            assert any(re.match(text, module) for text in patterns)
        assert any(re.match(text, "model.layers.1.mlp.experts") for text in patterns) != others


def _patterns(job: core.Export) -> list[str]:
    ignored = config_of(job)["quantization_config"]["ignore"]
    return [name[3:] if name.startswith("re:") else re.escape(name) + "$" for name in ignored]


@pytest.mark.parametrize("layout", ["mlx", "modelopt", "compressed-tensors"])
@pytest.mark.parametrize("said", [None, False, True])
def test_without_a_stored_head_the_config_says_tied_and_the_head_is_excluded(
    layout: str, said: bool | None, tmp_path: Path
) -> None:
    tensors = {name: array for name, array in llama(1).items() if name != "lm_head.weight"}
    config = {**CONFIG, "num_hidden_layers": 1, "tie_word_embeddings": said}
    if said is None:
        del config["tie_word_embeddings"]
    with prepared(tmp_path, layout, tensors, config) as job:
        assert config_of(job)["tie_word_embeddings"] is True
        if layout != "mlx":
            assert "lm_head" in config_of(job)["quantization_config"]["ignore"]


def test_one_truth_about_the_head_reaches_every_section(tmp_path: Path) -> None:
    inner = {**CONFIG, "tie_word_embeddings": True}
    config = {
        "model_type": "qwen3_vl",
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "tie_word_embeddings": False,
        "text_config": inner,
    }
    with prepared(tmp_path, "compressed-tensors", {**llama(1), "lm_head.weight": gaussian(96, 64)}, config) as job:
        written = config_of(job)
        assert written["tie_word_embeddings"] is False
        assert written["text_config"]["tie_word_embeddings"] is False


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_a_head_that_runtimes_do_not_use_is_not_quantized(layout: str, tmp_path: Path) -> None:
    tensors = {**llama(1), "lm_head.weight": gaussian(96, 64)}
    config = {**CONFIG, "tie_word_embeddings": True}
    with (
        pytest.raises(core.PlanError, match="tied to the embedding"),
        prepared(tmp_path, layout, tensors, config, rules=[("lm_head", "nvfp4-3t")]),
    ):
        pass


def test_a_quantized_head_is_a_target_of_its_own(tmp_path: Path) -> None:
    tensors = {**llama(1), "lm_head.weight": gaussian(96, 64)}
    config = {**CONFIG, "tie_word_embeddings": False}
    with prepared(tmp_path, "compressed-tensors", tensors, config, rules=[("lm_head", "nvfp4-3t")]) as job:
        section = config_of(job)["quantization_config"]
        assert section["config_groups"]["group_0"]["targets"] == ["Linear", "re:.*lm_head$"]
        assert not any(re.match(text, "lm_head") for text in _patterns(job))


@pytest.mark.parametrize(
    ("kind", "rope", "lacks"),
    [
        ("falcon", {"rope_type": "default"}, "head_dim"),
        ("zamba", {}, "rope_scaling"),
        ("zaya", {"hybrid": {"rope_theta": 10000.0}}, "rope_scaling"),
    ],
)
def test_a_config_is_not_completed_by_what_its_class_does_not_take(
    kind: str, rope: dict[str, Any], lacks: str, tmp_path: Path
) -> None:
    config = {name: value for name, value in CONFIG.items() if name != "head_dim"}
    with prepared(tmp_path, "compressed-tensors", None, {**config, "model_type": kind, "rope_parameters": rope}) as job:
        assert lacks not in config_of(job)


def test_the_config_of_transformers_5_is_completed_in_every_layout(tmp_path: Path) -> None:
    config = {
        **{key: value for key, value in MOE.items() if key != "rope_theta"},
        "transformers_version": "5.23.0",
        "num_local_experts": EXPERTS,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
    }
    for layout in core.LAYOUTS:
        with prepared(tmp_path / layout, layout, moe(), config) as job:
            written = config_of(job)
            told = {key: written[key] for key in ("rope_theta", "num_experts", "head_dim", "rope_scaling")}
            assert told == {"rope_theta": 5e4, "num_experts": EXPERTS, "head_dim": 16, "rope_scaling": None}


def test_claims_are_earned_and_say_what_would_have_to_change(tmp_path: Path) -> None:
    with prepared(tmp_path, "modelopt") as job:
        assert {claim.verdict for claim in job.claims} == {"runs"}
        assert all(claim.evidence for claim in job.claims)
    with prepared(tmp_path / "b", "modelopt", config={**CONFIG, "model_type": "qwen2"}) as job:
        (cpp,) = (claim for claim in job.claims if claim.runtime.startswith("llama.cpp"))
        assert (cpp.verdict, "--for llama.cpp" in cpp.change) == ("fails", True)
    with prepared(tmp_path / "c", "modelopt", config={**CONFIG, "model_type": "never_seen"}) as job:
        assert {claim.verdict for claim in job.claims} == {"untried", "fails"}


def test_an_export_without_a_config_claims_nothing(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "source")
    (folder / "config.json").unlink()
    plan = core.preset("linear")
    with core.open_model(folder) as model:
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["mlx"], tmp_path / "out")
        assert job.claims == ()
        assert "without config.json" in core.claim_sentences(job.claims)[0]


STACKS = {
    "dots1": ("mlp.experts.0.gate_proj", "mlp.experts.gate_proj"),
    "afmoe": ("mlp.experts.0.up_proj", "mlp.experts.up_proj"),
    "nemotron_h": ("mixer.experts.0.up_proj", "mixer.switch_mlp.fc1"),
    "mixtral": ("block_sparse_moe.experts.0.w2", "block_sparse_moe.switch_mlp.down_proj"),
    "lfm2_moe": ("feed_forward.w1", "feed_forward.gate_proj"),
    "kimi_linear": ("block_sparse_moe.experts.0.w1", "mlp.switch_mlp.gate_proj"),
    "phixtral": ("moe.mlp.0.fc1", "moe.switch_mlp.fc1"),
}


@pytest.mark.parametrize("kind", STACKS)
def test_mlx_names_modules_as_mlx_lm_of_that_architecture_does(kind: str, tmp_path: Path) -> None:
    stored, module = STACKS[kind]
    tensors = {**llama(1), f"model.layers.0.{stored}.weight": gaussian(64, 64)}
    with prepared(tmp_path, "mlx", tensors, {**CONFIG, "model_type": kind}) as job:
        names = {name for shard in job.shards for name in shard.lay_out(job.model, job.layout).tensors}
        assert {f"model.layers.0.{module}.{part}" for part in ("weight", "scales", "global_scale")} <= names


def test_what_a_reader_is_spared_is_not_what_the_plan_says(tmp_path: Path) -> None:
    """The plan and its choices stay as they were made; the export tells what it does otherwise."""
    source = checkpoint(tmp_path / "source", moe(), MOE)
    plan = core.preset("linear")
    with core.open_model(source) as model:
        choices = core.resolve(plan, model)
        before = [replace(choice) for choice in choices]
        core.prepare(model, plan, choices, core.LAYOUTS["compressed-tensors"], tmp_path / "out")
        assert list(choices) == before


@pytest.mark.parametrize(("experts", "kept"), [(0, True), (4, False)])
def test_the_joined_feed_forward_of_a_dense_granite_hybrid_stays_plain_in_mlx(
    experts: int, kept: bool, tmp_path: Path
) -> None:
    tensors = {**llama(1), "model.layers.0.shared_mlp.input_linear.weight": gaussian(256, 64)}
    config = {**CONFIG, "model_type": "granitemoehybrid", "num_local_experts": experts}
    with prepared(tmp_path, "mlx", tensors, config) as job:
        assert (formats(job, "input_linear") == {"keep"}) == kept


GPT_OSS = {**CONFIG, "model_type": "gpt_oss", "num_hidden_layers": 1, "num_local_experts": EXPERTS}


@pytest.mark.parametrize(
    ("layout", "reader", "wanted"),
    [
        ("mlx", "mlx-lm", "nvfp4-3t"),
        ("modelopt", "vllm", "keep"),
        ("compressed-tensors", "vllm", "keep"),
        ("compressed-tensors", "transformers", "keep"),
    ],
)
def test_the_experts_of_gpt_oss_are_packed_only_where_they_can_be_loaded(
    layout: str, reader: str, wanted: str, tmp_path: Path
) -> None:
    stacks = {"gate_up_proj": gaussian(EXPERTS, 64, 256), "down_proj": gaussian(EXPERTS, 128, 64)}
    tensors = {**llama(1), **{f"model.layers.0.mlp.experts.{name}": array for name, array in stacks.items()}}
    tensors["model.layers.0.mlp.experts.gate_up_proj_bias"] = gaussian(EXPERTS, 256)
    with prepared(tmp_path, layout, tensors, GPT_OSS, reader=reader) as job:
        assert formats(job, *(f"experts.{name}" for name in stacks)) == {wanted}
        shards = [shard.lay_out(job.model, job.layout) for shard in job.shards]
        names = {name: tensor.shape for shard in shards for name, tensor in shard.tensors.items()}
        if layout == "mlx":
            assert names["model.layers.0.mlp.experts.gate_proj.weight"] == (EXPERTS, 128, 8)
            assert names["model.layers.0.mlp.experts.up_proj.bias"] == (EXPERTS, 128)
        else:
            assert names["model.layers.0.mlp.experts.gate_up_proj"] == (EXPERTS, 64, 256)


def test_for_llama_cpp_layers_whose_scale_its_graph_ignores_have_two_tiers(tmp_path: Path) -> None:
    config = {**CONFIG, "model_type": "qwen2", "num_hidden_layers": 1}
    with prepared(tmp_path, "modelopt", llama(1), config, reader="llama.cpp") as job:
        assert formats(job, "gate_proj", "up_proj", "down_proj") == {"nvfp4-2t"}
        assert formats(job, *ATTENTION) == {"nvfp4-3t"}
        (cpp,) = (claim for claim in job.claims if claim.runtime.startswith("llama.cpp"))
        assert cpp.verdict == "runs"


def test_for_llama_cpp_rows_that_it_can_not_pack_and_what_it_takes_apart_are_kept(tmp_path: Path) -> None:
    tensors = {**llama(1), "model.layers.0.self_attn.kv_b_proj.weight": gaussian(64, 64)}
    tensors["model.layers.0.mlp.down_proj.weight"] = gaussian(64, 96)
    with prepared(tmp_path, "compressed-tensors", tensors, reader="llama.cpp") as job:
        assert formats(job, "down_proj", "kv_b_proj") == {"keep"}


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_a_router_is_never_packed_for_runtimes_that_read_it_plain(layout: str, tmp_path: Path) -> None:
    with (
        pytest.raises(core.PlanError, match=r"mlp\.gate is a router"),
        prepared(tmp_path, layout, moe(), MOE, rules=[("*mlp.gate", "nvfp4-3t")]),
    ):
        pass


def test_mlx_lm_is_told_of_fields_that_it_asks_for_and_types_that_it_lacks(tmp_path: Path) -> None:
    config = {**CONFIG, "model_type": "mimo_v2_flash"}
    with prepared(tmp_path, "mlx", llama(1), config) as job:
        assert "config.json lacks" in job.claims[0].reason
    with prepared(tmp_path / "b", "mlx", llama(1), {**CONFIG, "model_type": "bert"}) as job:
        assert "has no model type bert" in job.claims[0].reason


def test_what_is_known_against_the_reader_is_said_before_the_export(tmp_path: Path) -> None:
    with prepared(tmp_path, "mlx", llama(1), {**CONFIG, "model_type": "bert"}) as job:
        assert "has no model type bert" in job.doubt
    with prepared(tmp_path / "b", "mlx", llama(1), {**CONFIG, "rms_norm_eps": 1e-5}) as job:
        assert not job.doubt


def test_a_head_that_mlx_lm_drops_is_kept(tmp_path: Path) -> None:
    tensors = {**llama(1), "lm_head.weight": gaussian(96, 64)}
    with prepared(
        tmp_path, "mlx", tensors, {**CONFIG, "tie_word_embeddings": True}, rules=[("lm_head", "nvfp4-2t")]
    ) as job:
        assert formats(job, "lm_head") == {"keep"}
        assert "embedding is the head" in job.changes[0]


def test_a_single_file_is_read_by_the_config_beside_it(tmp_path: Path) -> None:
    stack = gaussian(EXPERTS, 64, 64)
    folder = checkpoint(tmp_path / "source", {"model.layers.0.mlp.experts.down_proj": stack}, GPT_OSS)
    with core.open_model(folder / "model.safetensors") as model:
        (layer,) = model.layers
        assert model.family.name == "gpt-oss"
        assert (layer.matrices[0].row_step, layer.matrices[0].column_step) == (1, 64)
