"""`generate`: continue prompts with a source and a quantized model, token by token, side by side.

{"event": "ready", "runtime": name, "version": text, "chat": bool}         the models are loaded; is there a template
{"event": "token", "number": n, "side": text, "index": i, "token": id, "text": text, "differs": bool}
{"event": "done", "number": n, "differs_at": i or null}                    a prompt is through

The first line that it waits for is {"source": folder, "model": folder}, either may be "". Then each line is a prompt
{"number": n, "prompt": text, "chat": bool, "length": n, "temperature": t, "seed": n}; a line "stop" ends the one at
hand, an empty line ends it all. Each side goes on with its own tokens: `differs` marks the first that is another one.
`text` is what a token adds, "" while it is but a part of a character.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.architectures.config import text_section
from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError, StudioError
from studio.core.names import printable
from studio.lm.predicting import Logits, Predictor, fitting_runtime, load_predictor, runtime_version
from studio.lm.protocol import Channel
from studio.lm.texts import Tokenizer, load_tokenizer

SIDES = ("source", "model")
STOP = "stop"
_PART = "\ufffd"


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `generate`."""
    parser.add_argument("folder", type=Path, help="whose tokenizer, template and architecture count")
    parser.add_argument("--runtime", default="", choices=("", "mlx-lm", "transformers"))


def generate(options: argparse.Namespace, channel: Channel) -> None:
    """Load both sides, then answer prompts."""
    runtime = fitting_runtime(options.folder, options.runtime or None)
    folders = json.loads(channel.answer())
    sides = {side: load_predictor(Path(folders[side]), runtime) for side in SIDES if folders[side]}
    prompts = Prompts(options.folder)
    channel.tell("ready", runtime=runtime, version=runtime_version(runtime), chat=bool(prompts.template))
    while line := channel.answer():
        if line != STOP:
            _answer(json.loads(line), sides, prompts, channel)
    channel.result()


def _answer(request: dict[str, Any], sides: dict[str, Predictor], prompts: "Prompts", channel: Channel) -> None:
    ids = prompts.ids(request["prompt"], chat=request["chat"])
    running = {side: _Side(predictor, ids, prompts) for side, predictor in sides.items()}
    draw, differs_at = np.random.default_rng(request["seed"]), None
    for index in range(request["length"]):
        if channel.is_asked() or all(side.ended for side in running.values()):
            break
        chance = draw.random() if request["temperature"] else None
        found = {name: side.advance(request["temperature"], chance) for name, side in running.items()}
        differs = differs_at is None and len(set(found.values())) > 1
        differs_at = index if differs else differs_at
        for name, token in found.items():
            if token is not None:
                told = {"index": index, "token": token, "text": running[name].added(), "differs": differs}
                channel.tell("token", number=request["number"], side=name, **told)
    channel.tell("done", number=request["number"], differs_at=differs_at)


class _Side:
    """One model on its way through a text."""

    def __init__(self, predictor: Predictor, prompt: Sequence[int], prompts: "Prompts") -> None:
        self._continue, self._prompts = predictor.conversation(), prompts
        self._next = list(prompt)
        self._ids: list[int] = []
        self._shown = ""
        self.ended = False

    def advance(self, temperature: float, chance: float | None) -> int | None:
        """The next token; None once the model has ended its text. `chance` in [0, 1) decides which one is drawn."""
        if self.ended:
            return None
        token = pick(self._continue(self._next), temperature, chance)
        self._next = [token]
        self._ids.append(token)
        self.ended = token in self._prompts.ends
        return token

    def added(self) -> str:
        """What its last token adds to the text, without half a character."""
        text = self._prompts.tokenizer.decode(self._ids)
        if text.endswith(_PART) and not self.ended:
            return ""
        added, self._shown = text[len(self._shown) :], text
        return added


def pick(logits: Logits, temperature: float = 0.0, chance: float | None = None) -> int:
    """The most likely token, the first of equals; with a `chance` in [0, 1) the token at that share of probability.

    The same chance gives both sides the same token where they predict alike. Raises CheckpointError for NaN.
    """
    wide: NDArray[np.float64] = logits.astype(np.float64)
    if np.isnan(wide).any():
        raise CheckpointError("the predictions of this model are no numbers", hint="measure shows what its layers lost")
    if chance is None:
        return int(wide.argmax())
    shares = np.exp((wide - wide.max()) / temperature).cumsum()
    return int(np.searchsorted(shares, chance * shares[-1], side="right"))


class Prompts:
    """How the checkpoint in a folder reads prompts, and the tokens that end its texts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tokenizer: Tokenizer = load_tokenizer(folder)
        self.template, self._format = _chat(folder)
        self.ends = _ends(folder)

    def ids(self, prompt: str, *, chat: bool) -> list[int]:
        """The tokens of a prompt, in the form of a conversation with `chat`. Raises StudioError."""
        if chat and not self.template:
            raise StudioError("it has no chat template", file=self._folder, hint="leave --chat out")
        if not prompt:
            raise StudioError("the prompt is empty", hint="give it a word to go on from")
        start = [] if chat else list(self.tokenizer.start)
        ids = [*start, *self.tokenizer.encode(self._format(prompt) if chat else prompt)]
        return [int(token) for token in ids]


def _chat(folder: Path) -> tuple[str, Any]:
    """The chat template, "" without one, and what puts a question into it; templates run in jinja's sandbox."""
    if not (folder / "tokenizer_config.json").is_file() and not (folder / "chat_template.jinja").is_file():
        return "", None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # what is wrong with it matters to those who ask for the template alone
        return "", None

    def formatted(prompt: str) -> str:
        question = [{"role": "user", "content": prompt}]
        try:
            return str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
        except Exception as error:
            what = f"its chat template fails: {printable(error, 300)}"
            raise StudioError(what, file=folder, hint="leave --chat out") from None

    return str(tokenizer.chat_template or ""), formatted


def _ends(folder: Path) -> frozenset[int]:
    """The tokens that end a text: those of generation_config.json and of config.json."""
    found: list[Any] = []
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            data = read_object(folder / name, constants=True)
            said = [section.get("eos_token_id") for section in (data, text_section(data))]
            found += [token for value in said for token in (value if isinstance(value, list) else [value])]
    return frozenset(token for token in found if isinstance(token, int))
