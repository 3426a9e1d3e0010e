"""ResultCache: what was measured once, by content and recipe, is never measured again."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.model import Model
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult

Key = tuple[Any, ...]
_BITS = 63


class ResultCache:
    """The results of a session.

    A key holds the file's identity, the tensor, the recipe, what told of the inputs, and the layers that share a tensor
    scale: when one of them leaves the group, the scale of the others changes.
    """

    def __init__(self, known: Iterable[tuple[Choice, Sequence[str], LayerResult]] = ()) -> None:
        self._results = {_key(choice, peers): result for choice, peers, result in known}

    def __len__(self) -> int:
        return len(self._results)

    def find(self, choice: Choice, peers: Sequence[str]) -> LayerResult | None:
        """The result for `choice`, whose tensor scale is shared with the layers called `peers`."""
        found = self._results.get(_key(choice, peers))
        return replace(found, reason=choice.reason) if found and found.reason != choice.reason else found

    def add(self, choice: Choice, peers: Sequence[str], result: LayerResult) -> None:
        """Remember the result of `choice`."""
        self._results[_key(choice, peers)] = result

    def update(self, other: "ResultCache") -> None:
        """Remember what `other` does, too."""
        self._results.update(other._results)

    def forget(self, model: Model) -> None:
        """Remember nothing of the files of `model`."""
        paths = {file.path for file in model.files}
        self._results = {key: result for key, result in self._results.items() if key[0] not in paths}

    def trim(self, model: Model, most: int) -> None:
        """Of files other than those of `model`, or of what they were before, remember the newest `most` results."""
        files = {(file.path, file.fingerprint) for file in model.files}
        others = [key for key in self._results if key[:2] not in files]
        for key in others[: max(len(others) - most, 0)]:
            del self._results[key]


def _key(choice: Choice, peers: Sequence[str]) -> Key:
    stored = choice.layer.stored
    guide = choice.guide.meaning if choice.guide else ""
    return (stored.file.path, stored.file.fingerprint, stored.tensor.name, choice.recipe, guide, tuple(peers))


class ScaleGroups:
    """Which layers of a model share a tensor scale when their formats have one.

    `marks` and `spread` say for all layers at once, as arrays, what `peers` and `affected` say for one.
    """

    def __init__(self, model: Model) -> None:
        members: dict[str, list[int]] = defaultdict(list)
        for index, layer in enumerate(model.layers):
            if layer.group:
                members[layer.group].append(index)
        groups = [group for group in members.values() if len(group) > 1]
        self._members = {index: group for group in groups for index in group}
        self._index = {model.layers[index].name: index for index in self._members}
        self._group = np.full(len(model.layers), -1, np.int64)
        self._bit = np.zeros(len(model.layers), np.uint64)
        for number, group in enumerate(groups):
            self._group[group] = number
            self._bit[group] = _bits(len(group))
        self._count = len(groups)

    def peers(self, index: int, choices: Sequence[Choice]) -> tuple[str, ...]:
        """Names of the other layers that share the tensor scale of layer `index` under `choices`."""
        if not _tiered(choices[index]):
            return ()
        return tuple(choices[i].layer.name for i in self._others(index) if _tiered(choices[i]))

    def affected(self, indices: Iterable[int]) -> set[int]:
        """`indices`, and all layers whose result may change with theirs."""
        return {other for index in indices for other in (index, *self._members.get(index, ()))}

    def marks(self, tiered: NDArray[np.bool_]) -> NDArray[np.uint64]:
        """For each layer a number for its peers, 0 for none, when the layers in `tiered` have a tensor scale."""
        sharing = np.flatnonzero(tiered & (self._group >= 0))
        sums = np.zeros(self._count, np.uint64)
        np.add.at(sums, self._group[sharing], self._bit[sharing])
        found = np.zeros(len(tiered), np.uint64)
        found[sharing] = sums[self._group[sharing]]
        found[found == self._bit] = 0
        return found

    def mark_of(self, index: int, peers: Sequence[str]) -> int:
        """The number that `marks` gives layer `index` when `peers` share its tensor scale."""
        bits = [int(self._bit[self._index[name]]) for name in peers if name in self._index]
        return (int(self._bit[index]) + sum(bits)) % (1 << 64) if bits else 0

    def spread(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The chosen layers, and all whose result may change with theirs."""
        touched = np.zeros(self._count + 1, np.bool_)
        touched[self._group[chosen]] = True
        touched[-1] = False
        return chosen | touched[self._group]

    def _others(self, index: int) -> Iterator[int]:
        return (other for other in self._members.get(index, ()) if other != index)


def _bits(count: int) -> NDArray[np.uint64]:
    """A number for each of `count` layers, such that every set of them has another sum."""
    if count <= _BITS:
        return np.uint64(1) << np.arange(count, dtype=np.uint64)
    return np.random.default_rng(count).integers(1, 1 << 63, count, np.uint64)  # equal sums: once in 2**63


def _tiered(choice: Choice) -> bool:
    return choice.recipe is not None and choice.recipe.format.tensor_scale
