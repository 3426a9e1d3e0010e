"""The table: a row per family whose names or loaders differ from the generic row, which comes last."""

from studio.core.architectures.family import Family, MlxNames, Rename, Stack, TorchNames, named
from studio.core.architectures.generic import GENERIC
from studio.core.architectures.joined import ONE_PIECE

_KV_B = r"\.kv_b_proj$"
_EXPERTS = r"\.experts\."
_BY_NAME = "transformers 5.23 joins tensors of this architecture while loading, and can not join packed ones"
_CONV1D = "transformers runs it as Conv1D, which compressed-tensors does not pack"
_ONE_PIECE = TorchNames(kept=_EXPERTS, why=ONE_PIECE)

_LANGUAGE_MODEL: tuple[Rename, ...] = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^(?:model\.)?(?!language_model\.)(?=layers\.|embed_tokens|norm\b)", "language_model.model."),
    (r"^lm_head$", "language_model.lm_head"),
)


_LLAMA4_STACKS = (
    Stack(r"^(?P<stack>.+)\.experts\.gate_up_proj$", ("gate_proj", "up_proj"), input_first=True),
    Stack(r"^(?P<stack>.+)\.experts\.(?P<projection>down_proj)$", input_first=True),
)
_NUMBERED_EXPERTS = r"^(?P<stack>.+)\.experts\.expert_(?P<expert>\d{1,9})\.(?P<projection>[^.]+)$"
_PLAIN_TOO = "mlx-lm 0.32.2 does not load this architecture, not even unquantized"


def _types(text: str) -> frozenset[str]:
    return frozenset(text.split())


