"""Model types of transformers that mlx-lm does not have, with what their configurations need beside small sizes."""

from typing import Any

from tests.architectures.multimodal import MROPE

_TEXT = """
arcee aria_text axk1 axk2 bamba bart beam bert bert-generation big_bird bigbird_pegasus biogpt blenderbot
blenderbot-small bloom camembert codegen cohere2_moe cpmant ctrl cwm data2vec-text deepseek_v4 diffllama doge electra
ernie falcon flex_olmo flint fuyu gpt-sw3 gpt_neo gpt_neox_japanese granite_swa granitemoe_swa granitemoeshared
hrm_text hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling2_text inkling_text jais2 jetmoe kolibri1 lfm3 marian mbart
megatron-bert minimax_m3_vl_text ministral modernbert-decoder moshi mpt mvp openai-gpt opt pegasus persimmon plbart
prophetnet qwen3_5_moe_text qwen3_5_text rembert roberta roc_bert roformer rwkv vaultgemma xglm xlm
xlm-roberta xlm-roberta-xl xlnet xlstm xmod youtu zamba zamba2 zaya
"""
_PICTURES = """
aria aya_vision blip blip-2 cohere2_vision cosmos3_edge cosmos3_omni deepseek_vl deepseek_vl_hybrid exaone4_5
git glm46v glm4v glm4v_moe glm_ocr glmga got_ocr2 granite_docling hunyuan_vl hyperclovax_vision_v2 idefics idefics2
idefics3 inkling2 instructblip instructblipvideo internvl kosmos-2 kosmos-2.5 lfm2_vl lighton_ocr llava_next
llava_next_video llava_onevision minicpm_ocr minicpmv4_6 minicpmv4_7 mistral_large4 mllama nemotron_h_omni ovis2
paddleocr_vl paligemma phi4_multimodal pi0 pix2struct pp_chart2table pp_formulanet qianfan_ocr qwen2_5_omni_thinker
qwen3_omni_moe_thinker shieldgemma2 smolvlm step3p7 t5gemma2 trocr udop unlimited_ocr video_llama_3 video_llava
vipllava vision-encoder-decoder
"""
_SOUNDS = """
audioflamingo3 canary cohere_asr dia fun_asr_nano glmasr granite_speech granite_speech_plus moonshine
moss_transcribe_diarize musicflamingo pop2piano qwen2_audio qwen3_asr seamless_m4t seamless_m4t_v2
speech-encoder-decoder speech_to_text speecht5 voxtral voxtral_realtime whisper
"""
_SEQUENCES = """
encoder-decoder fsmt led longt5 m2m_100 mt5 nllb-moe pegasus_x switch_transformers t5 t5gemma umt5
"""
_ALIKE = {"num_key_value_heads": 4}
_WHOLE_MROPE = {**MROPE, "partial_rotary_factor": 1.0}
_GIVEN: dict[str, dict[str, Any]] = {
    "axk1": _ALIKE,
    "axk2": _ALIKE,
    "cosmos3_edge": {"text_config": {"rope_parameters": MROPE}},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 32}},
    "glm46v": {"text_config": {"rope_parameters": _WHOLE_MROPE}},
    "glm4v": {"text_config": {"rope_parameters": _WHOLE_MROPE}},
    "glm4v_moe": {"text_config": {"rope_parameters": _WHOLE_MROPE, "head_dim": 32}},
    "glm_ocr": {"text_config": {"rope_parameters": _WHOLE_MROPE}},
    "glmga": {"text_config": {"rope_parameters": _WHOLE_MROPE}},
    "gpt_neo": {
        "attention_types": [[["global", "local"], 1]],
        "attention_layers": ["global", "local"],
        "num_layers": 2,
    },
    "hunyuan_v1_moe": {"head_dim": 32},
    "hunyuan_vl": {"text_config": {"head_dim": 32}},
    "inkling2": {"vision_config": {"text_hidden_size": 128}, "audio_config": {"text_hidden_size": 128}},
    "ministral": {"head_dim": 32},
    "mistral_large4": {"text_config": _ALIKE},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}},
    "paddleocr_vl": {"text_config": {"rope_parameters": MROPE}},
    "qwen2_5_omni_thinker": {"text_config": {"rope_parameters": MROPE}},
    "step3p7": {"text_config": {"sliding_window": 8}},
    "xmod": {"default_language": "en_XX"},
    "youtu": _ALIKE,
    "zaya": {"num_experts_per_tok": 1},
}

OTHERS: dict[str, dict[str, Any]] = {
    kind: _GIVEN.get(kind, {}) for kind in f"{_TEXT} {_PICTURES} {_SOUNDS} {_SEQUENCES}".split()
}
"""By model type: the fields, and sections with fields, that are not shrunk by their names."""
