"""mlx-lm and transformers compute the same from the same export: neither misreads the config that it was given."""

import numpy as np
import pytest

TOKENS = [(137 * i + 11) % 4096 for i in range(48)]
FORMATS = [["*", "nvfp4-2t"]]


@pytest.mark.proof
@pytest.mark.parametrize("name", ["demo", "llama", "moe"])
def test_both_runtimes_give_the_same_logits_in_float32(name, export, mlx_lm, transformers, tmp_path):
    """The Llama scales its rotary embedding by frequency; the experts have another rotary base than mlx-lm assumes."""
    files = {kind: tmp_path / f"{kind}.npy" for kind in ("mlx", "compressed-tensors")}
    folders = {kind: export(name, kind, "nvfp4-2t") for kind in files}
    mlx_lm.ask("compare", folder=folders["mlx"], formats=FORMATS, tokens=TOKENS, logits_file=files["mlx"])
    kind = "compressed-tensors"
    transformers.ask("compare", folder=folders[kind], tokens=TOKENS, logits_file=files[kind])

    ours, theirs = (np.load(file) for file in files.values())
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
