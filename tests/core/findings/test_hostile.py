"""Whatever documents and headers say, the doctor ends with findings."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.checkpoints import FP8
from tests.core.findings.building import Draft, draft
from tests.core.findings.examining import examined

VALUES = (
    None,
    True,
    0,
    -1,
    4,
    3.5,
    "",
    "x",
    "nvfp4",
    [],
    {},
    ["re:("],
    ["*"],
    [1],
    {"a": 1},
    {"group_0": None},
    10**30,
)
KEYS = ("quantization_config", "quantization", "rope_parameters", "dtype", "ignore", "config_groups", "quant_algo")
MORE_KEYS = ("quant_method", "targets", "group_size", "mode", "num_hidden_layers", "text_config", "weight_map")
DTYPES = (np.uint8, np.int8, FP8, np.float16, np.float32, np.uint32, np.bool_)


def _places(value: Any) -> Iterator[Any]:
    """A JSON value and all objects and lists in it."""
    if isinstance(value, (dict, list)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _places(item)


def _spoil(value: Any, chance: random.Random) -> None:
    place = chance.choice(list(_places(value)))
    if isinstance(place, list):
        place.append(copy.deepcopy(chance.choice(VALUES)))
    else:
        place[chance.choice([*KEYS, *MORE_KEYS, *place])] = copy.deepcopy(chance.choice(VALUES))


@pytest.mark.parametrize("layout", ["plain", "modelopt", "compressed-tensors", "mlx"])
def test_documents_of_any_content(tmp_path: Path, layout: str) -> None:
    folder = draft(layout, shards=2).write(tmp_path / "m")
    chance = random.Random(layout)  # noqa: S311 - the same each time
    for path in (path for path in sorted(folder.glob("*.json")) if path.name != "tokenizer.json"):
        good = path.read_text()
        for _ in range(4):
            content = json.loads(good)
            for _ in range(chance.randint(1, 4)):
                _spoil(content, chance)
            path.write_text(json.dumps(content))
            examined(folder, quick=True)
        path.write_text(good)


def _other_form(array: Any, chance: random.Random) -> Any:
    """The same bytes, or a part of them, in another dtype or shape."""
    raw = array.reshape(-1).view(np.uint8)
    kind = np.dtype(chance.choice(DTYPES))
    flat = raw[: raw.size // kind.itemsize * kind.itemsize].view(kind) if kind != np.bool_ else raw % 2 == 1
    return chance.choice((flat, flat[:1].reshape(()), flat.reshape(1, -1), array.T.copy(), flat.reshape(-1, 1)))


def _renamed(made: Draft, chance: random.Random) -> None:
    name = chance.choice(list(made.tensors))
    part = name.rpartition(".")[0]
    leaf = chance.choice(("weight", "weight_scale", "scales", "weight_packed", "weight_scale_inv", "qweight"))
    made.tensors[f"{part}.{leaf}"] = made.tensors.pop(name)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("layout", ["plain", "modelopt", "compressed-tensors", "mlx"])
def test_tensors_of_any_form(tmp_path: Path, layout: str) -> None:
    chance = random.Random(layout)  # noqa: S311 - the same each time
    for _ in range(4):
        made = draft(layout)
        for name in chance.sample(list(made.tensors), 3):
            made.tensors[name] = _other_form(made.tensors[name], chance)
        _renamed(made, chance)
        examined(made.write(tmp_path / "m"))
