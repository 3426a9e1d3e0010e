"""Error feedback: the codes of GPTQ, better outputs, and the same bits from every backend, variant and thread."""

import ctypes
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hard_weights import MIDPOINTS
from mutants import Mutant, compiled

from kernels import Context, Factor, factor_of, feedback, importance_of, moments_of, recipe, reference
from kernels.cpu import factor, library
from kernels.cpu.backend import CpuBackend, encode_parallel
from kernels.cpu.vectorized import NumpyBackend
from kernels.machines import backends

VARIANTS = library.variants()
G = 4e-5
DTYPES = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32}


def inputs(width, count=300, seed=0):
    """Inputs [count, width] whose columns differ in size and go together."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, width)) * np.exp(rng.standard_normal(width)) + rng.standard_normal((count, 1))
    return x.astype(np.float32)


def moments(x):
    wide = x.astype(np.float64)
    return (wide.T @ wide / len(x)).astype(np.float32)


def context(x, *, scales=True):
    h = moments(x)
    upper = np.triu_indices(16)
    blocks = np.array([h[at : at + 16, at : at + 16][upper] for at in range(0, len(h), 16)])
    known = (importance_of(h.diagonal().copy()), moments_of(blocks)) if scales else (None, None)
    return Context(*known, factor_of(h))


def weight(rows, width, dtype=np.float32, seed=1):
    made = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32) * np.float32(0.02)
    made[0, :16] = 0
    made[rows // 2] *= np.float32(2.0**-40)
    made[-1, ::16] *= 30
    return made.astype(dtype)


def encoded(made, method, known, name="nvfp4-3t"):
    return reference.encode(made, recipe(name, "ceil", method), G if name == "nvfp4-3t" else 1.0, known)


def codes_of(quantized):
    return reference.unpack(quantized.codes)


def damage(made, quantized, x):
    return float((((reference.decode(quantized) - made.astype(np.float32)) @ x.T) ** 2).sum())


def delicate(rows, width=208):
    """A weight and a factor whose sums are of large parts that cancel: each rounding shows in many codes.

    Columns 0 to 15 and 16 to 31 have the same weights and errors, so have 64 to 79 and 80 to 95.
    """
    rng = np.random.default_rng(7)
    made = (rng.standard_normal((rows, width)) * 0.02).astype(np.float32)
    shares = rng.standard_normal((width, width)).astype(np.float32) * np.float32(0.1)
    for at in (0, 64):
        made[:, at + 16 : at + 32] = made[:, at : at + 16]
        shares[at : at + 16] *= np.float32(2.0**20)
        shares[at + 16 : at + 32] = -shares[at : at + 16]
        shares[:, at : at + 32] = 0
    np.fill_diagonal(shares, 0)
    return made, Factor(np.arange(width, dtype=np.int32), np.triu(shares), shares)


def tied(rows, width=208):
    """A weight in float32 whose blocks have one best scale, and two of their weights between codes or beside that."""
    rng = np.random.default_rng(8)
    scale = reference.e4m3_decode(rng.integers(40, 120, (rows, width // 16, 1), np.uint8)) * np.float32(G)
    blocks = rng.choice(reference.E2M1_VALUES, (rows, width // 16, 16)) * scale
    blocks[..., 0] = 6 * scale[..., 0]
    between = rng.choice(np.array(MIDPOINTS, np.float32), (rows, width // 16, 2)) * scale
    toward = rng.choice(np.array([0, 1, np.inf], np.float32), between.shape)
    blocks[..., 5:7] = np.where(toward == 1, between, np.nextafter(between, toward))
    return blocks.reshape(rows, width)


def with_damping(h):
    """Second moments in float64, a tenth of each column's own and a hundredth of the mean on the diagonal."""
    wide = h.astype(np.float64)
    return wide + np.diag(0.1 * wide.diagonal() + 0.01 * wide.diagonal().mean())


