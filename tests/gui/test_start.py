"""The first picture of the window, before the heavy parts are loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
from studio.gui.app import make_application
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
application = make_application()
window = Commands(Settings(Path(sys.argv[1])), application).window
window.show()
print(window.menuBar().fontInfo().pixelSize(), window.welcome.drop.fontInfo().pixelSize())
window.close()
"""


def test_text_has_its_size_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[options]\ntext_size=19")
    command = (sys.executable, "-c", CODE, str(tmp_path / "settings.ini"))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["19", "19"]


WITHOUT_QT = """
import importlib
import sys
from studio.gui.shell.loading import WITHOUT_QT
before = {name for name in sys.modules if name.startswith(("PySide6", "shiboken6"))}
for name in WITHOUT_QT:
    importlib.import_module(name)
print(sorted(name for name in sys.modules if name.startswith(("PySide6", "shiboken6", "pyqtgraph"))) == sorted(before))
"""


def test_the_background_thread_imports_nothing_of_qt() -> None:
    done = subprocess.run((sys.executable, "-c", WITHOUT_QT), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


INCOMPLETE = """
import sys
from pathlib import Path
from PySide6.QtCore import QTimer
from studio.gui.app import make_application
from studio.gui.shell import loading
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
setattr(loading, sys.argv[2], ("studio.missing", *getattr(loading, sys.argv[2])))
application = make_application()
commands = Commands(Settings(Path(sys.argv[1])), application)
commands.loading.ended.connect(lambda _: QTimer.singleShot(0, commands.quit_now))
commands.start()
application.exec()
print(*(message.plain() for message in commands.window.messages.items))
"""


@pytest.mark.parametrize("part", ["WITHOUT_QT", "WITH_QT"])
def test_a_program_that_is_not_complete_says_so(part: str, tmp_path: Path) -> None:
    command = (sys.executable, "-c", INCOMPLETE, str(tmp_path / "settings.ini"), part)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "The program is not complete" in done.stdout
    assert "studio.missing" in done.stdout
    assert "Install it again." in done.stdout
