"""What llama.cpp's converter makes of an architecture, as data: its names, its keys, and the values that it changes.

Source: convert_hf_to_gguf.py of llama.cpp 0c1e57098 and gguf-py 0.19 (constants.py, tensor_mapping.py). A row is here
only when a model of it, read back, was proved to be the same one; what has no row is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OUTSIDE: Mapping[str, str] = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
"""Modules outside of blocks: llama.cpp's name -> that of transformers."""

FIELDS: Mapping[str, str] = {
    "max_position_embeddings": "context_length",
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
"""Key of config.json -> key after the name of the architecture, of all that have a row."""

_BLOCK: dict[str, str] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_EXPERTS: dict[str, str] = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}
_MIXTRAL: dict[str, str] = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
    "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
    "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
}
_SHARED: dict[str, str] = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_NORMS_BEHIND: dict[str, str] = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

_FUSED: dict[str, str] = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
_BEHIND_ALONE: dict[str, str] = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GLM4: dict[str, str] = {
    "ffn_up": "mlp.gate_up_proj",
    "post_attention_norm": "post_self_attn_layernorm",
    "post_ffw_norm": "post_mlp_layernorm",
}

_WIDTH: dict[str, str] = {"intermediate_size": "feed_forward_length"}
_EXPERT_COUNTS: dict[str, str] = {
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}
_CAPS: dict[str, str] = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "sliding_window": "attention.sliding_window",
}
_MULTIPLIERS: dict[str, str] = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}
_PHI3: dict[str, str] = {
    "original_max_position_embeddings": "rope.scaling.original_context_length",
    "sliding_window": "attention.sliding_window",
}
_GELU: dict[str, Any] = {"hidden_activation": "gelu_pytorch_tanh"}


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """A row of the table.

    name: `general.architecture`. model_type, architecture: those of config.json. experts: True for the form of the
    architecture that has experts, which is a row of its own. block: modules in a block, llama.cpp's name -> that of
    transformers; "{}" stands for the number of an expert, whose matrices llama.cpp stacks. permuted: modules of `block`
    whose rows lie head by head in pairs, first half beside second, as llama.cpp rotates them. plus_one: norms are
    stored with 1 added. fields: key of config.json -> key after the architecture's name; optional: those that may be
    missing. implied: what the architecture means without saying it. divided: number of blocks of the one size whose
    queries are divided by the square root of width / heads, while all others are by that of the width of a head; 0
    where config.json has no such key. partial: a part of each head may be rotated alone. biases: keys of config.json
    that say of attention and of the feed-forward part whether there are biases. never: keys of another architecture
    that llama.cpp calls the same.
    """

    name: str
    model_type: str
    architecture: str
    block: Mapping[str, str]
    experts: bool = False
    permuted: tuple[str, ...] = ()
    plus_one: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    implied: Mapping[str, Any] = field(default_factory=dict)
    divided: int = 0
    partial: bool = False
    biases: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


_BIASES = ("attention_bias", "mlp_bias")
_ROTATED = ("attn_q", "attn_k")

ARCHITECTURES: tuple[GgufArchitecture, ...] = (
    GgufArchitecture("llama", "llama", "LlamaForCausalLM", _BLOCK, permuted=_ROTATED, fields=_WIDTH, biases=_BIASES),
    GgufArchitecture(
        "llama",
        "mixtral",
        "MixtralForCausalLM",
        _BLOCK | _MIXTRAL,
        experts=True,
        permuted=_ROTATED,
        fields=_WIDTH | {"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        implied={"sliding_window": None},
    ),
    GgufArchitecture("qwen2", "qwen2", "Qwen2ForCausalLM", _BLOCK, fields=_WIDTH),
    GgufArchitecture("qwen3", "qwen3", "Qwen3ForCausalLM", _BLOCK, fields=_WIDTH),
    GgufArchitecture(
        "qwen2moe",
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        _BLOCK | _EXPERTS | _SHARED,
        experts=True,
        fields=_WIDTH | _EXPERT_COUNTS | {"shared_expert_intermediate_size": "expert_shared_feed_forward_length"},
        implied={"norm_topk_prob": False, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    GgufArchitecture(
        "qwen3moe",
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        _BLOCK | _EXPERTS,
        experts=True,
        fields=_WIDTH | _EXPERT_COUNTS,
        implied={"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    GgufArchitecture("gemma", "gemma", "GemmaForCausalLM", _BLOCK, plus_one=True, fields=_WIDTH, implied=_GELU),
    GgufArchitecture(
        "gemma2",
        "gemma2",
        "Gemma2ForCausalLM",
        _BLOCK | _NORMS_BEHIND,
        plus_one=True,
        fields=_WIDTH | _CAPS,
        implied=_GELU,
        divided=46,
    ),
    GgufArchitecture(
        "gemma3",
        "gemma3_text",
        "Gemma3ForCausalLM",
        _BLOCK | _NORMS_BEHIND,
        plus_one=True,
        fields=_WIDTH | {"sliding_window": "attention.sliding_window"},
        optional={"final_logit_softcapping": "final_logit_softcapping", "rope_local_base_freq": "rope.freq_base_swa"},
        implied=_GELU | {"rope_local_base_freq": 10000.0, "sliding_window_pattern": 6},
        divided=62,
    ),
    GgufArchitecture(
        "phi3",
        "phi3",
        "Phi3ForCausalLM",
        _BLOCK | _FUSED,
        fields=_WIDTH,
        optional=_PHI3,
        partial=True,
    ),
    GgufArchitecture(
        "granite",
        "granite",
        "GraniteForCausalLM",
        _BLOCK,
        permuted=_ROTATED,
        fields=_WIDTH,
        optional=_MULTIPLIERS,
        biases=_BIASES,
    ),
    GgufArchitecture(
        "smollm3",
        "smollm3",
        "SmolLM3ForCausalLM",
        _BLOCK,
        permuted=_ROTATED,
        fields=_WIDTH,
        implied={"no_rope_layer_interval": 4, "use_sliding_window": False},
        biases=_BIASES,
    ),
    GgufArchitecture(
        "arcee",
        "arcee",
        "ArceeForCausalLM",
        _BLOCK,
        permuted=_ROTATED,
        fields=_WIDTH,
        implied={"hidden_act": "relu2"},
        biases=_BIASES,
    ),
    GgufArchitecture(
        "olmo2",
        "olmo2",
        "Olmo2ForCausalLM",
        _BLOCK | _BEHIND_ALONE,
        fields=_WIDTH,
        never=("attention.sliding_window",),
    ),
    GgufArchitecture(
        "olmoe",
        "olmoe",
        "OlmoeForCausalLM",
        _BLOCK | _EXPERTS,
        experts=True,
        fields=_WIDTH | {"num_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        implied={"norm_topk_prob": False},
        never=("attention.clamp_kqv",),
    ),
    GgufArchitecture(
        "glm4",
        "glm4",
        "Glm4ForCausalLM",
        _BLOCK | _GLM4,
        fields=_WIDTH,
        partial=True,
        biases=("attention_bias",),
        never=("nextn_predict_layers", "rope.dimension_sections"),
    ),
)


def architecture_of(name: object, experts: bool) -> GgufArchitecture | None:
    """The row of an architecture by llama.cpp's name, in the form with or without experts; None where there is none."""
    return next((row for row in ARCHITECTURES if row.name == name and row.experts == experts), None)


def known_architectures() -> tuple[str, ...]:
    """llama.cpp's names of all that has a row."""
    return tuple(dict.fromkeys(row.name for row in ARCHITECTURES))
