"""Counts: how often each of many values occurred, most of them never; stored without the zeros around the others."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

_TYPECODES = "BBHIIQQQQ"
"""The code of an array by the bytes that its largest number takes."""
_LARGEST = 1 << 16


class Counts(Sequence[int]):
    """Counts of `size` values; equal to any sequence of the same numbers, and as small as those that are not zero."""

    __slots__ = ("_counts", "_first", "_size")

    def __init__(self, counts: Iterable[int]) -> None:
        whole = list(counts)
        filled = [i for i, count in enumerate(whole) if count]
        first, stop = (filled[0], filled[-1] + 1) if filled else (0, 0)
        self._set(len(whole), first, whole[first:stop])

    @classmethod
    def of(cls, counts: NDArray[np.uint64]) -> "Counts":
        """The counts in an array."""
        filled = counts.nonzero()[0]
        first, stop = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)
        made = cls.__new__(cls)
        made._set(len(counts), first, counts[first:stop].tolist())
        return made

    def _set(self, size: int, first: int, counts: Sequence[int]) -> None:
        largest = max(counts, default=0)
        code = _TYPECODES[(largest.bit_length() + 7) // 8]
        self._size, self._first, self._counts = size, first, array(code, counts)

    def to_json(self) -> dict[str, Any]:
        """How many values there are, the first that occurred, and the counts from there to the last that did."""
        return {"size": self._size, "first": self._first, "counts": self._counts.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Counts":
        """What `to_json` described; raises ValueError or KeyError when it is malformed."""
        size, first, counts = data["size"], data["first"], data["counts"]
        whole = all(type(n) is int and n >= 0 for n in (size, first, *counts))
        if not whole or not first + len(counts) <= size <= _LARGEST:
            raise ValueError("malformed counts")
        made = cls.__new__(cls)
        made._set(size, first, counts)
        return made

    def pack(self) -> tuple[int, int, str, bytes]:
        """The same in plain values, for `unpack`."""
        return self._size, self._first, self._counts.typecode, self._counts.tobytes()

    @classmethod
    def unpack(cls, packed: tuple[int, int, str, bytes]) -> "Counts":
        """What `pack` gave."""
        made = cls.__new__(cls)
        made._size, made._first, code, counts = packed
        made._counts = array(code, counts)
        return made

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        after = self._size - self._first - len(self._counts)
        return chain(repeat(0, self._first), self._counts, repeat(0, after))

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[int, ...]: ...
    def __getitem__(self, at: int | slice) -> int | tuple[int, ...]:
        if isinstance(at, slice):
            return tuple(self)[at]
        inside = range(self._size)[at] - self._first
        return self._counts[inside] if 0 <= inside < len(self._counts) else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(int.__eq__, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Counts({self.to_json()})"


NO_COUNTS = Counts(())
"""Of nothing."""
