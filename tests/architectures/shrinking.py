"""Small configurations of any model type, by the names of the fields that transformers gives it."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

_TEXT = {
    "hidden_size d_model n_embd dim emb_dim model_dim embedding_size embed_dim hidden_dim width": 128,
    "intermediate_size ffn_dim d_ff n_inner ffn_hidden_size dff dim_ff encoder_ffn_dim decoder_ffn_dim": 256,
    "feed_forward_size dense_intermediate_size intermediate_size_mlp mlp_dim hidden_size_global": 256,
    "shared_intermediate_size": 256,
    "encoder_layers decoder_layers num_encoder_layers num_decoder_layers depth layers num_blocks": 2,
    "encoder_num_hidden_layers decoder_num_hidden_layers num_layers_per_stack": 2,
    "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads": 4,
    "num_encoder_attention_heads num_decoder_attention_heads": 4,
    "encoder_num_attention_heads decoder_num_attention_heads": 4,
    "num_key_value_heads num_kv_heads kv_n_heads encoder_num_key_value_heads decoder_num_key_value_heads": 2,
    "head_dim d_kv kv_channels attention_head_size swa_head_dim global_head_dim": 32,
    "vocab_size vocab_size_per_layer_input decoder_vocab_size": 384,
    "max_position_embeddings n_positions max_target_positions max_seq_len n_ctx": 512,
    "num_experts num_local_experts n_routed_experts moe_num_experts": 4,
    "num_experts_per_tok moe_topk moe_k top_k_experts": 2,
    "moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size": 96,
    "expert_ffn_hidden_size": 96,
    "n_shared_experts num_shared_experts moe_num_shared_experts n_group topk_group first_k_dense_replace": 1,
    "kv_lora_rank q_lora_rank o_lora_rank index_head_dim index_topk": 64,
    "qk_nope_head_dim qk_rope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim": 32,
    "index_n_heads linear_num_value_heads": 4,
    "linear_num_key_heads mamba_n_groups n_groups mamba_ngroups max_window_layers": 2,
    "mamba_n_heads mamba_num_heads n_mamba_heads": 8,
    "mamba_d_head mamba_head_dim mamba_headdim query_pre_attn_scalar": 32,
    "mamba_d_state ssm_state_size state_size mamba_chunk_size chunk_size rotary_dim": 16,
    "sliding_window sliding_window_size window_size local_attention": 8,
    "num_nextn_predict_layers": 0,
    "max_source_positions projector_hidden_size projection_dim projection_hidden_size": 64,
}
_TOWER = {
    "hidden_size d_model embed_dim hidden_dim dim width n_embd emb_dim": 64,
    "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim mlp_dim d_ff": 128,
    "num_hidden_layers num_layers encoder_layers decoder_layers depth layers n_layers num_blocks num_local_layers": 2,
    "num_attention_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads n_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "image_size": 28,
    "patch_size": 14,
    "num_position_embeddings": 16,
    "out_hidden_size output_dim": 128,
    "vocab_size": 384,
    "num_mel_bins": 80,
    "max_source_positions projection_dim": 64,
    "max_position_embeddings": 512,
    "num_global_layers": 1,
    "deepstack_visual_indexes fullatt_block_indexes": [0],
    "global_attn_indexes": [1],
}
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_BY_LAYER = (
    "activation_sparsity_pattern",
    "attention_layers",
    "attn_layers",
    "indexer_types",
    "layer_rope_theta",
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "no_rope_layers",
    "num_attention_heads_per_layer",
)
_UNUSED = ("id2label", "label2id", "chunk_size_feed_forward")
_PART = re.compile(
    "vision|audio|speech|vq|codec|tower|visual|whisper|dac|mimi|vocoder|code2wav|token2wav|image|acoustic|semantic"
    "|diffusion"
)
_TOKENS = {"image": 370, "video": 371, "audio": 372}


def small(kind: str, given: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration of a model type with small sizes, and the values that are `given`, by section."""
    known = AutoConfig.for_model(kind)
    return type(known)(**{**given, **_arguments(known, given, is_text=True)})


def _arguments(known: PreTrainedConfig, given: Mapping[str, Any], *, is_text: bool) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(known) if field.name not in _UNUSED]
    values = {name: _default(known, name) for name in names if name not in given}
    count = _layer_count(values)
    found = {name: given[name] for name in names if name in given and not isinstance(given[name], Mapping)}
    for name, value in values.items():
        if isinstance(value, PreTrainedConfig):
            found[name] = _section(name, value, {}, is_text)
        elif (small_value := _small(name, value, count, is_text)) is not None:
            found[name] = small_value
    for name in names:
        if isinstance(given.get(name), Mapping):
            inner = getattr(known, name, None)
            is_section = isinstance(inner, PreTrainedConfig)
            found[name] = _section(name, inner, given[name], is_text) if is_section else given[name]
    return found


def _default(known: PreTrainedConfig, name: str) -> Any:
    """None for a value that layers have of their own, which has no default."""
    try:
        return getattr(known, name, None)
    except Exception:  # transformers has a kind of its own for that
        return None


def _section(name: str, known: PreTrainedConfig, given: Mapping[str, Any], is_text: bool) -> dict[str, Any]:
    is_text = (is_text and not _PART.search(name)) or "text" in name
    return {**_arguments(known, given, is_text=is_text), "model_type": known.model_type}


def _layer_count(values: Mapping[str, Any]) -> int:
    """As many layers as there are kinds of them, at least two; twice as many of two kinds."""
    lists = (values[name] for name in _BY_LAYER if isinstance(values.get(name), (list, tuple)))
    kinds = max((len(set(map(str, kinds))) for kinds in lists), default=1)
    return 4 if kinds == 2 else max(kinds, 2)


def _small(name: str, value: Any, count: int, is_text: bool) -> Any:
    """What a field gets, None where its default will do."""
    if isinstance(value, bool):
        return None
    if name in _BY_LAYER and isinstance(value, (list, tuple)):
        return _alternating(value, count)
    if is_text and name in _LAYERS:
        return count
    if name.endswith(("token_id", "token_index", "_id")):
        return _token(name, value)
    if name == "rope_parameters":
        return deepcopy(value) if isinstance(value, dict) else None
    sizes = _TEXT if is_text else _TOWER
    found = next((size for words, size in sizes.items() if name in words.split()), None)
    return found if isinstance(value, (int, list, tuple)) else None


def _alternating(values: Sequence[Any], count: int) -> list[Any]:
    kinds = list({str(value): value for value in values}.values())
    return [kinds[place % len(kinds)] for place in range(count)]


def _token(name: str, value: Any) -> Any:
    """Tokens of pictures and sounds, and those beyond the vocabulary, are none that the tests use."""
    if isinstance(value, list):
        return [1]
    if not isinstance(value, int) or 0 <= value < 300:
        return None
    return next((token for word, token in _TOKENS.items() if word in name), 373 + len(name) % 9)
