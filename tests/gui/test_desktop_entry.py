"""What a Linux desktop needs to know: one name in the window, in the desktop entry and in the metainfo."""

import configparser
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication

import kernels

ROOT = Path(__file__).parents[2]
(ENTRY,) = (ROOT / "packaging" / "linux").glob("*.desktop")
(METAINFO,) = (ROOT / "packaging" / "linux").glob("*.metainfo.xml")
CHECKERS = {"desktop-file-validate": [str(ENTRY)], "appstreamcli": ["validate", "--no-net", str(METAINFO)]}


@pytest.mark.usefixtures("qapp")
def test_the_window_has_the_name_of_its_desktop_entry() -> None:
    assert QGuiApplication.desktopFileName() == ENTRY.stem


def test_the_entry_starts_the_program_under_its_icon(qapp: QApplication) -> None:
    entry = configparser.ConfigParser(interpolation=None)
    entry.read(ENTRY)
    facts = entry["Desktop Entry"]
    assert facts["Exec"].split()[0] == facts["StartupWMClass"] == qapp.applicationName()
    assert (ROOT / "resources" / "icons" / f"{facts['Icon']}.svg").is_file()


def test_the_metainfo_tells_of_this_version() -> None:
    told = ElementTree.parse(METAINFO).getroot()  # noqa: S314 - our own file
    assert told.findtext("id") == ENTRY.stem
    assert told.findtext("launchable") == ENTRY.name
    releases = told.findall("releases/release")
    assert releases[0].get("version") == kernels.__version__


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_checkers_of_desktops_have_nothing_to_say(checker: str) -> None:
    if shutil.which(checker) is None:
        pytest.skip(f"not installed: {checker}")
    done = subprocess.run([checker, *CHECKERS[checker]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
