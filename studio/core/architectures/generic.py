"""The generic row: names that mean the same nearly everywhere, so that a new architecture works on its first day."""

from studio.core.architectures.family import Family, Role, Stack

_ADAPTERS = r"(^|[._])lora_(A|B|embedding_A|embedding_B|magnitude_vector)(\.|$)"

_DRAFT = (
    r"(^|\.)(mtp|mtp_\w+|eagle\d*|eagle_\w+|medusa\w*|draft_\w+|speculator\w*|nextn\w*)(\.|$)"
    r"|(^|\.)(eh_proj|enorm|hnorm|shared_head)(\.|$)"
)

_VISION = (
    r"(^|\.)(vision|visual|vit|vpm|vision_(tower|model|encoder|backbone|embedder|transformer|expert)\w*|image_encoder"
    r"|image_(tower|model|vision_model)|img_processor|vision_embed_tokens|visual_(encoder|model|tower)|patch_embed\w*"
    r"|sam_model|siglip\w*|clip_vision\w*|video_(tower|encoder))(\.|$)"
)

_AUDIO = (
    r"(^|\.)(audio|apm|audio_(tower|encoder|model|decoder|embed)\w*|speech_(encoder|tower|model|decoder|tokenizer)\w*"
    r"|sound_(encoder|tower)|code2wav|token2wav|vocoder|codec_model|audio_tokenizer|whisper_encoder|mimi|tts\w*"
    r"|(acoustic|semantic)_tokenizer\w*)(\.|$)"
)

_PROJECTOR = (
    r"(^|\.)(multi_modal_projector|multimodal_projector|mm_projector|modality_projection|resampler|connector|aligner"
    r"|embed_(vision|audio)|(vision|image|img|audio|sound|speech|visual)_(proj|projection|projector|adapter|adaptor"
    r"|resampler|connector)\w*|audio_(projection|avg_pooler)\w*|patch_merge_mlp|merger|perceiver_\w+|qformer"
    r"|language_projection|abstractor|(image|visual|vision)_bridge)(\.|$)|^mlp1\."
)

_HEAD = (
    r"(^|\.)(lm_head|embed_out|output_layer|output|score|classifier|proj_out|qa_outputs|codec_head|head|heads"
    r"|lm_heads?\.\d+|unembed|ctc_proj|text_head|value_head|v_head|cls\.predictions\.decoder"
    r"|predictions\.decoder|cls\.seq_relationship|qa_classifier)$"
)

_EMBEDDING = (
    r"(^|[._])(embed_tokens\w*|embed_in|embeddings?|tok_embeddings|wte|wpe|word_embeddings?|word_embeddings_layernorm"
    r"|embed_positions|position_embeddings?|relative_attention_bias|embed_tokens_per_layer|token_type_embeddings"
    r"|ngram_embeddings|input_embeddings)([._]|$)|(^|\.)(shared|embed|emb|tok_emb|pos_emb|word_embed)$"
)

_ROUTER = (
    r"(^|\.)(gate|router|gate_wg|gate_inp|ffn_gate_inp|router_gate|route_linear)$|(^|\.)(router|gate|routers)\."
    r"(?!.*\b(gate_proj|up_proj|down_proj|experts)\b)"
)

_GATE = (
    r"(^|\.)(shared_expert_gate|in_proj_(a|b|ba)|dt_proj|x_proj|b_proj|a_proj|f_a_proj|f_b_proj|g_a_proj|g_b_proj"
    r"|weights_proj|(q_|k_|v_)?conv1d|conv_1d|conv|modality_router|prediction_coefs|correction_coefs"
    r"|bc_proj|bcdt_proj|beta_proj)$"
)

_NORM = r"(^|\.)(\w*norm\d*|\w*layernorm\w*|ln|ln_\w+|ln\d+|rms)$"
NORM_PART = r"norm|(^|[._])(ln|rms)(_|\d|\.|$)"
"""What makes a vector part of a norm: its weight, bias or scale."""

ROLE_PATTERNS: tuple[tuple[Role, str], ...] = (
    ("other", _ADAPTERS),
    ("draft", _DRAFT),
    ("vision", _VISION),
    ("audio", _AUDIO),
    ("projector", _PROJECTOR),
    ("head", _HEAD),
    ("embedding", _EMBEDDING),
    ("gate", _GATE),
    ("router", _ROUTER),
    ("norm", _NORM),
)
"""Tried in this order; what matches none is an expert, a linear layer or something else by its shape."""

PARTS: tuple[Role, ...] = ("draft", "vision", "audio", "projector")
"""Roles of whole parts of a model: everything in them, vectors too."""

BLOCK = r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d{1,9})\."
DECODER_BLOCK = r"^(?:(?:model|language_model|transformer|backbone|llm|thinker)\.)*(?:layers|h|blocks)\.(\d{1,9})\."
"""Blocks of the language model itself, whose number config.json states."""

EXPERT = r"^(?P<stack>.+)\.experts\.(?P<expert>\d{1,9})\.(?P<projection>[^.]+)$"

STACKS: tuple[Stack, ...] = (
    Stack(r"^(?P<stack>.+)\.experts\.gate_up_proj$", ("gate_proj", "up_proj")),
    Stack(r"^(?P<stack>.+)\.experts\.(?P<projection>gate_proj|up_proj|down_proj|w1|w2|w3)$"),
    Stack(r"^(?P<stack>.+)\.experts\.switch_glu\.(?P<projection>gate_proj|up_proj|down_proj)$", input_first=False),
    Stack(r"^(?P<stack>.+)\.switch_mlp\.(?P<projection>gate_proj|up_proj|down_proj|fc1|fc2)$", input_first=False),
    Stack(r"^(?P<stack>.+\.moe)\.(?P<projection>gate_proj|up_proj|down_proj)$", input_first=False),
    Stack(r"^(?P<stack>.+)\.input_linear$", ("w1", "w3"), input_first=False),
    Stack(r"^(?P<stack>.+)\.output_linear$", ("w2",), input_first=False),
)

FUSED: tuple[tuple[str, ...], ...] = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("wq", "wk", "wv"),
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("to_q", "to_k", "to_v"),
    ("add_q_proj", "add_k_proj", "add_v_proj"),
    ("in_proj_q", "in_proj_k", "in_proj_v"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
    ("wq_a", "wkv"),
    ("in_proj_qkv", "in_proj_z"),
    ("in_proj_a", "in_proj_b"),
    ("c_fc_0", "c_fc_1"),
)

PROVEN = """
apertus bitnet cohere cohere2 deepseek deepseek_v2 ernie4_5 ernie4_5_moe exaone exaone4 exaone_moe gemma gemma2 gemma3
gemma3_text gemma3n glm glm4 glm4_moe granite helium hunyuan_v1_dense internlm2 internlm3 iquestcoder jamba laguna lfm2
llama llava mellum mimo mimo_v2_flash ministral3 minicpm3 minimax minimax_m2 mistral mistral3 mixtral muse_glimmer
nemotron olmo olmo2 olmo3 olmoe phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 solar_open stablelm
starcoder2
"""
"""Model types that were tried and need no row of their own."""

GENERIC = Family("generic", frozenset(PROVEN.split()))
