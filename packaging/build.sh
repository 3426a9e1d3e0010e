#!/bin/sh
# Builds what this platform can into build/package: the wheel, the one-folder program, on Debian also the .deb.
# Each is tried before the next is made.
set -eu

cd "$(dirname "$0")/.."
python=.venv/bin/python
out=build/package
version=$($python -c 'import kernels; print(kernels.__version__)')
$python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt build pyinstaller
rm -rf "$out"
mkdir -p "$out"

echo "1. wheel"
$python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$out" .
ls "$out"/*.whl

echo "2. one-folder program"
$python -m PyInstaller --noconfirm --log-level WARN --distpath "$out" --workpath build/pyinstaller packaging/nvfp4-studio.spec
program=$out/nvfp4-studio/nvfp4-studio
"$program" --version
"$program" demo build/package-demo --quiet >/dev/null
"$program" verify build/package-demo
QT_QPA_PLATFORM=offscreen "$program" --smoke
echo "works: command line, demo, verification, window offscreen"
if command -v Xvfb >/dev/null; then
    sh packaging/linux/on-screen.sh "$program" --smoke
    echo "works: window on an X screen"
fi

command -v dpkg-deb >/dev/null || exit 0
echo "3. Debian package"
sh packaging/linux/build-deb.sh "$out" "$version"