def gptq(made, quantized, h):
    """Codes by GPTQ as published, in float64: the inverse's Cholesky factor, errors spread column by column."""
    order = np.argsort(-h.diagonal(), kind="stable")
    damped = with_damping(h)[np.ix_(order, order)]
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    scale = np.repeat(reference.e4m3_decode(quantized.scales) * quantized.tensor_scale, 16, axis=1)
    rest, codes = made.astype(np.float64)[:, order], np.empty(made.shape, np.uint8)
    for step, column in enumerate(order):
        own = scale[:, column].astype(np.float64)
        codes[:, column] = reference.e2m1_encode((rest[:, step] / own).astype(np.float32))
        error = (rest[:, step] - reference.e2m1_decode(codes[:, column]) * own) / upper[step, step]
        rest[:, step:] -= np.outer(error, upper[step, step:])
    return codes


@pytest.mark.parametrize("width", [16, 64, 208])
def test_codes_are_those_of_gptq(width, monkeypatch):
    monkeypatch.setattr(feedback, "SWEEPS", 0)
    x, made = inputs(width), np.random.default_rng(3).standard_normal((40, width)).astype(np.float32) * 0.02
    found = encoded(made.astype(np.float32), "feedback", context(x))
    np.testing.assert_array_equal(codes_of(found), gptq(made, found, moments(x)))


@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t"])
@pytest.mark.parametrize("width", [64, 320])
def test_outputs_are_nearer_than_with_the_same_scales_alone(name, width):
    x, made = inputs(width), weight(48, width)
    known = context(x)
    plain, fed = (encoded(made, method, known, name) for method in ("hessian", "feedback"))
    assert fed.scales.tobytes() == plain.scales.tobytes()
    assert damage(made, fed, x) < 0.9 * damage(made, plain, x)


@pytest.mark.parametrize("width", [64, 208])
def test_every_sweep_lowers_the_damped_error_of_the_output(width, monkeypatch):
    h, made, known = moments(inputs(width)), weight(48, width)[1:-1], context(inputs(width))
    damped = with_damping(h)
    found = []
    for sweeps in range(4):
        monkeypatch.setattr(feedback, "SWEEPS", sweeps)
        error = (reference.decode(encoded(made, "feedback", known)) - made).astype(np.float64)
        found.append(np.einsum("ri,ij,rj->r", error, damped, error))
    assert all((after <= before * (1 + 1e-5)).all() for before, after in pairwise(found))
    assert found[3].sum() < found[1].sum() < found[0].sum()


def test_without_a_factor_it_does_what_hessian_does():
    x, made = inputs(64), weight(8, 64)
    known = context(x)
    blind = Context(known.importance, known.moments)
    for backend in backends():
        for chosen in (blind, Context(known.importance), Context(), None):
            got, said = (
                backend.encode(made, recipe("nvfp4-3t", "ceil", method), G, context=chosen).quantized
                for method in ("feedback", "hessian")
            )
            assert got.codes.tobytes() == said.codes.tobytes()
            assert got.scales.tobytes() == said.scales.tobytes()


def test_a_factor_alone_goes_on_the_scales_of_search():
    x, made = inputs(64), weight(8, 64)
    fed = encoded(made, "feedback", context(x, scales=False))
    searched = encoded(made, "search", None)
    assert fed.scales.tobytes() == searched.scales.tobytes()
    assert fed.codes.tobytes() != searched.codes.tobytes()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", [*VARIANTS, "numpy"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 16), (15, 112), (16, 64), (70, 208), (80, 400)])
def test_bytes_and_measures_are_those_of_the_reference(name, dtype, shape):
    known, made = context(inputs(shape[1])), weight(*shape, DTYPES[dtype])
    backend = NumpyBackend() if name == "numpy" else CpuBackend(name)
    for tiers in ("nvfp4-2t", "nvfp4-3t"):
        want = encoded(made, "feedback", known, tiers)
        measured = reference.fidelity(made, want, blocks=True)
        g = G if tiers == "nvfp4-3t" else 1.0
        got = backend.encode(made, recipe(tiers, "ceil", "feedback"), g, context=known, blocks=True)
        assert got.quantized.scales.tobytes() == want.scales.tobytes()
        assert got.quantized.codes.tobytes() == want.codes.tobytes()
        assert got.fidelity is not None
        np.testing.assert_allclose(got.fidelity.row_squares, measured.row_squares, rtol=1e-6, atol=0)
        np.testing.assert_allclose(got.fidelity.row_error, measured.row_error, rtol=1e-6, atol=0)
        np.testing.assert_allclose(got.fidelity.block_error, measured.block_error, rtol=1e-6, atol=1e-44)
        np.testing.assert_allclose(got.fidelity.max_error, measured.max_error, rtol=1e-15, atol=0)
        np.testing.assert_array_equal(got.fidelity.scale_counts, measured.scale_counts)
        assert got.fidelity.vanished == measured.vanished


