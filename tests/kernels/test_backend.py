"""Which backend is chosen, and the self-test that guards it."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernels import FORMATS, recipe
from kernels.backend import Encoded, Weight
from kernels.cpu import library
from kernels.cpu.backend import CpuBackend
from kernels.machines import NAMES, backends, choose, self_test
from kernels.reference import ReferenceBackend


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, int]:
        raise OSError("libnvfp4.so: cannot open shared object file")

    monkeypatch.setattr(library, "variants", missing)


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.name)
def test_every_backend_that_works_here_passes_its_self_test(backend: Any) -> None:
    assert self_test(backend) is None


@pytest.mark.parametrize("variant", library.variants())
def test_every_variant_passes_its_self_test_and_says_what_it_is(variant: str) -> None:
    backend = CpuBackend(variant)
    assert self_test(backend) is None
    assert backend.title.startswith("CPU, ")


def test_the_fastest_comes_first_and_the_reference_last() -> None:
    names = [backend.name for backend in backends()]
    assert names[-3:] == ["cpu", "numpy", "reference"]
    assert choose("auto").name == names[0]


@pytest.mark.parametrize("name", ["cpu", "numpy", "reference"])
def test_a_backend_is_chosen_by_name(name: str) -> None:
    assert choose(name).name == name


def test_an_unknown_name_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=", ".join(NAMES)):
        choose("abacus")


@pytest.mark.usefixtures("no_library")
def test_without_the_library_numpy_does_the_work_and_says_why() -> None:
    backend = choose("cpu")
    assert backend.name == "numpy"
    assert "cannot open shared object file" in backend.title
    assert self_test(backend) is None
    assert [backend.name for backend in backends()][-2:] == ["numpy", "reference"]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac may have Metal, which needs mlx")
def test_choosing_without_asking_for_a_gpu_never_imports_mlx() -> None:
    program = "import sys, kernels.machines as b; b.choose(); b.backends(); assert 'mlx' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac may have Metal")
def test_a_gpu_that_is_not_here_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"[Mm]etal"):
        choose("metal")


class OneWrongCode(ReferenceBackend):
    """A backend with one wrong code."""

    title = "broken"

    def __init__(self, name: str, method: str) -> None:
        self.wrong = (name, method)

    def encode(self, weight: Weight, recipe: Any, tensor_scale: float = 1.0, **asked: Any) -> Encoded:
        right = super().encode(weight, recipe, tensor_scale, **asked)
        codes = right.quantized.codes.copy()
        codes[0, 0] ^= (recipe.format.name, recipe.method) == self.wrong
        return right._replace(quantized=replace(right.quantized, codes=codes))


@pytest.mark.parametrize(
    ("name", "method"), [("mxfp4", "max"), ("int4-g32", "search"), ("nvfp4-3t", "four-six"), ("nvfp4-2t", "hessian")]
)
def test_the_self_test_names_what_differs(name: str, method: str) -> None:
    reason = self_test(OneWrongCode(name, method))
    assert reason == f"broken: codes of {name} from bfloat16 by {method} differ from the reference"


class Blind(ReferenceBackend):
    """A backend that does not look at statistics."""

    title = "blind"

    def encode(self, weight: Weight, recipe: Any, tensor_scale: float = 1.0, **asked: Any) -> Encoded:
        return super().encode(weight, recipe, tensor_scale, **(asked | {"context": None}))


def test_the_self_test_sees_that_statistics_are_used() -> None:
    reason = self_test(Blind())
    assert reason is not None
    assert "by importance differ" in reason


@pytest.mark.parametrize("name", FORMATS)
def test_every_backend_encodes_and_decodes_a_small_weight_alike(name: str) -> None:
    weight = np.random.default_rng(0).normal(size=(3, 256)).astype(np.float32)
    decoded = [backend.decode(backend.encode(weight, recipe(name), 1e-3).quantized) for backend in backends()]
    for other in decoded[1:]:
        np.testing.assert_array_equal(other, decoded[0])
