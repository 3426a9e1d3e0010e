"""The whole job with keys and clicks: open, choose, quantize, look, compare, export."""

from collections.abc import Callable
from pathlib import Path

from tests.gui.real_window.person import Person

PLOTS = ("Outliers", "Tail", "Error × outliers", "Scale regimes")
WINDOW = "demo-llama - NVFP4 Studio"
MODELS_SECONDS = 900
Show = Callable[[str], None]


def do(
    person: Person, target: Path, show: Show, *, models: bool = False, spoil: Callable[[Path], Path] = lambda path: path
) -> None:
    """Do the job; `show` is called with a word for what is on the screen, each time that there is something new.

    models: evaluate, too, which runs models. spoil: makes of the export the folder that is examined.
    """
    open_demo(person, show)
    choose_formats(person, show)
    quantize(person, show)
    look_at_plots(person, show)
    inspect(person, show)
    compare(person, show)
    if models:
        evaluate(person, show)
        budget(person, show)
    export(person, target, show)
    examine(person, spoil(target), show)


def open_demo(person: Person, show: Show) -> None:
    person.wait_for_window("NVFP4 Studio")
    demo = person.wait_to_see("Try the demo checkpoint", "Button")
    person.wait_until(lambda: bool(person.sees("linear", "ComboBox")), "the choice of a preset")
    show("welcome")
    person.click(demo)
    person.wait_for_window(WINDOW)
    person.wait_to_see("Layers", "Table", "focused")
    show("opened")


def choose_formats(person: Person, show: Show) -> None:
    """MXFP8 for the down projections, and the first value projection is kept."""
    filter_layers(person, "down_proj", "4 of 38")
    person.press("ctrl+a", "4")
    person.wait_to_see("mxfp8", "Cell", "selected")
    show("filtered")
    filter_layers(person, "layers.0.self_attn.v_proj", "1 of 38")
    person.press("ctrl+a", "0")
    person.wait_to_see("keep", "Cell", "selected")
    person.wait_to_see("27 layers to quantize*")
    filter_layers(person, "", "38 layers")


def filter_layers(person: Person, term: str, count: str) -> None:
    """Filter from anywhere, and go to the table."""
    person.press("ctrl+f")
    person.wait_to_see("Filter layers", "EditableText", "focused")
    person.press("BackSpace")
    person.type(term)
    person.wait_to_see(count)
    person.press("Down")
    person.wait_to_see("Layers", "Table", "focused")


def quantize(person: Person, show: Show) -> None:
    person.press("ctrl+Return")
    person.wait_to_see("Quantized 27 layers")
    person.wait_to_see("27 layers, median*")
    show("quantized")


def look_at_plots(person: Person, show: Show) -> None:
    for title in PLOTS:
        person.click(person.wait_to_see(title, "PageTab"))
        person.wait_to_see(title, "PageTab", "selected")
        assert not person.sees("*yet.*"), "a plot comes into sight without results"
        show(title.lower())


def inspect(person: Person, show: Show) -> None:
    person.click(person.wait_to_see("*mlp.gate_proj", "Cell"))
    person.wait_to_see("*mlp.gate_proj", "Cell", "selected")
    person.press("Return")
    person.wait_to_see("Inspector", "PageTab", "selected")
    person.wait_to_see("Block error A, nvfp4-3t*")
    person.click(person.wait_to_see("B: none", "ComboBox"))
    person.click(person.wait_to_see("B: mxfp4", "ListItem"))
    person.wait_to_see("Block error B, mxfp4*")
    show("inspector")


def compare(person: Person, show: Show) -> None:
    """The plan against everything in another format."""
    person.click(person.wait_to_see("Compare", "PageTab"))
    person.click(person.wait_to_see("Everything in nvfp4-2t", "ComboBox"))
    person.click(person.wait_to_see("Everything in int4-g32", "ListItem"))
    person.wait_to_see("B is better on 20 of 28 layers*")
    show("compare")


def evaluate(person: Person, show: Show) -> None:
    """The plan, and two formats by two methods, on a little of the bundled text; it runs models."""
    person.click(person.wait_to_see("Quality", "PageTab"))
    person.click(person.wait_to_see("Evaluate…", "Button"))
    person.wait_for_window("Evaluate — NVFP4 Studio")
    for name in ("nvfp4-3t", "mxfp4", "max", "search"):
        person.click(person.wait_to_see(name, "CheckBox"))
    for key, field, text in (("w", "Windows", "16"), ("l", "Length of a window", "128")):
        person.press(f"alt+{key}")
        person.wait_to_see(field, "SpinBox", "focused")
        person.press("ctrl+a")
        person.type(text)
    person.click(person.wait_to_see("Evaluate", "Button"))
    person.wait_for_window(WINDOW)
    person.wait_to_see("Evaluated", patience=MODELS_SECONDS)
    show("quality")


def budget(person: Person, show: Show) -> None:
    """Price and probe, then drag the budget: the table follows, and what changes is listed; it runs models."""
    person.click(person.wait_to_see("Budget", "PageTab"))
    person.click(person.wait_to_see("Predict KL", "Button"))
    person.wait_to_see("*predicted KL*worst layer*", patience=MODELS_SECONDS)
    person.click(person.wait_to_see("Budget", "Slider"))
    person.wait_to_see("◇ proposed", "Cell")
    person.click(person.wait_to_see("What changes", "PageTab"))
    show("budget")


def export(person: Person, target: Path, show: Show) -> None:
    person.click(person.wait_to_see("Export", "Button"))
    person.wait_for_window("Export — NVFP4 Studio")
    for key, field, text in (("i", "Folder that*", target.parent), ("n", "Name of the export", target.name)):
        person.press(f"alt+{key}")
        person.wait_to_see(field, "EditableText", "focused")
        person.press("ctrl+a")
        person.type(str(text))
    ready = person.wait_to_see("Export * MB", "Button")
    show("export")
    person.click(ready)
    person.wait_for_window(WINDOW)
    person.wait_to_see(f"Exported and verified {target.name}")
    show("exported")


def examine(person: Person, folder: Path, show: Show) -> None:
    """A folder that is not the open checkpoint."""
    for card in person.sees("Close message", "Button"):
        person.click(card)
    person.click(person.wait_to_see("Doctor", "PageTab"))
    person.click(person.wait_to_see("A folder…", "Button"))
    person.wait_for_window("A folder to examine — NVFP4 Studio")
    person.press("ctrl+a")
    person.type(str(folder))
    person.press("Return")
    person.wait_for_window(WINDOW)
    person.wait_to_see("Examined")
    person.wait_to_see(folder.name, "*")
    show("doctor")
