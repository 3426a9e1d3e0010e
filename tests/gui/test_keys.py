"""Shortcuts in texts are those of the actions, written as the platform writes them."""

import ast
import re
from pathlib import Path

import pytest
from PySide6.QtGui import QKeySequence

import studio.core
import studio.gui
from studio.gui.shell.commands import Commands
from studio.gui.shell.specs import keys_of
from studio.gui.shell.studio import Studio

WHERE_KEYS_ARE_GIVEN = ("specs.py", "registry.py")
KEYS = re.compile(r"\b(Ctrl|Shift|Alt|Cmd|Meta) ?[+⌘]")
LETTER = re.compile(r"(?<!&)&([^&])")
FOLDERS = [Path(package.__file__).parent for package in (studio.gui, studio.core) if package.__file__]
MODULES = [
    path for folder in FOLDERS for path in sorted(folder.glob("**/*.py")) if path.name not in WHERE_KEYS_ARE_GIVEN
]


@pytest.mark.parametrize("key", ["quantize", "save_plan", "stop", "find"])
def test_keys_in_texts_are_those_of_the_action(commands: Commands, key: str) -> None:
    shortcut = commands.window.actions_of[key].shortcuts()[0]
    assert keys_of(key) == shortcut.toString(QKeySequence.SequenceFormat.NativeText)


def test_no_text_names_keys_by_itself() -> None:
    texts = [(path.name, text) for path in MODULES for text in _texts(ast.parse(path.read_text(encoding="utf-8")))]
    assert len(texts) > 500
    assert [found for found in texts if KEYS.search(found[1])] == []


def _texts(tree: ast.Module) -> list[str]:
    """The texts of a module, but for its docstrings."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in bare]
    return [node.value for node in constants if isinstance(node.value, str)]


def test_no_two_entries_of_a_menu_share_a_letter(studio: Studio) -> None:
    for title, menu in studio.commands.window.menus.items():
        letters = [found[1].lower() for action in menu.actions() if (found := LETTER.search(action.text()))]
        assert len(letters) == len(set(letters)), (title, sorted(letters))
