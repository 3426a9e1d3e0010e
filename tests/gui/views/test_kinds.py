"""Colours and marks of kinds: the same in every checkpoint and plan, and told apart by all eyes in both themes."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from studio.gui.shell.theme import THEMES
from studio.gui.views.kinds import SHAPES, entry, known, look
from studio.gui.views.labels import Legend
from tests.gui.views.data import KINDS, layers, many, mixture

Show = Callable[[str], Any]
EYES = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""What colour-blind eyes see of linear red, green and blue (Machado, Oliveira and Fernandes 2009)."""
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
FAR_APART = 20.0
"""In CIE Lab, where 2 is just seen."""


def linear(color: str) -> NDArray[np.float64]:
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = np.cbrt(XYZ @ np.clip(light, 0, 1) / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def shown(view: Any) -> dict[str, tuple[str, str]]:
    return {entry.name: (entry.color, entry.shape) for entry in view.legend.entries}


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("theme", THEMES)
def test_all_eyes_tell_the_projections_of_a_block_apart(theme: str, eyes: str) -> None:
    seen = [np.array(EYES[eyes]) @ linear(THEMES[theme].kinds[look(name)[0]]) for name in KINDS]
    distances = [float(np.linalg.norm(lab(a) - lab(b))) for a, b in combinations(seen, 2)]
    assert min(distances) > FAR_APART
    assert len({look(name)[1] for name in KINDS}) == len(KINDS)


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_marks_stand_out_from_the_ground(theme: Any) -> None:
    ground = float(XYZ[1] @ linear(theme.surface))
    for color in theme.kinds.values():
        ink = float(XYZ[1] @ linear(color))
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 3, color
    assert {color for color, _ in map(look, known())} <= set(theme.kinds)
    assert {mark for _, mark in map(look, known())} <= set(SHAPES)


@pytest.mark.parametrize("name", ["ErrorView", "ScatterView"])
def test_a_kind_keeps_its_sign_whatever_else_is_quantized(name: str, show: Show) -> None:
    view = show(name)
    view.show_results(layers())
    all_kinds = shown(view)
    view.show_results([layer for layer in layers() if "mlp" in layer.name][::-1])
    assert list(shown(view)) == ["gate_proj", "up_proj", "down_proj"]
    assert shown(view).items() <= all_kinds.items()
    view.show_results(mixture(2, 3))
    assert {kind: shown(view)[kind] for kind in KINDS} == all_kinds


def test_a_kind_that_nobody_knows_has_the_same_sign_in_another_run_of_the_program() -> None:
    code = "from studio.gui.views.kinds import look; print(*look('frobnicate_proj'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert tuple(told.split()) == look("frobnicate_proj")
    assert look("some_head", "head")[0] == "head"
    assert entry("post_norm", "", THEMES["dark"]).color == THEMES["dark"].kinds["norm"]


def test_thousands_of_kinds_are_drawn_with_few_signs_and_counted_in_the_legend(show: Show) -> None:
    view = show("ErrorView")
    view.set_marks("dots")
    view.show_results([replace(layer, name=f"{layer.name}{i}") for i, layer in enumerate(many(1500))])
    assert len(view._groups) <= len(SHAPES) * len(THEMES["light"].kinds)
    assert sum(len(members) for _, members in view._groups) == 1500
    names = [entry.name for entry in view.legend.entries]
    assert len(names) == 17
    assert names[-1] == "and 1,484 more kinds"
    assert isinstance(view.legend, Legend)
    assert view.grab().toImage().width() > 0
