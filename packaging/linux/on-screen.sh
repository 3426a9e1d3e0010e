#!/bin/sh
# Runs a command on a screen of its own that nobody sees: packaging/linux/on-screen.sh COMMAND...
set -eu

number=$(mktemp)
Xvfb -displayfd 3 -nolisten tcp -screen 0 1400x900x24 3>"$number" 2>/dev/null &
screen=$!
trap 'kill "$screen" 2>/dev/null || true; rm -f "$number"' EXIT
while [ ! -s "$number" ]; do
    kill -0 "$screen" 2>/dev/null || {
        echo "Xvfb does not start" >&2
        exit 1
    }
    sleep 0.1
done
DISPLAY=:$(cat "$number") QT_QPA_PLATFORM=xcb "$@"
