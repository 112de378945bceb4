#!/bin/sh
# Make .venv and install likewise (editable) with the dependency groups given as arguments.
#
# Costs nothing when it was done before with the same pyproject.toml, at the same place, for the same groups.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10 python}; do
        if suits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    say "likewise needs Python 3.10 or newer, and none was found on PATH. Install one, or say PYTHON=/path/to/python3."
    exit 1
}

make_venv() {
    python=$(find_python)
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    rm -rf .venv
    "$python" -m venv .venv >"$log" 2>&1 && return
    # Debian and Ubuntu leave ensurepip out of python3: python3-venv brings it.
    rm -rf .venv
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        tools/debian_packages.sh python3-venv
        "$python" -m venv .venv >"$log" 2>&1 && return
    fi
    cat "$log" >&2
    say "$python can't make virtual environments. On Debian or Ubuntu: apt-get install python3-venv, then try again."
    exit 1
}

wanted="$(pwd) $(cksum <pyproject.toml)"
if [ ! -x .venv/bin/python ] || ! suits .venv/bin/python || [ "$(cat .venv/.place 2>/dev/null)" != "$wanted" ]; then
    make_venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.6"
    .venv/bin/python -m uv pip install --quiet --python .venv/bin/python --editable .
    printf '%s' "$wanted" >.venv/.place
fi

for group in "$@"; do
    [ -e ".venv/.group-$group" ] && continue
    .venv/bin/python -m uv pip install --quiet --python .venv/bin/python --group "$group"
    : >".venv/.group-$group"
done
