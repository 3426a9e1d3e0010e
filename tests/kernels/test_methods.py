"""The methods: the reference chooses well, and every backend chooses alike."""

import ml_dtypes
import numpy as np
import pytest

from kernels import FORMATS, Context, importance_of, moments_of, recipe, reference
from kernels.machines import backends
from kernels.methods import METHODS, available, settled

RNG = np.random.default_rng(10)
K = 256
ROWS = 24


def _weight(dtype=ml_dtypes.bfloat16):
    normal = RNG.standard_normal((ROWS, K)).astype(np.float32) * np.float32(0.02)
    normal[3] = 0
    normal[4, ::16] *= 40
    normal[5] *= np.float32(2.0**-40)
    normal[6] *= np.float32(2.0**-70)
    return normal.astype(dtype)


def _inputs():
    x = RNG.standard_normal((400, K)) * np.exp(RNG.standard_normal(K)) + RNG.standard_normal((400, 1))
    return x.astype(np.float32)


def _triangles(x):
    rows, columns = np.triu_indices(16)
    blocks = x.reshape(len(x), -1, 16).astype(np.float64)
    return (np.einsum("nbi,nbj->bij", blocks, blocks) / len(x))[:, rows, columns].astype(np.float32)


X = _inputs()
CONTEXT = Context(importance_of((X.astype(np.float64) ** 2).mean(axis=0).astype(np.float32)), moments_of(_triangles(X)))


def _encoded(weight, name, method, context=CONTEXT):
    chosen = recipe(name, "ceil", method)
    g = _scale(weight, chosen)
    return reference.encode(weight, chosen, g, context)


def _scale(weight, chosen):
    largest = float(np.abs(weight.astype(np.float32)).max())
    return float(reference.tensor_scale(largest)) if chosen.format.tensor_scale else 1.0


def _damage(weight, quantized, x=None):
    error = reference.decode(quantized) - weight.astype(np.float32)
    return float(((error if x is None else error @ x.T) ** 2).sum())


@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t"])
def test_each_method_lowers_what_it_looks_at(name):
    weight = _weight()
    cost = {method: _damage(weight, _encoded(weight, name, method)) for method in METHODS}
    assert cost["search"] < cost["four-six"] < cost["max"]
    outputs = {method: _damage(weight, _encoded(weight, name, method), X) for method in METHODS}
    assert outputs["importance"] < outputs["search"] < outputs["max"]
    blocks = {}
    for method in ("importance", "hessian"):
        error = reference.decode(_encoded(weight, name, method)) - weight.astype(np.float32)
        parts = error.reshape(ROWS, -1, 16)
        blocks[method] = float((np.einsum("rbi,nbi->rnb", parts, X.reshape(len(X), -1, 16)) ** 2).sum())
    assert blocks["hessian"] < blocks["importance"]


@pytest.mark.parametrize("name", ["mxfp4", "int4-g32", "int4-g64", "int8-g64", "int8-g128"])
def test_search_never_loses_in_other_formats(name):
    weight = _weight()
    assert _damage(weight, _encoded(weight, name, "search")) <= _damage(weight, _encoded(weight, name, "max"))


@pytest.mark.parametrize("name", ["int4-g32", "int8-g64"])
def test_groups_far_from_zero_are_searched_without_overflow(name):
    weight = (np.float32(10.0) ** np.arange(-3, 9)[:, None] * (1 + RNG.random((12, K)) * 1e-5)).astype(np.float32)
    chosen = recipe(name, "ceil", "search")
    for part in (weight, -weight):
        found = reference.encode(part, chosen)
        assert found.scales.tobytes() == reference.encode(part, recipe(name)).scales.tobytes()


def test_the_window_has_nearly_all_that_every_scale_would_gain():
    weight = _weight()
    chosen = recipe("nvfp4-3t", "ceil", "search")
    g = np.float32(_scale(weight, chosen))
    blocks = weight.astype(np.float32).reshape(-1, 16)
    best = np.full(len(blocks), np.inf)
    for byte in range(8, 127):
        factor = reference.E4M3_VALUES[byte] * g
        decoded = reference.e2m1_decode(reference.e2m1_encode(blocks / factor)) * factor
        best = np.minimum(best, ((decoded - blocks).astype(np.float64) ** 2).sum(axis=1))
    plain, found = (_damage(weight, _encoded(weight, "nvfp4-3t", method)) for method in ("max", "search"))
    assert (plain - found) / (plain - best.sum()) > 0.99


def test_without_statistics_a_method_does_what_it_says():
    weight = _weight()
    for method, said in (("importance", "search"), ("hessian", "search")):
        blind, named = (_encoded(weight, "nvfp4-3t", m, Context()) for m in (method, said))
        assert blind.codes.tobytes() == named.codes.tobytes()
        assert blind.scales.tobytes() == named.scales.tobytes()
    assert available("feedback", frozenset({"importance"})) == "importance"
    assert available("hessian", frozenset()) == "search"
    assert available("hessian", frozenset({"moments"})) == "hessian"


def test_methods_come_to_what_a_format_can():
    assert {settled("hessian", row.scale, row.bits) for row in FORMATS.values()} == {"hessian", "search", "max"}
    assert recipe("mxfp8", "ceil", "search").method == "max"
    with pytest.raises(ValueError, match="unknown method 'best'"):
        recipe("nvfp4-3t", "ceil", "best")


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
@pytest.mark.parametrize("backend", backends()[:-1], ids=lambda backend: backend.name)
def test_every_backend_gives_the_bytes_of_the_reference(backend, dtype):
    weight = _weight(dtype)
    for name in FORMATS:
        for method in METHODS:
            chosen = recipe(name, "ceil", method)
            want = reference.encode(weight, chosen, _scale(weight, chosen), CONTEXT)
            got = backend.encode(weight, chosen, _scale(weight, chosen), context=CONTEXT).quantized
            assert got.scales.tobytes() == want.scales.tobytes(), (name, method)
            assert got.codes.tobytes() == want.codes.tobytes(), (name, method)


def test_statistics_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="finite and not negative"):
        importance_of(np.array([1.0] * 15 + [-1.0], np.float32))
    with pytest.raises(ValueError, match="must be finite"):
        moments_of(np.full((1, 136), np.nan, np.float32))


def test_columns_never_active_count_alike():
    assert set(importance_of(np.zeros(32, np.float32)).tolist()) == {32767}
    found = moments_of(np.zeros((1, 136), np.float32))[0]
    assert found[0] == 16383
    assert found[1] == 0


def test_moments_of_two_columns_count_less_than_those_of_one():
    found = moments_of(np.ones((1, 136), np.float32))[0]
    assert found[0] == 16383
    assert found[1] == 24573  # three quarters, doubled; a floor of 1 / 16384 is on the diagonal
