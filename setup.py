"""Build the C++ library into the package; everything else about the package is in pyproject.toml.

NVFP4_STUDIO_NO_NATIVE=1 leaves the library out: numpy then does its work, about 20 times slower.
NVFP4_STUDIO_TARGET=<compiler target> builds for another machine, for example aarch64-linux-gnu.2.17.
"""

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
WHEEL_PLATFORMS = {
    "x86_64-linux-gnu": "manylinux2014_x86_64",
    "aarch64-linux-gnu": "manylinux2014_aarch64",
    "x86_64-linux-musl": "musllinux_1_2_x86_64",
    "aarch64-linux-musl": "musllinux_1_2_aarch64",
    "aarch64-macos": "macosx_12_0_arm64",
    "x86_64-macos": "macosx_12_0_x86_64",
    "x86_64-windows-gnu": "win_amd64",
    "aarch64-windows-gnu": "win_arm64",
}


def load_builder() -> ModuleType:
    """kernels/cpu/build.py, without importing the package, whose dependencies are not here yet."""
    spec = importlib.util.spec_from_file_location("build_library", ROOT / "kernels" / "cpu" / "build.py")
    if spec is None or spec.loader is None:
        raise ImportError("kernels/cpu/build.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDER = load_builder()
NATIVE = os.environ.get("NVFP4_STUDIO_NO_NATIVE") != "1"
TARGET = (os.environ.get("NVFP4_STUDIO_TARGET") or BUILDER.host_target()) if NATIVE else ""


class BuildLibrary(build_ext):
    """Runs our compiler in place of setuptools' own."""

    def get_ext_filename(self, fullname: str) -> str:
        """Where the library goes in the package: it is no Python module, so no ABI tag."""
        return str(Path(*fullname.split(".")[:-1]) / BUILDER.library_name(TARGET))

    def build_extension(self, ext: Extension) -> None:
        """Compile; a failure ends the installation, with the compiler's words."""
        BUILDER.build(TARGET, Path(self.get_ext_fullpath(ext.name)))


class PlatformWheel(bdist_wheel):
    """The library depends on the platform and on no Python version."""

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none-<platform>, or py3-none-any without the library."""
        if not NATIVE:
            return "py3", "none", "any"
        return "py3", "none", WHEEL_PLATFORMS[TARGET.split(".")[0]]


class WithResources(build_py):
    """Takes the bundled files along into the package; a source tree is read where it is."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if not self.editable_mode:
            shutil.copytree(ROOT / "resources", Path(self.build_lib, "studio", "resources"), dirs_exist_ok=True)


setup(
    ext_modules=[Extension("kernels.cpu.nvfp4", sources=[])] if NATIVE else [],
    cmdclass={"build_ext": BuildLibrary, "build_py": WithResources, "bdist_wheel": PlatformWheel},
)
