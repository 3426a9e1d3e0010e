"""The runtime of a model is found by names alone, and what is missing is told."""

import importlib.util
import platform
from pathlib import Path

import pytest

from studio.core.errors import BackendError
from studio.lm import runtimes
from studio.lm.runtimes import choose_runtime, is_mixture, knows

LLAMA, MIXTURE = {"model_type": "llama"}, {"model_type": "qwen3_moe", "num_experts": 8}
HERE = Path("folder")


@pytest.fixture
def installed(monkeypatch):
    """installed("mlx-lm"): from now on only these are there, on this system."""

    def only(*names, system="Linux"):
        packages = {package for name in names for package in runtimes._PACKAGES[name]}
        real = importlib.util.find_spec
        known = {package for row in runtimes._PACKAGES.values() for package in row}
        monkeypatch.setattr(
            runtimes.importlib.util,
            "find_spec",
            lambda name, *rest: None if name in known - packages else real(name, *rest),
        )
        monkeypatch.setattr(platform, "system", lambda: system)

    return only


def test_without_a_runtime_it_is_said_how_to_install_one(installed):
    installed()
    with pytest.raises(BackendError, match="neither is here") as caught:
        choose_runtime(LLAMA, HERE)
    assert caught.value.hint == "pip install 'nvfp4-studio[lm]'"


def test_an_architecture_that_no_runtime_knows_is_named():
    pytest.importorskip("transformers", reason="the extra `runtimes` brings it")
    with pytest.raises(BackendError, match="no_such_model"):
        choose_runtime({"model_type": "no_such_model"}, HERE)
    with pytest.raises(BackendError, match="no model type"):
        choose_runtime({}, HERE)


def test_mlx_lm_runs_what_it_knows_on_a_mac_and_large_mixtures_elsewhere(installed):
    for needed in ("torch", "transformers", "mlx_lm"):
        pytest.importorskip(needed, reason="the extra `runtimes` brings it")
    installed("mlx-lm", "transformers")
    assert choose_runtime(LLAMA, HERE) == "transformers"
    assert choose_runtime(MIXTURE, HERE) == "mlx-lm"
    assert choose_runtime(MIXTURE, HERE, nbytes=1 << 20) == "transformers"
    installed("mlx-lm", "transformers", system="Darwin")
    assert choose_runtime(LLAMA, HERE) == "mlx-lm"
    assert choose_runtime({"model_type": "arcee"}, HERE) == "transformers"
    installed("transformers", system="Darwin")
    assert choose_runtime(MIXTURE, HERE) == "transformers"


def test_names_of_model_types_are_no_paths():
    pytest.importorskip("mlx_lm", reason="the extra `runtimes` brings it")
    assert knows("mlx-lm", LLAMA)
    assert not knows("mlx-lm", {"model_type": "../llama"})
    assert not knows("mlx-lm", {"model_type": "base.py"})


def test_mixtures_are_known_by_their_config():
    assert is_mixture(MIXTURE)
    assert is_mixture({"model_type": "x", "text_config": {"n_routed_experts": 64}})
    assert not is_mixture(LLAMA)
    assert not is_mixture({"model_type": "x", "num_experts": 1})
