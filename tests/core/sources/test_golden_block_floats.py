"""Bytes that the packages themselves made, opened: every weight is what the package decodes it to, to the bit."""

from pathlib import Path

import numpy as np
import pytest

from studio import core
from tests.core.sources.golden import items, unpacked

ITEMS = items("block_floats")
MEANINGS = {
    "ct_fp8_block": "FP8 (E4M3), F32 scales of 64 x 64",
    "ct_fp8_channel_bf16": "FP8 (E4M3), BF16 scales of 1 x 96",
    "ct_fp8_tensor": "FP8 (E4M3), F32 scales of 48 x 96",
    "ct_mxfp4": "MXFP4, compressed-tensors",
    "ct_mxfp6": "MXFP6 (E2M3), compressed-tensors",
    "ct_mxfp8": "MXFP8 (E4M3)",
    "fp4_deepseek_v4_expert": "MXFP4, DeepSeek",
    "fp8_deepseek_v3": "FP8 (E4M3), F32 scales of 128 x 64",
    "fp8_deepseek_v41_32x32": "FP8 (E4M3), F8_E8M0 scales of 32 x 32",
    "fp8_fused_experts_3d": "FP8 (E4M3), F32 scales of 64 x 64",
    "gptoss_mxfp4": "MXFP4, gpt-oss",
    "mlx_mxfp4": "MXFP4, MLX",
    "mlx_mxfp8": "MXFP8 (E4M3), MLX",
    "mlx_nvfp4": "NVFP4, two tiers, MLX",
    "modelopt_fp8": "FP8 (E4M3), F32 scales of 96 x 64",
    "modelopt_fp8_pb_wo": "FP8 (E4M3), F32 scales of 32 x 32",
    "modelopt_mxfp4": "MXFP4, ModelOpt",
    "modelopt_mxfp8": "MXFP8 (E4M3)",
    "mxfp8_u8_scale_inv": "MXFP8 (E4M3)",
    "quark_fp8_channel": "FP8 (E4M3), BF16 scales of 1 x 64",
    "quark_fp8_tensor": "FP8 (E4M3), BF16 scales of 96 x 64",
    "quark_mxfp4": "MXFP4, Quark",
    "torchao_nvfp4": "NVFP4, three tiers, torchao",
}


@pytest.mark.parametrize("item", ITEMS)
def test_what_a_package_made_decodes_to_what_that_package_decodes(tmp_path: Path, item: str) -> None:
    folder, decoded = unpacked(tmp_path, item, ITEMS[item]["config"])
    with core.open_model(folder) as model:
        assert not model.quantized_by
        for name, wanted in decoded.items():
            layer = model.by_name[name.removesuffix(".weight")]
            assert layer.shape == wanted.shape
            found = layer.source.rows(layer.whole, 0, layer.whole.rows).reshape(layer.shape)
            np.testing.assert_array_equal(found.astype(wanted.dtype), wanted)


@pytest.mark.parametrize("item", ITEMS)
def test_what_a_layer_is_stored_as_is_said_in_the_same_way_for_all(tmp_path: Path, item: str) -> None:
    folder, decoded = unpacked(tmp_path, item, ITEMS[item]["config"])
    with core.open_model(folder) as model:
        layers = [model.by_name[name.removesuffix(".weight")] for name in decoded]
        assert layers[0].source.meaning == MEANINGS[item]
        assert {layer.source.bits for layer in layers} <= {4, 6, 8}
        assert all(f"FP{layer.source.bits}" in layer.source.meaning for layer in layers)


@pytest.mark.parametrize("item", ITEMS)
def test_what_is_in_a_format_is_handed_on_as_it_is_stored(tmp_path: Path, item: str) -> None:
    folder, decoded = unpacked(tmp_path, item, ITEMS[item]["config"])
    with core.open_model(folder) as model:
        for name in decoded:
            source = model.by_name[name.removesuffix(".weight")].source
            assert (source.format is None) == (not source.meaning.startswith(("MXFP4", "MXFP8", "NVFP4")))
