"""The generic row: names that mean the same nearly everywhere, so that a new architecture works on its first day."""

from studio.core.architectures.family import Family, Role, Stack, below, named

KEPT = "|".join(
    (
        below(r"lora_(?:A|B|embedding_A|embedding_B|magnitude_vector) \w+_lora_(?:A|B) \w+_adapter_list"),
        named("position_ids inv_freq masked_bias tid2eid num_batches_tracked"),
    )
)
"""Adapters and buffers."""

_DRAFT = below(
    r"mtp mtp_\w+ eagle\d* eagle_(?!model)\w+ medusa\w* draft_\w+ speculator\w* nextn\w* eh_proj enorm hnorm"
    r" shared_head"
)

_PROJECTOR_INSIDE = "|".join(
    (
        below(
            r"img_projection\w* image_projector image_pooling_2d audio_projection audio_language_projection"
            r" \w+_proj_for_\w+ vision\.linear_proj vision\.proj_mlp audio_encoder\.projection visual_tokenizer\.head"
            r" visual_embeddings_table"
        ),
        named("vision_embed_tokens"),
    )
)
"""Projectors that lie inside a tower, or are named like one."""

_VISION = below(
    r"vision visual vit vpm vit_model vit_pos_embed \w*vision_(?:tower|model|encoder|backbone|embedder|expert)\w*"
    r" vision_transformer vision_embed_tokens visual_(?:encoder|model|tower|tokenizer) video_(?:tower|encoder)"
    r" image_(?:tower|encoder|model|vit|embed) img_processor clip_vision\w* siglip\w* sam_model radio_model vqmodel"
    r" patch_embed\w* embed_patches deepstack_merger_list"
)

_AUDIO = below(
    r"audio audio_(?:tower|encoder|model|decoder|embed|tokenizer)\w* apm sound_(?:encoder|tower) speech_embeddings"
    r" speech_(?:encoder|tower|model|decoder|tokenizer)\w* (?:acoustic|semantic)_tokenizer\w* whisper_encoder"
    r" wav2vec2 hubert wavlm mimi feature_projection feature_extractor tts\w* talker(?!\.codec_head$) code_predictor"
    r" speaker_encoder depth_decoder code2wav token2wav vocoder codec_model t2u_model"
)

_PROJECTOR = "|".join(
    (
        below(
            r"projector mm_projector \w*multi_?modal_projector modality_projection pre_mm_projector_norm mlp_AR"
            r" (?:\w+_)?(?:vision|visual|image|img|audio|sound|speech|text)_proj(?:ection|ector)?(?:_\w+)?"
            r" (?:vision|visual|image|audio|sound|speech)_(?:language_)?(?:adapt[eo]r|resampler|connector|bridge)\w*"
            r" high_res_vision_\w+ image_to_text_projection language_projection"
            r" resampler resampler_model perceiver_\w+ qformer query_tokens abstractor connector \w*aligner merger"
            r" patch_merger patch_merge_mlp vit_downsampler\d* vit_large_projector vq_adaptor encoder_decoder_proj"
            r" embed_(?:vision|audio) audio_avg_pooler\w* image_newline view_sep[ae]rator image_pos_embed"
            r" visual_temporal_embed vte vae2llm llm2vae"
        ),
        r"^mlp1\.",
    )
)

EXPERT = r"^(?P<stack>.+)\.experts\.(?P<expert>\d{1,9})\.(?P<projection>[^.]+)$"

_HEAD = "|".join(
    (
        named(
            r"lm_head \w+_lm_head embed_out output_projection output_layer output score classifier proj_out qa_outputs"
            r" codec_head head heads lm_heads?\.\d+ unembed ctc_proj ctc_head text_head value_head v_head ff_out"
            r" lm_loss logits_proj logits_dense qa_classifier vocab_projector dense_prediction gen_head\.\w+"
            r" seq_relationship"
            r" (?:lm_head|predictions)\.(?:linear|decoder|out_proj) (?:classifier|classification_head)\.out_proj"
        ),
        "^decoder$",
    )
)
"""Of what stands outside of blocks: inside, these are names of layers."""

