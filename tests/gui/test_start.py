"""The first picture of the window, before the heavy parts are loaded."""

import subprocess
import sys
from pathlib import Path

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
