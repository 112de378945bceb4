#!/bin/sh
# Install the Debian packages named as arguments (default: all of tools/debian-packages.txt), where they are missing.
#
# Does nothing without root or without apt-get: the tests that need them are then skipped by name.
set -eu
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || exit 0
command -v apt-get >/dev/null 2>&1 || exit 0

[ $# -gt 0 ] || set -- $(grep -v '^#' tools/debian-packages.txt)

missing=
for package in "$@"; do
    case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

umask 022 # what a package's scripts write must stay readable, whatever the caller's umask
export DEBIAN_FRONTEND=noninteractive
printf 'installing Debian packages:%s\n' "$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && apt-get install --yes --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    printf 'These Debian packages could not be installed:%s\n' "$missing" >&2
    exit 1
fi
