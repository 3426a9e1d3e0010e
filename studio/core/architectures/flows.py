"""Flows as data: which matrices of a block read what a norm or another matrix gives, so that a power of two can move.

Only what was seen running stands here: an architecture without a row is not lifted, and neither is a block that holds
a tensor which its row does not name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.core.architectures.config import model_types
from studio.core.architectures.family import Rename


@dataclass(frozen=True, slots=True)
class Flow:
    """A row: regular expressions that match a whole module name within its block, without `.weight` or `.bias`.

    norms: (norm, every matrix that reads what it gives). products: (a matrix whose outputs another one reads, each
    multiplied by something that does not depend on them, and the name of that reader). beside: what no power of two
    reaches: norms of queries and keys, matrices behind joined or curved paths. final: the norm in front of the head.
    clipped: keys of config.json that clip what the first matrix of `products` gives. refused: why nothing is lifted.
    """

    model_types: frozenset[str]
    norms: tuple[tuple[str, str], ...] = ()
    products: tuple[Rename, ...] = ()
    beside: str = ""
    final: str = "norm"
    clipped: str = ""
    refused: str = ""


def flow_of(config: Mapping[str, Any]) -> Flow | None:
    """The row for the language model of a config, None for one that has none."""
    kind = next(reversed(model_types(config)), "")
    return next(
        (row for row in FLOWS if kind in row.model_types or kind.removesuffix("_text") in row.model_types), None
    )


def _types(text: str) -> frozenset[str]:
    return frozenset(text.split())


_QKV = r"self_attn\.[qkv]_proj"
_ATTENTION = ("input_layernorm", _QKV)
_VALUES = (r"self_attn\.v_proj", "self_attn.o_proj")
_QK_NORMS = r"self_attn\.[qk]_norm"
_GATED = r"mlp\.(?:gate|up)_proj"
_UP = (r"mlp\.up_proj", "mlp.down_proj")
_EXPERTS = r"mlp(?:\.experts(?:\.\d+)?|\.switch_mlp|\.shared_experts?)?"
_ROUTED = (
    "post_attention_layernorm",
    rf"{_EXPERTS}\.(?:gate|up|gate_up)_proj|mlp\.gate|mlp\.shared_expert_gate",
)
_ROUTED_UP = (rf"({_EXPERTS})\.up_proj", r"\1.down_proj")
_ROUTED_BESIDE = r"mlp\.experts\.down_proj|mlp\.(?:(?:gate|moe_statics|experts)\.)?e_score_correction_bias"
_W_EXPERTS = ("post_attention_layernorm", r"block_sparse_moe\.(?:gate|experts\.\d+\.w[13])")
_W_UP = (r"(block_sparse_moe\.experts\.\d+)\.w3", r"\1.w2")

FLOWS: tuple[Flow, ...] = (
    Flow(
        _types(
            "llama mistral ministral3 qwen2 qwen3 qwen2_vl qwen2_5_vl qwen3_vl smollm3 granite seed_oss helium ernie4_5"
            " iquestcoder"
        ),
        norms=(_ATTENTION, ("post_attention_layernorm", _GATED)),
        products=(_VALUES, _UP),
        beside=_QK_NORMS,
    ),
    Flow(
        _types("qwen2_moe qwen3_moe qwen3_vl_moe olmoe glm4_moe dots1 ernie4_5_moe solar_open mellum exaone_moe"),
        norms=(_ATTENTION, _ROUTED),
        products=(_VALUES, _ROUTED_UP),
        beside=f"{_QK_NORMS}|{_ROUTED_BESIDE}",
        clipped="clip_qkv",
    ),
    Flow(
        _types("mixtral phimoe minimax_m2"),
        norms=(_ATTENTION, _W_EXPERTS),
        products=(_VALUES, _W_UP),
        beside=rf"{_QK_NORMS}|block_sparse_moe\.(?:gate\.)?e_score_correction_bias",
    ),
    Flow(
        _types("deepseek_v2 deepseek_v3 deepseek_v32 glm_moe_dsa glm4_moe_lite mistral4 minicpm3"),
        norms=(
            ("input_layernorm", r"self_attn\.(?:q_proj|q_a_proj|kv_a_proj_with_mqa|indexer\.(?:wk|weights_proj))"),
            (r"self_attn\.q_a_layernorm", r"self_attn\.(?:q_b_proj|indexer\.wq_b)"),
            (r"self_attn\.kv_a_layernorm", r"self_attn\.kv_b_proj"),
            _ROUTED,
        ),
        products=(_ROUTED_UP,),
        beside=rf"self_attn\.o_proj|self_attn\.indexer\.k_norm|{_ROUTED_BESIDE}",
    ),
    Flow(
        _types("laguna"),
        norms=(("input_layernorm", r"self_attn\.[qkvg]_proj"), _ROUTED),
        products=(_VALUES, _ROUTED_UP),
        beside=f"{_QK_NORMS}|{_ROUTED_BESIDE}",
    ),
    Flow(
        _types("afmoe"),
        norms=(
            ("input_layernorm", r"self_attn\.(?:[qkv]|gate)_proj"),
            ("pre_mlp_layernorm", rf"{_EXPERTS}\.(?:gate|up)_proj|mlp\.router\.gate"),
        ),
        products=(_VALUES, _ROUTED_UP),
        beside=rf"{_QK_NORMS}|mlp\.expert_bias|post_attention_layernorm|post_mlp_layernorm",
    ),
    Flow(
        _types("llama4"),
        norms=(
            _ATTENTION,
            (
                "post_attention_layernorm",
                r"feed_forward\.(?:(?:shared_expert\.)?(?:gate|up)_proj|router|experts\.gate_up_proj)",
            ),
        ),
        products=(_VALUES, (r"(feed_forward(?:\.shared_expert)?)\.up_proj", r"\1.down_proj")),
        beside=r"feed_forward\.experts\.down_proj",
    ),
    Flow(
        _types("lfm2 lfm2_moe"),
        norms=(
            ("operator_norm", rf"{_QKV}|conv\.in_proj"),
            ("ffn_norm", r"feed_forward\.(?:(?:experts\.\d+\.)?w[13]|gate)"),
        ),
        products=(
            (r"self_attn\.v_proj", "self_attn.out_proj"),
            (r"(feed_forward(?:\.experts\.\d+)?)\.w3", r"\1.w2"),
        ),
        beside=r"self_attn\.[qk]_layernorm|conv\.conv|conv\.out_proj|feed_forward\.expert_bias",
        final="embedding_norm",
    ),
    Flow(
        _types("gptj"),
        norms=(("ln_1", r"attn\.[qkv]_proj|mlp\.fc_in"),),
        products=((r"attn\.v_proj", "attn.out_proj"),),
        beside=r"mlp\.fc_out|attn\.(?:bias|masked_bias)",
        final="ln_f",
    ),
    Flow(
        _types("gpt_oss"),
        norms=(
            _ATTENTION,
            ("post_attention_layernorm", r"mlp\.router|mlp\.experts\.gate_up_proj(?:_blocks)?"),
        ),
        products=(_VALUES,),
        beside=r"self_attn\.sinks|mlp\.experts\.(?:gate_up_proj_bias|down_proj(?:_bias|_blocks)?)",
    ),
    Flow(
        _types("granitemoe"),
        norms=(
            _ATTENTION,
            ("post_attention_layernorm", r"block_sparse_moe\.(?:input_linear|router\.layer)"),
        ),
        products=(_VALUES,),
        beside=r"block_sparse_moe\.output_linear",
    ),
    Flow(
        _types("phi3"),
        norms=(
            ("input_layernorm", r"self_attn\.qkv_proj"),
            ("post_attention_layernorm", r"mlp\.gate_up_proj"),
        ),
        beside=r"self_attn\.o_proj|mlp\.down_proj",
    ),
    Flow(
        _types("glm glm4"),
        norms=(_ATTENTION, ("post_attention_layernorm", r"mlp\.gate_up_proj")),
        products=(_VALUES,),
        beside=r"mlp\.down_proj|post_self_attn_layernorm|post_mlp_layernorm",
    ),
    Flow(
        _types("cohere cohere2"),
        norms=(("input_layernorm", f"{_QKV}|{_GATED}"),),
        products=(_VALUES, _UP),
        beside=_QK_NORMS,
    ),
    Flow(
        _types("starcoder2"),
        norms=(_ATTENTION, ("post_attention_layernorm", r"mlp\.c_fc")),
        products=(_VALUES,),
        beside=r"mlp\.c_proj",
    ),
    Flow(
        _types("phi"),
        norms=(("input_layernorm", rf"{_QKV}|mlp\.fc1"),),
        products=((r"self_attn\.v_proj", "self_attn.dense"),),
        beside=r"mlp\.fc2|self_attn\.[qk]_layernorm",
        final="final_layernorm",
    ),
    Flow(
        _types("apertus"),
        norms=(("attention_layernorm", _QKV), ("feedforward_layernorm", r"mlp\.up_proj")),
        products=(_VALUES,),
        beside=rf"{_QK_NORMS}|mlp\.down_proj|mlp\.act_fn\.\w+",
    ),
    Flow(
        _types("gpt_neox"),
        norms=(
            ("input_layernorm", r"attention\.query_key_value"),
            ("post_attention_layernorm", r"mlp\.dense_h_to_4h"),
        ),
        beside=r"attention\.dense|mlp\.dense_4h_to_h|attention\.(?:bias|masked_bias)",
        final="final_layer_norm",
    ),
    Flow(
        _types("gpt2"),
        norms=(("ln_1", r"attn\.c_attn"), ("ln_2", r"mlp\.c_fc")),
        beside=r"attn\.c_proj|mlp\.c_proj|attn\.(?:bias|masked_bias)",
        final="ln_f",
    ),
    Flow(
        _types("gemma gemma2 gemma3 recurrent_gemma qwen3_next qwen3_5 qwen3_5_moe nemotron"),
        refused="its norms add one to their weights, which no power of two does",
    ),
    Flow(
        _types("olmo2 olmo3 exaone4"),
        refused="its norms stand behind its layers, not in front of them",
    ),
)
