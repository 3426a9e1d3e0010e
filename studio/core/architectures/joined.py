"""What transformers does to experts: it joins single ones of these model types, and takes stacks of others whole."""

_TYPES = """
afmoe axk1 axk2 bailing_hybrid beam cohere2_moe deepseek_ocr2 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 dots1
dots3_note dots3_note_text ernie4_5_moe ernie4_5_vl_moe exaone_moe flex_olmo flint glm4_moe glm4_moe_lite glm4v_moe
glm5_next glm5_next_text glm_moe_dsa hunyuan_v1_moe hy_v3 jamba kimi_k25 kimi_linear kolibri1 laguna lfm2_moe
longcat_flash mellum mimo_v2_flash minimax minimax_m2 minimax_m3_vl mistral_large4_text mixtral nemotron_h olmoe phimoe
qwen2_moe qwen3_5_moe qwen3_5_moe_text qwen3_moe qwen3_next qwen3_omni_moe qwen3_omni_moe_text qwen3_omni_moe_thinker
qwen4_exp_text solar_open unlimited_ocr
"""

JOINED = frozenset(_TYPES.split())
"""Source: the conversions of transformers 5.23 that merge the modules of a list."""

ONE_PIECE = "transformers 5.23 loads the experts of this architecture in one piece only, which can not be packed"
