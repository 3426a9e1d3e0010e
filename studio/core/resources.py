"""Where the bundled files are: presets, the demo checkpoint, templates, texts."""

from pathlib import Path

from studio.core.errors import StudioError


def resources() -> Path:
    """The folder of bundled files: inside the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parent.parent
    found = next((folder for folder in (package / "resources", package.parent / "resources") if folder.is_dir()), None)
    if found is None:
        raise StudioError("the bundled resources are missing", hint="install the program again")
    return found


def demo_checkpoint() -> Path:
    """The folder of the bundled demo checkpoint."""
    return resources() / "demo" / "demo-llama"


def calibration_text() -> Path:
    """The bundled text to gather statistics on, UTF-8: kinds of text interleaved, so that its start is a mix too."""
    return resources() / "texts" / "calibration.txt"


def evaluation_text() -> Path:
    """The bundled text to evaluate on: the kinds of the calibration text, with no passage in common."""
    return resources() / "texts" / "evaluation.txt"