_EMBEDDING = "|".join(
    (
        below(
            r"\w*embeddings? embed_tokens\w* embed_in tokens_embed wte wpe embed_positions positions_embed seg_embed"
            r" (?:input|position)_embeds_layer relative_attention_bias rel_pos_\w*bias embed_text_tokens in_out_embed"
            r" gen_embed embed_global"
        ),
        named(r"shared embed emb \w+_emb word_embed \w*pos_embed"),
    )
)

_GATE = "|".join(
    (
        named(
            r"shared_expert_gate in_proj_(?:a|b|ba) (?:dt|x|bc|bcdt)_proj(?:_weight)? (?:a|b|beta)_proj [fg]_[ab]_proj"
            r" weights_proj indexer\.wk (?:[qkv]_)?conv1d conv_1d conv \w+_sconv \w+_gate_weight fc[12]_latent_proj"
            r" \w*norm\.W_(?:down|up)"
        ),
        below(r"altup altup_\w+ laurel per_layer_(?:model_projection|input_gate|projection) img_mod txt_mod"),
    )
)

_ROUTER = "|".join(
    (
        named(r"gate router gate_wg gate_inp ffn_gate_inp router_gate route_linear \w+_router"),
        r"(?:^|\.)(?:routers?|gate)\.(?!.*\b(?:gate_proj|up_proj|down_proj|experts)\b)",
    )
)

_NORM = named(r"\w*norm\d* \w*[lL]ayer_?[nN]orm\w* ln ln_\w+ ln\d+ rms")
NORM_PART = r"[nN]orm|(?:^|[._])(?:ln|rms)(?:_|\d|\.|$)"
"""What makes a vector part of a norm: its weight, bias or scale."""

PARTS: tuple[Role, ...] = ("draft", "vision", "audio", "projector")
"""Roles of whole parts of a model: everything in them, vectors too. What tells them is tried first."""

ROLE_PATTERNS: tuple[tuple[Role, str], ...] = (
    ("draft", _DRAFT),
    ("projector", _PROJECTOR_INSIDE),
    ("vision", _VISION),
    ("audio", _AUDIO),
    ("projector", _PROJECTOR),
    ("expert", EXPERT),
    ("head", _HEAD),
    ("embedding", _EMBEDDING),
    ("gate", _GATE),
    ("router", _ROUTER),
    ("norm", _NORM),
)
"""Tried in this order; what matches none is an expert, a linear layer or something else by its shape."""

BLOCK = r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d{1,9})\."
DECODER_BLOCK = (
    r"^(?:(?:base_model|model|language_model|language|text_model|text|transformer|backbone|llm|thinker)\.)*"
    r"(?:layers|h|blocks)\.(\d{1,9})\."
)
"""Blocks of the language model itself, whose number config.json states."""

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
    ("query_net", "key_net", "value_net"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
    ("wq_a", "wkv_a_with_mqa", "wkv"),
    ("in_proj_qkv", "in_proj_z"),
    ("in_proj_a", "in_proj_b"),
    ("indexer.wk", "indexer.weights_proj"),
    ("c_fc_0", "c_fc_1"),
    ("fc11", "fc12"),
    ("self_attn.gate_proj",),
    ("encoder_attn.q_proj",),
    ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    ("cross_attention.q_proj",),
    ("cross_attention.k_proj", "cross_attention.v_proj"),
    ("EncDecAttention.q",),
    ("EncDecAttention.k", "EncDecAttention.v"),
    ("second_sub_layer.query_net",),
    ("second_sub_layer.key_net", "second_sub_layer.value_net"),
)
"""Ends of names; the longest that fits counts. One alone is joined with nothing: gates of attention, queries of cross
attention."""

WRAPPERS = (".linear", ".base_layer")
"""Modules inside of a projection that hold its weight."""

PROVEN = """
apertus cohere cohere2 deepseek deepseek_v2 ernie4_5 ernie4_5_moe exaone exaone4 exaone_moe gemma gemma2 gemma3
gemma3_text gemma3n glm glm4 glm4_moe granite helium hunyuan_v1_dense internlm2 internlm3 iquestcoder jamba laguna lfm2
llama llava mellum mimo mimo_v2_flash ministral3 minicpm3 minimax_m2 mistral mistral3 mixtral muse_glimmer
nemotron olmo olmo2 olmo3 olmoe phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 solar_open stablelm
starcoder2
"""
"""Model types that were tried and need no row of their own."""

GENERIC = Family("generic", frozenset(PROVEN.split()))
