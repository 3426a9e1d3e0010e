"""What goes on around the job, with real keys: other checkpoints, filters, quitting, crashes, questions too early."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.window_cases import expert_checkpoint
from tests.core.checkpoints import checkpoint, large_checkpoint, llama, snapshot
from tests.gui.real_window.job import filter_layers
from tests.gui.real_window.person import Person
from tests.gui.real_window.screen import Screen, missing, own_screen

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")
Start = Callable[..., Person]
DATA = Path(".local") / "share" / "nvfp4-studio"
LAYERS = "21 layers"
SAVED = "plan kept, not in a file"


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    with own_screen(tmp_path_factory.mktemp("screen")) as made:
        yield made


@pytest.fixture
def start(screen: Screen, tmp_path: Path) -> Iterator[Start]:
    """Starts the program, always at the same home."""
    begun: list[Person] = []

    def make(*paths: Path) -> Person:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        begun.append(Person(screen, home, {"theme": "light"}, paths))
        return begun[-1]

    yield make
    for person in begun:
        person.__exit__()


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "first")


def wait_until_open(person: Person, path: Path) -> None:
    person.wait_for_window(f"{path.name} - NVFP4 Studio")
    person.wait_to_see("Layers", "Table", "focused")


def open_folder(person: Person, path: Path) -> None:
    """Open a checkpoint with keys alone."""
    person.press("ctrl+o")
    person.wait_for_window("Open a checkpoint folder — NVFP4 Studio")
    person.wait_to_see("Directory:", "EditableText", "focused")
    person.type(str(path))
    person.press("Return")


def choose(person: Person, term: str, count: str, key: str) -> None:
    """A format for the layers that the filter shows, which are all selected; then all are shown again."""
    filter_layers(person, term, f"{count} of {LAYERS[:2]}")
    person.press("ctrl+a", key)
    person.wait_to_see(SAVED)
    filter_layers(person, "", LAYERS)


def quit_window(person: Person) -> None:
    person.press("ctrl+q")
    assert person.wait_for_end() == 0
    assert person.faults == ""


def formats(person: Person, name: str) -> int:
    """How many rows say this format."""
    return len(person.sees(name, "Cell"))


def kept_work(home: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in home.rglob("work.json")]


@pytest.mark.proof
def test_each_of_two_checkpoints_comes_back_with_its_own_plan(start: Start, first: Path, tmp_path: Path) -> None:
    second = checkpoint(tmp_path / "second", llama(3))
    person = start(first)
    wait_until_open(person, first)
    choose(person, "down_proj", "2", "4")
    person.wait_until(lambda: formats(person, "mxfp8") == 2, "two layers in mxfp8")
    open_folder(person, second)
    wait_until_open(person, second)
    assert not formats(person, "mxfp8")
    assert not person.sees(SAVED)
    open_folder(person, first)
    wait_until_open(person, first)
    person.wait_to_see("*Picked up where you left off")
    assert formats(person, "mxfp8") == 2
    person.press("ctrl+z")
    person.wait_until(lambda: not formats(person, "mxfp8"), "the choice taken back")
    quit_window(person)
    assert sorted(len(work["steps"]) for work in kept_work(tmp_path / "home")) == [1, 2]


@pytest.mark.proof
def test_no_key_changes_a_layer_that_the_filter_hides(start: Start, first: Path, tmp_path: Path) -> None:
    person = start(first)
    wait_until_open(person, first)
    filter_layers(person, "down_proj", "2 of 21")
    person.press("ctrl+a")
    person.wait_to_see("*down_proj", "Cell", "selected")
    person.press("ctrl+f", "ctrl+a")
    person.type("up_proj")
    person.wait_to_see("2 of 21")
    person.press("Tab", "4", "0", "BackSpace", "shift+Return")
    filter_layers(person, "", LAYERS)
    assert not person.sees("*", "Cell", "selected")
    assert not formats(person, "mxfp8")
    assert person.sees("Undo", "Button", "disabled")
    quit_window(person)
    assert all(len(work["steps"]) == 1 for work in kept_work(tmp_path / "home"))


def prepare(person: Person, path: Path) -> None:
    """Work that has to be there again: a choice by hand, results, and another page."""
    wait_until_open(person, path)
    choose(person, "down_proj", "2", "4")
    person.press("ctrl+Return")
    person.wait_to_see("Quantized 14 layers")
    person.click(person.wait_to_see("Compare", "PageTab"))
    person.wait_to_see("Compare", "PageTab", "selected")


def check_that_it_is_there_again(person: Person, path: Path) -> None:
    person.wait_for_window(f"{path.name} - NVFP4 Studio")
    person.wait_to_see("*Picked up where you left off")
    person.wait_to_see("Compare", "PageTab", "selected")
    person.wait_to_see("14 layers are quantized already")
    assert formats(person, "mxfp8") == 2
    person.press("ctrl+z")
    person.wait_until(lambda: not formats(person, "mxfp8"), "the choice taken back")
    quit_window(person)


def test_quit_and_return_to_plan_results_undo_and_page(start: Start, first: Path) -> None:
    person = start(first)
    prepare(person, first)
    quit_window(person)
    check_that_it_is_there_again(start(), first)


@pytest.mark.proof
def test_a_crash_takes_nothing_that_is_older_than_a_second(start: Start, first: Path, tmp_path: Path) -> None:
    person = start(first)
    prepare(person, first)
    person.wait_until(lambda: [w["view"]["page"] for w in kept_work(tmp_path / "home")] == ["compare"], "kept work")
    person.crash()
    check_that_it_is_there_again(start(), first)


@pytest.mark.proof
def test_asking_to_quantize_while_a_checkpoint_opens_is_answered(start: Start, first: Path, tmp_path: Path) -> None:
    experts = expert_checkpoint(tmp_path / "experts", blocks=160)
    person = start(first)
    wait_until_open(person, first)
    open_folder(person, experts)
    person.wait_to_see("*Nothing else can start meanwhile.")
    person.press("ctrl+Return", "ctrl+e", "ctrl+z")
    wait_until_open(person, experts)
    person.wait_to_see("62,080 layers to quantize*")
    assert not person.sees("Problem:*")
    quit_window(person)


@pytest.mark.proof
def test_a_comparison_waits_for_the_run_and_goes_on_by_itself(start: Start, tmp_path: Path) -> None:
    (tmp_path / "heavy").mkdir()
    heavy = large_checkpoint(tmp_path / "heavy", 64)
    (heavy / "config.json").write_text('{"architectures": ["Test"]}')
    person = start(heavy)
    wait_until_open(person, heavy)
    person.press("ctrl+Return")
    person.wait_to_see("Quantizing")
    person.press("ctrl+p")
    person.wait_to_see("Quantizing, paused")
    person.click(person.wait_to_see("Compare", "PageTab"))
    person.click(person.wait_to_see("Everything in nvfp4-2t", "ComboBox"))
    person.click(person.wait_to_see("The plan of now", "ListItem"))
    person.wait_to_see("Waits for the work that runs, and goes on by itself once it is over …")
    person.press("ctrl+p")
    person.wait_to_see("Quantized 64 layers")
    person.wait_to_see("No difference in the errors of 64 layers*")
    quit_window(person)


@pytest.mark.proof
def test_a_folder_of_someone_else_is_never_replaced(start: Start, first: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("two years of work")
    before = snapshot(taken)
    person = start(first)
    wait_until_open(person, first)
    person.press("ctrl+e")
    person.wait_for_window("Export — NVFP4 Studio")
    for key, field, text in (("i", "Folder that*", taken.parent), ("n", "Name of the export", taken.name)):
        person.press(f"alt+{key}")
        person.wait_to_see(field, "EditableText", "focused")
        person.press("ctrl+a")
        person.type(str(text))
    person.wait_to_see("*only an earlier export is ever replaced*")
    assert person.sees("Export", "Button", "disabled")
    assert not person.sees("Replace*", "CheckBox")
    person.press("Return")
    person.press("Escape")
    wait_until_open(person, first)
    quit_window(person)
    assert snapshot(taken) == before
