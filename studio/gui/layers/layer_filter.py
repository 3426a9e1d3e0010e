"""The filter over layers: words, ranges and comparisons, all of which must hold; no Qt.

down_proj -lm_head        part of the name, and not part of it
fmt:mxfp8 method:hessian role:linear kind:mlp.up_proj status:failed dtype:bf16
block:8-15,20 expert:0-7  blocks, and experts in them
err>0.11 size>50MB bits<5 sigma>8 snr<20 lost>1% params>1M
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studio.gui.layers.store import STATES, LayerStore

Mask = NDArray[np.bool_]
Test = Callable[[LayerStore], Mask]

_NUMBERS: dict[str, Callable[[LayerStore], NDArray[np.float64] | NDArray[np.int64]]] = {
    "err": lambda store: store.rel_err,
    "size": lambda store: store.nbytes_out,
    "source": lambda store: store.nbytes_in,
    "bits": lambda store: store.bits,
    "sigma": lambda store: store.peak,
    "snr": lambda store: store.snr,
    "lost": lambda store: store.lost,
    "gone": lambda store: store.gone,
    "params": lambda store: store.counts,
}
_TEXTS: dict[str, Callable[[LayerStore], Sequence[str]]] = {
    "fmt": lambda store: store.formats,
    "method": lambda store: store.method_names,
    "role": lambda store: store.roles,
    "kind": lambda store: store.kinds,
    "dtype": lambda store: [name.lower() for name in store.dtypes],
    "status": lambda store: [STATES[state] for state in store.state.tolist()],
}
_ALIASES = {"format": "fmt", "error": "err", "state": "status", "max": "sigma", "weights": "params"}
_UNITS = {"": 1.0, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "b": 1.0, "%": 0.01, "db": 1.0}
_COMPARISON = re.compile(r"^(?P<key>[a-z]+)(?P<sign><=|>=|<|>|=)(?P<number>[-+.\de]*?)(?P<unit>[a-z%σ]*)$")
_SIGNS: dict[str, Callable[..., Mask]] = {
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "=": np.isclose,
}
_PLACES: dict[str, Callable[[LayerStore], NDArray[np.int64]]] = {
    "block": lambda store: store.blocks,
    "expert": lambda store: store.experts,
}
KEYS = (*_TEXTS, *_PLACES, *_NUMBERS)


class FilterError(ValueError):
    """A term of a filter makes no sense; the text says which, and what would."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter: each term as it was written, with its test."""

    terms: tuple[tuple[str, Test], ...] = ()

    def mask(self, store: LayerStore) -> Mask:
        """True for the layers that pass every term."""
        passed = np.ones(len(store), np.bool_)
        for _, test in self.terms:
            passed &= test(store)
        return passed


def parse_filter(text: str) -> Filter:
    """The filter that `text` says; raises FilterError."""
    return Filter(tuple((term, _parse(term.lower())) for term in text.split()))


def _parse(term: str) -> Test:
    if term.startswith("-") and len(term) > 1:
        inner = _parse(term[1:])
        return lambda store: ~inner(store)
    if (found := _COMPARISON.match(term)) and _key(found["key"]) in _NUMBERS:
        return _comparison(_key(found["key"]), found["sign"], found["number"], found["unit"])
    key, colon, value = term.partition(":")
    if not colon:
        return _word(term)
    if _key(key) in _PLACES:
        return _places(_key(key), value)
    if _key(key) in _TEXTS:
        return _text(_key(key), value)
    raise FilterError(f'"{key}:" is unknown; there are {", ".join(f"{name}:" for name in (*_TEXTS, *_PLACES))}')


def _key(name: str) -> str:
    return _ALIASES.get(name, name)


def _word(word: str) -> Test:
    if re.match(r"^[a-z]+[<>=]", word):
        name = re.split(r"[<>=]", word)[0]
        raise FilterError(f'"{name}" has no number; there are {", ".join(_NUMBERS)}')
    return lambda store: np.fromiter((word in name for name in store.lowered), np.bool_, len(store))


def _text(key: str, value: str) -> Test:
    def test(store: LayerStore) -> Mask:
        cells = _TEXTS[key](store)
        return np.fromiter((value in cell for cell in cells), np.bool_, len(store))

    return test


def _places(key: str, value: str) -> Test:
    ranges = []
    for part in filter(None, value.split(",")):
        ends = re.fullmatch(r"(\d{1,6})(?:-(\d{0,6}))?", part)
        if not ends:
            raise FilterError(f'"{part}" is no range of {key}s; write {key}:8-15,20')
        ranges.append((int(ends[1]), int(ends[2] or ends[1])))

    def test(store: LayerStore) -> Mask:
        passed, places = np.zeros(len(store), np.bool_), _PLACES[key](store)
        for first, last in ranges:
            passed |= (places >= first) & (places <= last)
        return passed if ranges else np.ones(len(store), np.bool_)

    return test


def _comparison(key: str, sign: str, number: str, unit: str) -> Test:
    try:
        limit = float(number) * _UNITS[unit.replace("σ", "")]
    except (KeyError, ValueError):
        raise FilterError(f'"{key}{sign}{number}{unit}" needs a number, as in err>0.11 or size>50MB') from None
    compare = _SIGNS[sign]

    def test(store: LayerStore) -> Mask:
        with np.errstate(invalid="ignore"):
            return compare(_NUMBERS[key](store), limit)

    return test
