"""ResultCache: what was measured once, by content and recipe, is never measured again."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from studio.core.model import Model
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult

Key = tuple[Any, ...]


class ResultCache:
    """The results of a session.

    A key holds the file's identity, the tensor, the recipe, and the layers that share a tensor scale: when one of
    them leaves the group, the scale of the others changes.
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


def _key(choice: Choice, peers: Sequence[str]) -> Key:
    stored = choice.layer.stored
    return (stored.file.path, stored.file.fingerprint, stored.tensor.name, choice.recipe, tuple(peers))


class ScaleGroups:
    """Which layers of a model share a tensor scale when their formats have one."""

    def __init__(self, model: Model) -> None:
        members: dict[str, list[int]] = defaultdict(list)
        for index, layer in enumerate(model.layers):
            if layer.group:
                members[layer.group].append(index)
        self._members = {index: group for group in members.values() if len(group) > 1 for index in group}

    def peers(self, index: int, choices: Sequence[Choice]) -> tuple[str, ...]:
        """Names of the other layers that share the tensor scale of layer `index` under `choices`."""
        if not _tiered(choices[index]):
            return ()
        return tuple(choices[i].layer.name for i in self._others(index) if _tiered(choices[i]))

    def affected(self, indices: Iterable[int]) -> set[int]:
        """`indices`, and all layers whose result may change with theirs."""
        return {other for index in indices for other in (index, *self._members.get(index, ()))}

    def _others(self, index: int) -> Iterator[int]:
        return (other for other in self._members.get(index, ()) if other != index)


def _tiered(choice: Choice) -> bool:
    return choice.recipe is not None and choice.recipe.format.tensor_scale
