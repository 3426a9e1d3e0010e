#!/bin/sh
# Prepares .venv in the source tree: packaging/setup.sh app|dev. Installs what is missing, or says the command that does.
set -eu

kind=${1:?app or dev}
cd "$(dirname "$0")/.."

window="libgl1 libegl1 libglib2.0-0 libxkbcommon0 libdbus-1-3 libfontconfig1 fonts-dejavu-core"
screen="libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libxkbcommon-x11-0"
testing="xvfb openbox xdotool qemu-user g++ desktop-file-utils appstream"

have_python() {
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}

# Installs Debian packages; without the right to, prints the command. $1: required or wanted, the rest: packages.
install_packages() {
    need=$1
    shift
    missing=""
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            dpkg-query -W -f='${Status}' "${package}t64" 2>/dev/null | grep -q 'ok installed' ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "Installing system packages:$missing"
    # shellcheck disable=SC2086
    if as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
        return 0
    fi
    echo "Run this, then try again:  sudo apt-get install --no-install-recommends$missing" >&2
    [ "$need" = wanted ]
}

if command -v apt-get >/dev/null; then
    have_python >/dev/null || install_packages required python3 python3-venv
    install_packages wanted $window $screen
    [ "$kind" = app ] || install_packages wanted $testing
fi
python=$(have_python) || {
    echo "Python 3.11, 3.12 or 3.13 with venv is needed: install it, or set PYTHON to it" >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
extras=gui
[ "$kind" = app ] || extras=gui,test,lint,runtimes
.venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable ".[$extras]"
.venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true  # on all processors, unlike pip; some files are for later Pythons
touch ".venv/.$kind"
