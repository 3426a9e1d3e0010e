"""Counts behave like the numbers that they hold, and are small where most of these are zero."""

import json

import numpy as np
import pytest

from studio.core.counts import NO_COUNTS, Counts

CASES = [[], [0], [0, 0, 0], [7], [0, 3, 0, 9, 0, 0], [1 << 40, 0, 2], list(range(256))]


@pytest.mark.parametrize("numbers", CASES, ids=str)
def test_counts_are_a_sequence_equal_to_the_numbers(numbers: list[int]) -> None:
    counts = Counts(numbers)
    assert counts == numbers
    assert counts == tuple(numbers)
    assert list(counts) == numbers
    assert [counts[i] for i in range(len(numbers))] == numbers
    assert [counts[-i] for i in range(1, len(numbers) + 1)] == numbers[::-1]
    assert counts[1:4] == tuple(numbers[1:4])
    assert bool(counts) == bool(numbers)
    np.testing.assert_array_equal(np.array(counts, np.int64), np.array(numbers, np.int64))
    assert hash(counts) == hash(Counts.of(np.array(numbers, np.uint64)))
    assert counts != [*numbers, 1]


@pytest.mark.parametrize("numbers", CASES, ids=str)
def test_they_come_back_from_an_array_from_json_and_from_plain_values(numbers: list[int]) -> None:
    counts = Counts(numbers)
    assert Counts.of(np.array(numbers, np.uint64)) == numbers
    assert Counts.from_json(json.loads(json.dumps(counts.to_json()))) == numbers
    assert Counts.unpack(counts.pack()) == numbers


def test_a_place_beyond_them_is_refused() -> None:
    with pytest.raises(IndexError):
        NO_COUNTS[0]
    with pytest.raises(IndexError):
        Counts([1, 2])[2]


@pytest.mark.parametrize(
    "data",
    [
        {"size": 2, "first": 1, "counts": [1, 2]},
        {"size": 2, "first": -1, "counts": [1]},
        {"size": 2, "first": 0, "counts": [-1]},
        {"size": 2, "first": 0, "counts": [1.5]},
        {"size": 2, "first": 0, "counts": [True]},
        {"size": 1 << 40, "first": 0, "counts": []},
        {"size": "2", "first": 0, "counts": []},
        {"size": 2, "first": 0},
    ],
    ids=str,
)
def test_malformed_counts_are_refused(data: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError)):
        Counts.from_json(data)


def test_what_is_mostly_zero_is_small() -> None:
    assert len(json.dumps(Counts([0] * 100 + [5, 6] + [0] * 154).to_json())) < 60
