"""transformers loads the tokenizer of the demo as it is: no token is added, and every text comes back."""

import subprocess
import sys

import pytest

from studio import core
from tests.runtimes.worker import missing

LOAD = """
import sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
text = "Hello, world!  Once upon a time: <|end|> d\\u00e9j\\u00e0 vu\\n\\u6a21"
ids = tokenizer(text)["input_ids"]
assert tokenizer.decode(ids) == text, ids
assert (len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id) == (4096, 0, 0), tokenizer
"""


@pytest.mark.proof
def test_the_tokenizer_of_the_demo_adds_no_token_and_gives_every_text_back() -> None:
    if reason := missing({"transformers": ""}):
        pytest.skip(f"{reason}; the extra `runtimes` brings it")
    command = [sys.executable, "-c", LOAD, str(core.demo_checkpoint())]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
