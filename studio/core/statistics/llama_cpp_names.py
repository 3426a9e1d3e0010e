"""What llama.cpp calls the matrices of a model, without `.weight`. Source: gguf-py 0.19, tensor_mapping.py."""

import re

from studio.core.architectures import block_index
from studio.core.model import Layer, Matrix

_LEAVES = {
    "attn_q": "q_proj wq query q_lin to_q",
    "attn_k": "k_proj wk key k_lin to_k",
    "attn_v": "v_proj wv value v_lin to_v",
    "attn_qkv": "qkv_proj query_key_value Wqkv c_attn wqkv W_pack in_proj_qkv",
    "attn_output": "o_proj wo out_proj out_lin self_attn.dense attention.dense attn.c_proj self_attention.dense",
    "attn_gate": "self_attn.gate_proj in_proj_z g_proj",
    "attn_q_a": "q_a_proj",
    "attn_q_b": "q_b_proj",
    "attn_kv_a_mqa": "kv_a_proj_with_mqa",
    "attn_kv_b": "kv_b_proj",
    "ffn_gate": "gate_proj w1 gate fc1_gate c_fc_0 linear_1",
    "ffn_up": "up_proj w3 fc1 c_fc dense_h_to_4h gate_up_proj fc_in up c_fc_1 input_linear",
    "ffn_down": "down_proj w2 fc2 dense_4h_to_h fc_out down mlp.c_proj output_linear",
    "ffn_gate_inp": "mlp.gate block_sparse_moe.gate mlp.router feed_forward.router",
    "ssm_in": "in_proj in_proj_qkvz",
    "ssm_out": "mixer.out_proj mamba.out_proj linear_attn.out_proj",
}
"""llama.cpp's name in a block, and ends of names of modules that it stands for; the longest that fits counts."""

_BY_END = {end: name for name, ends in _LEAVES.items() for end in ends.split()}
_SHARED = re.compile(r"\.(?:shared_experts?|shared_mlp)\.")
_EXPERTS = {"ffn_gate": ("ffn_gate_exps", "ffn_gate_up_exps"), "ffn_up": ("ffn_up_exps", "ffn_gate_up_exps")}


def llama_cpp_names(layer: Layer, matrix: Matrix) -> tuple[str, ...]:
    """Names under which llama.cpp may know a matrix, the likeliest first; those of a stack for an expert."""
    if layer.role == "head":
        return ("output",)
    block = block_index(matrix.name)
    found = _in_block(matrix.projection or matrix.name)
    if block is None or not found:
        return ()
    return tuple(f"blk.{block}.{name}" for name in _variants(found, matrix))


def _in_block(name: str) -> str:
    parts = name.split(".")
    ends = (".".join(parts[-count:]) for count in (2, 1))
    return next((_BY_END[end] for end in ends if end in _BY_END), "")


def _variants(found: str, matrix: Matrix) -> tuple[str, ...]:
    if matrix.expert is not None:
        return _EXPERTS.get(found, (f"{found}_exps",))
    return (f"{found}_shexp",) if _SHARED.search(matrix.name) else (found,)
