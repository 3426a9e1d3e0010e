"""FP8 under scales of tiles: what a tile is, what its scale is, and that mistakes in the encoder are seen."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hard_weights import DTYPES, difference, searched
from mutants import Mutant, compiled
from test_cpu_methods import Changed

from kernels import FORMATS, recipe, reference
from kernels.cpu import library
from kernels.cpu.backend import CpuBackend, encode_parallel
from kernels.cpu.vectorized import NumpyBackend
from kernels.tiles import gathered, spread, tile_scales

NAMES = [name for name, row in FORMATS.items() if row.scale == "float32"]
MUTANTS = (
    Mutant("codecs.h", "given.scales[i] : 1.0f", "given.scales[0] : 1.0f", "Tiled"),
    Mutant("codecs.h", "load<Floats>(scales[i]) * task.tensor_scale", "load<Floats>(scales[i])", "Tiled"),
    Mutant("codecs.h", "select(0x80u, bits(weight) >> 24, code)", "code", "Tiled"),
    Mutant("codecs.h", "(factor > 0x1p90f) | ~(peak <=", "(factor > 0x1p90f) | (peak <=", "Tiled"),
    Mutant("encode.h", "block_ahead += slot.size / task.layout.block", "block_ahead += 0", "Tiled"),
)
HARMLESS = (MUTANTS[3],)
"""What makes careful of all strips changes no code: it is the way that divides."""


def weight(rows: int = 300, columns: int = 336, dtype: Any = np.float32) -> Any:
    """Heavy tails, tiles of every size, one of zeros, and ragged tiles at both edges."""
    found = np.random.default_rng(2).standard_t(3, (rows, columns))
    found[:, 128:256] *= 1e-3
    found[128:256, :128] = 0
    found[7] *= 1e4
    return found.astype(dtype)


def up(scale: Any) -> Any:
    """The smallest bfloat16 number that is not less."""
    near = np.asarray(scale, np.float32).astype(ml_dtypes.bfloat16)
    above = np.nextafter(near, ml_dtypes.bfloat16(np.inf))
    return np.where(near.astype(np.float32) < scale, above, near).astype(np.float32)


def test_a_scale_is_the_largest_weight_of_its_tile_over_448_rounded_up_to_bfloat16() -> None:
    wide = weight()
    tiles = tile_scales(wide, FORMATS["fp8-block"])
    assert tiles.shape == (3, 3)
    assert tiles[1, 0] == 1
    assert tiles[2, 2] == up(np.abs(wide[256:, 256:]).max() / np.float32(448))
    channels = tile_scales(wide, FORMATS["fp8-channel"])
    np.testing.assert_array_equal(channels[:, 0], up(np.abs(wide).max(axis=1) / np.float32(448)))
    assert tile_scales(wide, FORMATS["fp8-tensor"]).tolist() == [[1]]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_every_backend_gives_the_bytes_of_the_reference(name: str, dtype: Any) -> None:
    wide, g = weight(dtype=dtype), 0.05 if FORMATS[name].tensor_scale else 1.0
    wanted = reference.encode(wide, recipe(name), g)
    for backend in (*map(CpuBackend, library.variants()), NumpyBackend()):
        got = backend.encode(wide, recipe(name), g).quantized
        assert difference(got, wanted) is None
        np.testing.assert_array_equal(backend.decode(got), reference.decode(wanted))
    parallel = encode_parallel(CpuBackend(), wide, recipe(name), g, threads=3).quantized
    assert difference(parallel, wanted) is None


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_those_of_a_cast(name: str) -> None:
    wide = weight()
    found = reference.encode(wide, recipe(name), float(np.abs(wide).max() / 448) if name == "fp8-tensor" else 1.0)
    g = np.float32(1) if found.tensor_scale is None else found.tensor_scale
    scales = np.repeat(found.scales, 16, axis=1) * g
    np.testing.assert_array_equal(
        found.codes.view(ml_dtypes.float8_e4m3fn), (wide / scales).astype(ml_dtypes.float8_e4m3fn)
    )


@pytest.mark.parametrize("name", ["fp8-channel", "fp8-block"])
def test_scales_of_tiles_come_back_from_beside_their_blocks(name: str) -> None:
    row, wide = FORMATS[name], weight()
    scales = tile_scales(wide, row)
    beside = spread(scales, row, *wide.shape)
    assert beside.shape == (300, 21)
    np.testing.assert_array_equal(gathered(beside, row, 336), scales)
    first = 140 // row.tile[0]
    np.testing.assert_array_equal(spread(scales[first:], row, 100, 336, 140), beside[140:240])


def test_sizes_are_those_of_the_stored_parts() -> None:
    sizes = {name: FORMATS[name].nbytes((300, 336)) - 300 * 336 for name in NAMES}
    assert sizes == {"fp8-tensor": 4, "fp8-channel": 4 * 300, "fp8-block": 4 * 9}
    assert FORMATS["fp8-block"].nbytes((5, 300, 336)) == 5 * FORMATS["fp8-block"].nbytes((300, 336))
    assert FORMATS["fp8-block"].misfit((8, 1 << 17)) == "its width 131072 is more than 65,536, for tiles of 128 rows"


def seen(path: Path) -> bool:
    """Whether the encoder gives other bytes than the reference."""
    backend, hard = Changed(path), searched(ml_dtypes.bfloat16)
    for name in NAMES:
        g = 0.0017 if FORMATS[name].tensor_scale else 1.0
        got = backend.encode(hard, recipe(name), g, measure=False).quantized
        if difference(got, reference.encode(hard, recipe(name), g)):
            return True
    return False


@pytest.mark.proof
def test_planted_mistakes_are_seen(tmp_path_factory: pytest.TempPathFactory) -> None:
    tried = [Mutant("", "", "", "Tiled"), *MUTANTS]
    paths = compiled(tried, "encode_bfloat16.cpp", next(iter(library.variants())), tmp_path_factory)[1:]
    unseen = [mutant for mutant, path in zip(tried, paths, strict=True) if not seen(path)]
    assert unseen == [tried[0], *HARMLESS]
