"""Names as they are shown: harmless, on one line, and cut where it tells least."""

import pytest

from studio.core import printable, printable_end

LONG = f"model.{'language_model.' * 12}layers.0.q_proj"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("model.norm", "model.norm"),
        ("a\nb", "a\\nb"),
        (LONG, f"…{LONG[-29:]}"),
        (f"{LONG}\n", f"…{LONG[-27:]}\\n"),
        ("\n" * 20, f"…n{chr(92)}n" + f"{chr(92)}n" * 13),
    ],
)
def test_of_a_long_name_the_end_is_shown(name: str, shown: str) -> None:
    assert printable_end(name, 30) == shown
    assert len(shown) <= 30


def test_of_a_long_text_the_beginning_is_shown() -> None:
    assert printable(LONG, 30) == f"{LONG[:29]}…"