@pytest.mark.parametrize("name", [*VARIANTS, "numpy"])
def test_every_sum_has_the_order_of_the_reference(name):
    made, found = delicate(70)
    want = encoded(made, "feedback", Context(factor=found))
    assert len(np.unique(codes_of(want)[:, 96:])) > 12
    backend = NumpyBackend() if name == "numpy" else CpuBackend(name)
    for rows in (70, 5):
        got = backend.encode(made[:rows], recipe("nvfp4-3t", "ceil", "feedback"), G, context=Context(factor=found))
        assert got.quantized.codes.tobytes() == want.codes[:rows].tobytes()


@pytest.mark.parametrize("name", [*VARIANTS, "numpy"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_without_shares_weights_are_those_of_search(name, dtype):
    made = tied(60).astype(DTYPES[dtype])
    found = Factor(np.arange(208, dtype=np.int32)[::-1].copy(), *np.zeros((2, 208, 208), np.float32))
    backend = NumpyBackend() if name == "numpy" else CpuBackend(name)
    got = backend.encode(made, recipe("nvfp4-3t", "ceil", "feedback"), G, context=Context(factor=found)).quantized
    np.testing.assert_array_equal(reference.decode(got), reference.decode(encoded(made, "search", None)))


def test_threads_change_no_byte():
    known, made = context(inputs(144)), weight(200, 144, ml_dtypes.bfloat16)
    chosen = recipe("nvfp4-3t", "ceil", "feedback")
    want = reference.encode(made, chosen, G, known)
    for threads in (1, 2, 5):
        got = encode_parallel(CpuBackend(), made, chosen, G, threads=threads, context=known).quantized
        assert got.codes.tobytes() == want.codes.tobytes()
        assert got.scales.tobytes() == want.scales.tobytes()


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("width", [16, 112, 128, 144, 272, 400])
def test_every_variant_and_thread_factors_to_the_same_bits(variant, width):
    h = moments(inputs(width)).astype(np.float64) + np.eye(width)
    want = h.copy()
    feedback.cholesky(want)
    for threads in (1, 2, 3):
        got = h.copy()
        factor.cholesky(got, variant, threads)
        assert np.triu(got).tobytes() == np.triu(want).tobytes()


def test_the_factor_is_one():
    h = moments(inputs(96)).astype(np.float64) + np.eye(96)
    found = h.copy()
    feedback.cholesky(found)
    np.testing.assert_allclose(np.triu(found) @ np.triu(found).T, h, rtol=0, atol=1e-12 * h.max())


def test_with_and_without_the_library_a_factor_is_the_same(monkeypatch):
    h = moments(inputs(160))
    fast = [factor_of(h, threads=threads) for threads in (1, 3)]

    def missing():
        raise OSError("no library")

    monkeypatch.setattr(factor, "fastest", missing)
    slow = factor_of(h)
    for found in fast:
        np.testing.assert_array_equal(found.order, slow.order)
        assert found.feedback.tobytes() == slow.feedback.tobytes()
        assert found.coupling.tobytes() == slow.coupling.tobytes()


def test_columns_are_taken_by_falling_diagonal_and_equal_ones_as_they_come():
    h = np.eye(16, dtype=np.float32)
    h[5, 5] = 4
    h[2, 2] = 0.5
    assert factor_of(h).order.tolist() == [5, 0, 1, 3, 4, *range(6, 16), 2]


def test_a_column_never_active_is_rounded_as_it_is():
    x = inputs(64)
    x[:, [3, 40]] = 0
    found = context(x, scales=False)
    assert found.factor.order[-2:].tolist() == [3, 40]
    assert not found.factor.feedback[:, -2:].any()
    made = weight(24, 64)
    fed, plain = encoded(made, "feedback", found), encoded(made, "search", None)
    np.testing.assert_array_equal(codes_of(fed)[:, [3, 40]], codes_of(plain)[:, [3, 40]])


def test_inputs_of_one_direction_give_a_factor():
    x = np.outer(np.random.default_rng(5).standard_normal(7), np.arange(1, 65)).astype(np.float32)
    known, made = context(x), weight(24, 64)
    assert np.isfinite(known.factor.feedback).all()
    assert damage(made, encoded(made, "feedback", known), x) < damage(made, encoded(made, "hessian", known), x)


@pytest.mark.parametrize("column", [1, 100, 300])
def test_what_is_no_sum_of_squares_is_refused(column):
    h = np.eye(320)
    h[column - 1, column] = h[column, column - 1] = 10
    messages = []
    for cholesky in (feedback.cholesky, *(partial(factor.cholesky, variant=v, threads=2) for v in VARIANTS.values())):
        with pytest.raises(ValueError, match="must be positive definite, got -99 left of column") as raised:
            cholesky(h.copy())
        messages.append(str(raised.value))
    assert len(set(messages)) == 1
    with pytest.raises(ValueError, match="must be positive definite"):
        factor_of(h.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_moments_that_are_no_numbers_are_refused(bad):
    h = moments(inputs(32))
    h[20, 3] = bad
    with pytest.raises(ValueError, match="must be finite"):
        factor_of(h)


def test_moments_of_nothing_are_refused():
    with pytest.raises(ValueError, match="diagonal must be squares"):
        factor_of(np.zeros((32, 32), np.float32))
    with pytest.raises(ValueError, match="diagonal must be squares"):
        factor_of(-np.eye(32, dtype=np.float32))


@pytest.mark.parametrize("shape", [(20, 20), (32, 16), (16,), (0, 0)])
def test_moments_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="K a multiple of 16"):
        factor_of(np.ones(shape, np.float32))


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.name)
def test_a_factor_that_is_not_of_the_matrix_is_refused(backend):
    found = context(inputs(64)).factor
    chosen = recipe("nvfp4-3t", "ceil", "feedback")
    with pytest.raises(ValueError, match="must be of 32 columns"):
        backend.encode(weight(4, 32), chosen, G, context=Context(factor=found))
    twice = Factor(np.zeros(64, np.int32), found.feedback, found.coupling)
    with pytest.raises(ValueError, match="every column once"):
        backend.encode(weight(4, 64), chosen, G, context=Context(factor=twice))
    for wide in (
        Factor(found.order, found.feedback.astype(np.float64), found.coupling),
        Factor(found.order, found.feedback, found.coupling.T),
    ):
        with pytest.raises(TypeError, match="C-contiguous float32"):
            backend.encode(weight(4, 64), chosen, G, context=Context(factor=wide))


MUTANTS = (
    Mutant("factor.h", "int64_t k = high - 1; k >= low; k--", "int64_t k = low; k < high; k++"),
    Mutant("factor.h", "high > task.stop; high -= DEPTH", "high > task.stop + DEPTH; high -= DEPTH"),
    Mutant("factor.h", "found = rest[r][c] / column[c]", "found = rest[r][c] * (1 / column[c])"),
    Mutant("factor.h", "for (int64_t i = 0; i < c; i += 8)", "for (int64_t i = 0; i + 8 < c; i += 8)"),
    Mutant("factor.h", "column[c] > 0 && column[c] < __builtin_inf()", "column[c] > -1e300"),
    Mutant("factor.h", "i <= j; i++) corner[", "i < j; i++) corner["),
    Mutant("feedback.h", "for (int64_t i = 0; i < count; i++) {", "for (int64_t i = count - 1; i >= 0; i--) {"),
    Mutant("feedback.h", "later = c + 1; later", "later = c; later + 1"),
    Mutant("feedback.h", "sweep = 0; sweep", "sweep = 1; sweep"),
    Mutant("feedback.h", "task.coupling, true", "task.coupling, false"),
    Mutant("feedback.h", "after = first + BATCH", "after = first + 2 * BATCH"),
    Mutant("feedback.h", "before = 0; before < first", "before = BATCH; before < first"),
    Mutant("feedback.h", "next = c + 1", "next = c + 2"),
    Mutant(
        "feedback.h",
        "error = load<Floats>(feed.weights + (group * BATCH + c) * GROUP + lane) - decoded",
        "error = load<Floats>(targets + c * GROUP + lane) - decoded",
    ),
    Mutant("feedback.h", "column = task.order[first + c]", "column = first + c"),
    Mutant("feedback.h", "floats(bits(rounded * scale) | sign)", "rounded * scale"),
    Mutant("feedback.h", "code | sign >> 28", "code"),
    Mutant("feedback.h", "quotient<true>(magnitude(target), scale, Floats{})", "magnitude(target) * (1.0f / scale)"),
    Mutant(
        "feedback.h",
        "sums[c][v] += error * splat(shares[i * NEXT + c])",
        "sums[c][v] = __builtin_elementwise_fma(error, splat(shares[i * NEXT + c]), sums[c][v])",
    ),
    Mutant(
        "feedback.h",
        "load<Floats>(to) + error * splat(taken[next])",
        "__builtin_elementwise_fma(error, splat(taken[next]), load<Floats>(to))",
    ),
    Mutant(
        "feedback.h",
        "before = 0; before < first; before += BATCH",
        "before = first - BATCH; before >= 0; before -= BATCH",
    ),
    Mutant("feedback.h", "count_vanished(wide, decoded, tally);", ""),
    Mutant(
        "feedback.h", "int i = 0; i < count; i++) totals.scale_counts", "int i = 1; i < count; i++) totals.scale_counts"
    ),
)


class Changed(CpuBackend):
    """The backend with another library."""

    def __init__(self, path):
        super().__init__()
        other, own = ctypes.CDLL(str(path)), self._library
        self._library = SimpleNamespace(
            nvfp4_encode=own.nvfp4_encode,
            nvfp4_feedback=lambda _, task: other.feed_forward(task),
            nvfp4_factor=lambda _, task: other.factor(task),
        )


def assert_right(path, monkeypatch):
    """A factor, what is refused, codes and what is measured are the reference's."""
    backend = Changed(path)
    h = moments(inputs(400)).astype(np.float64) + np.eye(400)
    got, want, wrong = h.copy(), h.copy(), np.eye(32)
    wrong[0, 0] = -1
    feedback.cholesky(want)
    known, made = context(inputs(208)), weight(70, 208)
    with monkeypatch.context() as patched:
        patched.setattr(library, "load", lambda: backend._library)
        factor.cholesky(got, 0, 2)
        with pytest.raises(ValueError, match="positive definite"):
            factor.cholesky(wrong, 0)
    assert np.triu(got).tobytes() == np.triu(want).tobytes()
    expected = encoded(made, "feedback", known)
    measured = reference.fidelity(made, expected)
    chosen = recipe("nvfp4-3t", "ceil", "feedback")
    found, fidelity = backend.encode(made, chosen, G, context=known)
    assert found.codes.tobytes() == expected.codes.tobytes()
    assert fidelity.vanished == measured.vanished
    np.testing.assert_array_equal(fidelity.scale_counts, measured.scale_counts)
    np.testing.assert_allclose(fidelity.row_error, measured.row_error, rtol=1e-6)
    for hard, parts in (
        delicate(70),
        (tied(60), Factor(np.arange(208, dtype=np.int32), *np.zeros((2, 208, 208), np.float32))),
    ):
        wanted = encoded(hard, "feedback", Context(factor=parts))
        got = backend.encode(hard, chosen, G, context=Context(factor=parts)).quantized
        assert got.codes.tobytes() == wanted.codes.tobytes()


def seen(path, monkeypatch):
    try:
        assert_right(path, monkeypatch)
    except (AssertionError, ValueError, pytest.fail.Exception):
        return True
    return False


@pytest.mark.proof
def test_planted_mistakes_are_seen(tmp_path_factory, monkeypatch):
    right, *wrong = compiled(MUTANTS, "feedback_float32.cpp", next(iter(VARIANTS)), tmp_path_factory)
    assert_right(right, monkeypatch)
    unseen = [mutant for mutant, path in zip(MUTANTS, wrong, strict=True) if not seen(path, monkeypatch)]
    assert not unseen, unseen


def test_size_of_the_inputs_does_not_matter():
    h = moments(inputs(80))
    small, large = factor_of(h), factor_of(h * np.float32(2.0**60))
    assert small.feedback.tobytes() == large.feedback.tobytes()
    assert small.coupling.tobytes() == large.coupling.tobytes()