FAMILIES: tuple[Family, ...] = (
    Family(
        "draft model",
        _types("eagle eagle3 medusa mlp_speculator speculators"),
        architectures=r"ForCausalLMEagle|^Eagle(3[A-Z]|Mistral|DeepSeek|MiniCPM)|Medusa|Speculator|MTPModel|DraftModel",
        part="draft",
    ),
    Family(
        "codec",
        _types("mimi encodec dac vits parakeet_encoder hifigan xcodec xcodec2 snac univnet speecht5_hifigan"),
        part="audio",
    ),
    Family(
        "image encoder",
        _types(
            "siglip_vision_model siglip2_vision_model clip_vision_model dinov2 dinov2_with_registers dinov3_vit vit"
            " ijepa pixtral_vision_model"
        ),
        part="vision",
    ),
    Family(
        "speech encoder",
        _types(
            "whisper moonshine moonshine_streaming canary kimi_audio granite_speech granite_speech_plus cohere_asr"
            " parakeet_ctc speech_to_text speech-encoder-decoder lasr_ctc"
        ),
        roles=(
            ("audio", r"^(?:model\.)?(?:encoder|mimo_layers|mimo_norm)(?:\.|$)"),
            ("head", named(r"mimo_output log_softmax\.mlp\.layer\d")),
        ),
        transformers=TorchNames(module=((r"encoder_decoder_proj$", "decoder.proj"),)),
    ),
    Family(
        "picture encoder",
        _types("vision-encoder-decoder pp_formulanet"),
        roles=(("vision", r"^(?:model\.)?encoder\."),),
    ),
    Family(
        "Pix2Struct",
        _types("pix2struct"),
        roles=(("vision", r"^encoder\."),),
        transformers=TorchNames(dequantized=True),
    ),
    Family(
        "SpeechT5",
        _types("speecht5"),
        roles=(("audio", r"\.encoder\.prenet\.(?!embed_tokens)|\.decoder\.prenet\.(?:layers|final_layer|speaker)"),),
    ),
    Family("SigLIP", _types("clip siglip siglip2"), roles=(("projector", r"^text_model\.head$"),)),
    Family("AIMv2 tower", _types("dots_ocr ovis"), fused=(("fc1", "fc3"),)),
    Family(
        "GLM-4V",
        _types("chatglm"),
        roles=(("projector", r"\.vision\.conv(?:\.|$)"),),
        fused=(("linear_proj.gate_proj", "linear_proj.dense_h_to_4h"),),
    ),
    Family(
        "Cosmos 3",
        _types("cosmos3_omni"),
        roles=(("vision", r"^(?:blocks|merger|deepstack_merger_list|patch_embed|pos_embed)\."),),
    ),
    Family(
        "Moondream",
        _types("moondream1 moondream3"),
        roles=(("other", r"(?:^|\.)region\."), ("gate", r"\.tau\.w\w$")),
        stacks=(Stack(r"^(?P<stack>.+\.mlp)\.(?P<projection>fc1|fc2)$", input_first=False),),
    ),
    Family(
        "Inkling",
        _types("inkling_mm_model inkling2"),
        roles=(("gate", named(r"rel_logits_proj\.proj")),),
        fused=(("wq_du", "wk_dv", "wv_dv", "wr_du"),),
        stacks=(
            Stack(
                r"^(?P<stack>.+\.(?:shared_)?experts)\.(?:shared_)?w13_weight$",
                ("gate_proj", "up_proj"),
                interleaved=True,
                input_first=False,
            ),
            Stack(r"^(?P<stack>.+\.(?:shared_)?experts)\.(?:shared_)?(?P<projection>w2)_weight$", input_first=False),
        ),
    ),
    Family(
        "Aria",
        _types("aria aria_text"),
        stacks=(
            Stack(r"^(?P<stack>.+)\.experts\.fc1$", ("gate_proj", "up_proj"), input_first=True),
            Stack(r"^(?P<stack>.+)\.experts\.(?P<projection>fc2)$", input_first=True),
        ),
    ),
    Family(
        "Grok 1",
        _types("grok-1"),
        experts=r"^(?P<stack>.+\.moe)\.(?P<expert>\d{1,9})\.(?P<projection>linear|linear_v|linear_1)$",
        fused=(("linear", "linear_v"),),
    ),
    Family("SmallThinker", _types("smallthinker"), fused=(("gate", "up"),)),
    Family(
        "GroveMoE",
        _types("grovemoe"),
        experts=r"^(?P<stack>.+\.chunk_experts)\.(?P<expert>\d{1,9})\.(?P<projection>[^.]+)$",
    ),
    Family("NLLB MoE", _types("nllb-moe"), experts=_NUMBERED_EXPERTS),
    Family(
        "Switch",
        _types("switch_transformers"),
        experts=_NUMBERED_EXPERTS,
        transformers=TorchNames(dequantized=True),
    ),
    Family(
        "JetMoE",
        _types("jetmoe"),
        stacks=(Stack(r"^(?P<stack>.+\.self_attention)\.experts\.(?P<projection>\w+_linear)$", input_first=False),),
    ),
    Family(
        "Nomic",
        _types("nomic_bert"),
        stacks=(
            Stack(r"^(?P<stack>.+)\.experts\.mlp\.(?P<projection>w1)$", input_first=False, experts="num_experts"),
            Stack(r"^(?P<stack>.+)\.experts\.mlp\.(?P<projection>w2)$", input_first=True, experts="num_experts"),
        ),
    ),
    Family("Qwen 1", _types("qwen"), fused=(("w2", "w1"),)),
    Family(
        "DeepSeek V4",
        _types("deepseek_v4 deepseek_v41"),
        roles=(
            ("gate", named(r"hc_\w+_fn compressor\.(?:wkv|wgate)")),
            ("embedding", named(r"compressor\.ape")),
        ),
        fused=(("compressor.wkv", "compressor.wgate"), ("wq_a", "wkv")),
        transformers=TorchNames(
            module=(
                (r"\.indexer\.compressor\.", ".indexer."),
                (r"\.wkv$", ".kv_proj"),
                (r"\.wgate$", ".gate_proj"),
                (r"\.weights_proj$", ".scorer.weights_proj"),
            )
        ),
        mlx=MlxNames(refused="mlx-lm 0.32.2 loads DeepSeek V4 only in the eight and four bits that it is published in"),
    ),
    Family(
        "RWKV",
        _types("rwkv rwkv5 rwkv6 rwkv7"),
        roles=(
            ("linear", named(r"attention\.gate")),
            ("gate", named(r"time_(?:maa|decay)_w[12] [wavgk]_lora\.lora\.\d+")),
        ),
        fused=(("key",), ("value",), ("k_proj",), ("v_proj",)),
        transformers=TorchNames(dequantized=True),
    ),
    Family(
        "xLSTM",
        _types("xlstm"),
        roles=(("gate", named("[if]gate_preact")),),
        fused=(("q",), ("k",), ("v",)),
        transformers=TorchNames(dequantized=True),
    ),
    Family("IQuest loop coder", _types("iquestloopcoder"), roles=(("gate", r"^model\.gate_projections\."),)),
    Family(
        "Klear",
        _types("Klear"),
        roles=(("gate", named("coefficient")),),
        mlx=MlxNames(stack="{stack}.experts.{projection}"),
    ),
    Family("XLNet", _types("xlnet"), roles=(("linear", named(r"rel_attn\.[qkvor]")),)),
    Family("CTRL", _types("ctrl"), roles=(("embedding", r"^transformer\.w$"),)),
    Family(
        "latent attention",
        _types(
            "deepseek_v3 deepseek_v32 kimi_k2 kimi_k25 joyai_llm_flash glm4_moe_lite glm_moe_dsa longcat_flash "
            "longcat_flash_ngram"
        ),
        mlx=MlxNames(keep=_KV_B),
    ),
    Family(
        "Ling 3",
        _types("bailing_moe_v3"),
        fused=(("q_proj", "k_proj", "v_proj", "b_proj"),),
        mlx=MlxNames(keep=_KV_B),
    ),
    Family("Mistral 4", _types("mistral4"), mlx=MlxNames(keep=_KV_B), transformers=_ONE_PIECE),
    Family(
        "Ling hybrid",
        _types("bailing_hybrid"),
        roles=(("gate", named("f_proj")),),
        fused=(("q_proj", "k_proj", "v_proj", "b_proj"),),
        mlx=MlxNames(keep=_KV_B),
        transformers=TorchNames(refused=_BY_NAME),
    ),
    Family(
        "Kimi Linear",
        _types("kimi_linear"),
        fused=(("q_proj", "k_proj", "v_proj", "b_proj", "f_a_proj"),),
        mlx=MlxNames(keep=_KV_B, stored=((r"\.block_sparse_moe\b(?!\.gate\.e_score)", ".mlp"),)),
        transformers=TorchNames(refused=_BY_NAME),
    ),
    Family(
        "Kimi K3",
        _types("kimi_k3"),
        fused=(("q_proj", "k_proj", "v_proj", "b_proj", "f_a_proj"),),
        mlx=MlxNames(
            keep=_KV_B,
            two_tiers=r"\.self_attn\.[qkv]_proj$",
            module=((r"\.block_sparse_moe\.", ".mlp."),),
        ),
    ),
    Family(
        "Qwen3-Next",
        _types("qwen3_next"),
        mlx=MlxNames(
            plus_one=r"(\.input_layernorm|\.post_attention_layernorm|^model\.norm|\.q_norm|\.k_norm)$",
            moved=r"\.conv1d$",
        ),
    ),
    Family(
        "A.X K2",
        _types("axk2"),
        transformers=TorchNames(module=((r"norm\.W_down$", "norm.mlp.fc1"), (r"norm\.W_up$", "norm.mlp.fc2"))),
    ),
    Family("Qwen3.5", _types("qwen3_5 qwen3_5_moe"), mlx=MlxNames(module=_LANGUAGE_MODEL)),
    Family("Qwen-VL", _types("qwen2_vl qwen2_5_vl qwen3_vl"), mlx=MlxNames(module=_LANGUAGE_MODEL)),
    Family(
        "Qwen3-VL-MoE",
        _types("qwen3_vl_moe"),
        stacks=(
            Stack(r"^(?P<stack>.+)\.experts\.gate_up_proj$", ("gate_proj", "up_proj"), square=True),
            Stack(r"^(?P<stack>.+)\.experts\.(?P<projection>down_proj)$", square=True),
        ),
        mlx=MlxNames(module=_LANGUAGE_MODEL),
        transformers=_ONE_PIECE,
    ),
    Family(
        "Gemma 4",
        _types("gemma4 gemma4_text gemma4_unified"),
        mlx=MlxNames(module=_LANGUAGE_MODEL[:1], stack="{stack}.experts.switch_glu.{projection}"),
        transformers=_ONE_PIECE,
    ),
    Family(
        "gpt-oss",
        _types("gpt_oss"),
        roles=(("expert", named(r"experts\.(?:gate_up|down)_proj(?:_blocks|s\.\d+)")),),
        stacks=(
            Stack(
                r"^(?P<stack>.+)\.experts\.gate_up_proj$", ("gate_proj", "up_proj"), interleaved=True, input_first=True
            ),
            Stack(r"^(?P<stack>.+)\.experts\.(?P<projection>down_proj)$", input_first=True),
        ),
        mlx=MlxNames(
            stack="{stack}.experts.{projection}",
            bias=(
                (r"^(.+)\.experts\.gate_up_proj_bias$", ("gate_proj", "up_proj")),
                (r"^(.+)\.experts\.down_proj_bias$", ("down_proj",)),
            ),
        ),
        transformers=_ONE_PIECE,
        vllm=TorchNames(
            kept=_EXPERTS, why="vLLM 0.25 loads the experts of this architecture in one piece only, plain or in MXFP4"
        ),
    ),
    Family(
        "privacy filter",
        _types("openai_privacy_filter"),
        stacks=(
            Stack(r"^(?P<stack>.+)\.experts\.gate_up_proj$", ("gate_proj", "up_proj"), input_first=True),
            Stack(r"^(?P<stack>.+)\.experts\.(?P<projection>down_proj)$", input_first=True),
        ),
    ),
    Family("Llama 4 text without experts", _types("llama4_text"), only_without="num_local_experts"),
    Family(
        "Llama 4 text",
        _types("llama4_text"),
        stacks=_LLAMA4_STACKS,
        mlx=MlxNames(refused="mlx-lm 0.32.2 runs llama4_text without experts only"),
        transformers=TorchNames(split=True),
    ),
    Family(
        "Llama 4",
        _types("llama4"),
        stacks=_LLAMA4_STACKS,
        mlx=MlxNames(stack="{stack}.experts.{projection}"),
        transformers=TorchNames(split=True),
    ),
    Family("experts as a module", _types("dots1 afmoe"), mlx=MlxNames(stack="{stack}.experts.{projection}")),
    Family(
        "Nemotron-H",
        _types("nemotron_h"),
        mlx=MlxNames(projections=(("up_proj", "fc1"), ("down_proj", "fc2"))),
    ),
    Family(
        "LFM2 MoE",
        _types("lfm2_moe"),
        mlx=MlxNames(
            stored=(
                (r"\.feed_forward\.w1$", ".feed_forward.gate_proj"),
                (r"\.feed_forward\.w2$", ".feed_forward.down_proj"),
                (r"\.feed_forward\.w3$", ".feed_forward.up_proj"),
            )
        ),
    ),
    Family(
        "Granite hybrid without experts",
        _types("granitemoehybrid"),
        only_without="num_local_experts",
        mlx=MlxNames(keep=r"\.shared_mlp\.(input|output)_linear$"),
    ),
    Family(
        "Granite MoE",
        _types("granitemoe granitemoehybrid granitemoeshared"),
        transformers=TorchNames(kept=r"\.block_sparse_moe\.", why=ONE_PIECE),
    ),
    Family(
        "DBRX",
        _types("dbrx"),
        stacks=(
            Stack(
                r"^(?P<stack>.+)\.experts\.mlp\.(?P<projection>w1|v1)$",
                input_first=False,
                experts="ffn_config.moe_num_experts",
            ),
            Stack(
                r"^(?P<stack>.+)\.experts\.mlp\.(?P<projection>w2)$",
                input_first=True,
                experts="ffn_config.moe_num_experts",
            ),
        ),
        fused=(("w1", "v1"),),
        mlx=MlxNames(stack=""),
        transformers=_ONE_PIECE,
    ),
    Family(
        "Step 3.5",
        _types("step3p5 step3p7"),
        roles=(("gate", named("g_proj")),),
        mlx=MlxNames(stack="{stack}.{projection}"),
        transformers=TorchNames(refused=_BY_NAME),
    ),
    Family(
        "Muse Spark",
        _types("muse_spark"),
        mlx=MlxNames(stack="{stack}.experts.{projection}", two_tiers=r"\.self_attn\.(q_proj|k_proj|v_proj|gate_proj)$"),
        transformers=_ONE_PIECE,
    ),
    Family(
        "GPT-2",
        _types("gpt2"),
        input_first=r"\.(c_attn|q_attn|c_proj|c_fc)$",
        mlx=MlxNames(
            stored=((r"^(?:transformer\.)?(h\.\d+\.(?:attn|mlp)\.c_\w+)$", r"model.\1"), (r"^transformer\.", ""))
        ),
        transformers=TorchNames(kept=r"\.(c_attn|q_attn|c_proj|c_fc)$", why=_CONV1D),
    ),
    Family(
        "Conv1D",
        _types("openai-gpt imagegpt decision_transformer"),
        input_first=r"\.(c_attn|q_attn|c_proj|c_fc)$",
        transformers=TorchNames(kept=r"\.(c_attn|q_attn|c_proj|c_fc)$", why=_CONV1D),
    ),
    Family(
        "ERNIE VL",
        _types("ernie4_5_moe_vl ernie4_5_vl_moe"),
        input_first=r"\.gate(\.weight_1)?$",
        transformers=TorchNames(refused=_BY_NAME),
    ),
    Family("GLM 5 Next", _types("glm5_next glm5_next_text"), transformers=TorchNames(refused=_BY_NAME)),
    Family(
        "GPT-NeoX",
        _types("gpt_neox"),
        mlx=MlxNames(module=((r"^(?!model\.)", "model."), (r"\.gpt_neox\.layers\.", ".h."), (r"\.gpt_neox\.", "."))),
    ),
    Family("GPT-J", _types("gptj"), mlx=MlxNames(module=((r"\btransformer\.", "model."),))),
    Family(
        "Falcon H1",
        _types("falcon_h1"),
        mlx=MlxNames(refused="mlx-lm multiplies this architecture's multipliers into the weights while loading"),
    ),
    Family(
        "head with a norm",
        _types("baichuan_m1 bailing_moe bailing_moe_linear"),
        mlx=MlxNames(keep=r"^lm_head$"),
    ),
    Family("Hunyuan", _types("hunyuan"), mlx=MlxNames(two_tiers=r"\.(qkv_proj|gate_and_up_proj)$")),
    Family(
        "Phixtral",
        _types("phixtral phi-msft"),
        experts=r"^(?P<stack>.+\.moe)\.mlp\.(?P<expert>\d{1,9})\.(?P<projection>fc1|fc2)$",
    ),
    Family(
        "MiniMax M3",
        _types("minimax_m3_vl minimax_m3"),
        fused=(("q_proj", "k_proj", "v_proj", "index_q_proj", "index_k_proj"),),
        transformers=TorchNames(refused=_BY_NAME),
    ),
    Family(
        "joined by makers",
        _types("hrm_text molmo2 molmo2_text qianfan_ocr"),
        transformers=TorchNames(
            refused="transformers 5.23 takes tensors of this architecture apart while loading,"
            " and can not take packed ones apart"
        ),
    ),
    Family(
        "Zamba",
        _types("zamba zamba2"),
        transformers=TorchNames(
            kept=r"\.shared_transf(?:ormer)?\.",
            why="transformers ties these layers over blocks, which packed ones can not be",
        ),
    ),
    Family(
        "OLMo hybrid",
        _types("olmo_hybrid"),
        fused=(("linear_attn.q_proj", "linear_attn.k_proj", "linear_attn.v_proj", "linear_attn.g_proj"),),
        transformers=TorchNames(refused=_BY_NAME),
    ),
    Family(
        "initialized by name",
        _types(
            "blt falcon falcon_mamba gpt_bigcode kosmos-2 longt5 mamba mamba2 modernbert-decoder mt5"
            " pop2piano recurrent_gemma t5 udop umt5"
        ),
        transformers=TorchNames(dequantized=True),
    ),
    Family(
        "nanochat",
        _types("nanochat"),
        mlx=MlxNames(refused=_PLAIN_TOO),
        transformers=TorchNames(dequantized=True),
    ),
    Family("not in mlx-lm", _types("minimax bitnet"), mlx=MlxNames(refused=_PLAIN_TOO)),
    GENERIC,
)
