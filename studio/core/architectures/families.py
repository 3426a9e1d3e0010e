"""The table: a row per family whose names or loaders differ from the generic row, which comes last."""

from studio.core.architectures.family import Family, MlxNames, Rename, Stack, TransformersNames
from studio.core.architectures.generic import GENERIC

_KV_B = r"\.kv_b_proj$"
_EXPERTS = r"\.experts\."
_NO_SINGLE = "transformers 5.23 loads the experts of this architecture in one piece only, which can not be packed"
_BY_NAME = "transformers 5.23 joins tensors of this architecture while loading, and can not join packed ones"
_CONV1D = "transformers runs it as Conv1D, which compressed-tensors does not pack"
_ONE_PIECE = TransformersNames(kept=_EXPERTS, why=_NO_SINGLE)

_LANGUAGE_MODEL: tuple[Rename, ...] = (
    (r"^model\.language_model\.", "language_model.model."),
    (r"^(?:model\.)?(?!language_model\.)(?=layers\.|embed_tokens|norm\b)", "language_model.model."),
    (r"^lm_head$", "language_model.lm_head"),
)


def _types(text: str) -> frozenset[str]:
    return frozenset(text.split())


FAMILIES: tuple[Family, ...] = (
    Family(
        "latent attention",
        _types(
            "deepseek_v3 deepseek_v32 kimi_k2 kimi_k25 joyai_llm_flash glm4_moe_lite glm_moe_dsa longcat_flash "
            "longcat_flash_ngram bailing_moe_v3"
        ),
        mlx=MlxNames(keep=_KV_B),
    ),
    Family("Mistral 4", _types("mistral4"), mlx=MlxNames(keep=_KV_B), transformers=_ONE_PIECE),
    Family(
        "Ling hybrid",
        _types("bailing_hybrid"),
        mlx=MlxNames(keep=_KV_B),
        transformers=TransformersNames(refused=_BY_NAME),
    ),
    Family(
        "Kimi Linear",
        _types("kimi_linear"),
        mlx=MlxNames(keep=_KV_B, stored=((r"\.block_sparse_moe\b(?!\.gate\.e_score)", ".mlp"),)),
        transformers=TransformersNames(refused=_BY_NAME),
    ),
    Family(
        "Kimi K3",
        _types("kimi_k3"),
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
    ),
    Family(
        "Llama 4",
        _types("llama4 llama4_text"),
        stacks=(
            Stack(r"^(?P<stack>.+)\.experts\.gate_up_proj$", ("gate_proj", "up_proj"), input_first=True),
            Stack(r"^(?P<stack>.+)\.experts\.(?P<projection>down_proj)$", input_first=True),
        ),
        mlx=MlxNames(stack="{stack}.experts.{projection}"),
        transformers=TransformersNames(split=True),
    ),
    Family("experts as a module", _types("dots1 afmoe Klear"), mlx=MlxNames(stack="{stack}.experts.{projection}")),
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
        "Granite MoE",
        _types("granitemoe granitemoehybrid granitemoeshared"),
        transformers=TransformersNames(kept=r"\.block_sparse_moe\.", why=_NO_SINGLE),
    ),
    Family(
        "DBRX",
        _types("dbrx"),
        stacks=(
            Stack(r"^(?P<stack>.+)\.experts\.mlp\.(?P<projection>w1|v1)$", experts="ffn_config.moe_num_experts"),
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
    Family("Step 3.5", _types("step3p5"), mlx=MlxNames(stack="{stack}.{projection}")),
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
        transformers=TransformersNames(kept=r"\.(c_attn|q_attn|c_proj|c_fc)$", why=_CONV1D),
    ),
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
        _types("phixtral"),
        experts=r"^(?P<stack>.+\.moe)\.mlp\.(?P<expert>\d{1,9})\.(?P<projection>fc1|fc2)$",
    ),
    Family("MiniMax M3", _types("minimax_m3_vl"), transformers=TransformersNames(refused=_BY_NAME)),
    Family("OLMo hybrid", _types("olmo_hybrid"), transformers=TransformersNames(refused=_BY_NAME)),
    Family(
        "initialized by name",
        _types("mamba mamba2 falcon_mamba gpt_bigcode nanochat recurrent_gemma"),
        transformers=TransformersNames(dequantized=True),
    ),
    GENERIC,
)
