"""A user of a testbed machine who means no good: he lays traps where somebody else's cache will be.

Whatever of his is run leaves a line in `EVIDENCE`; what is read or changed of anybody's, `Watched` tells.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from support.testbed import Host

HOSTILE, VICTIM = "hostile", "victim"

EVIDENCE = "/var/tmp/evidence"
"""Everybody may write to it, so that a trap can tell whoever steps into it."""

PRECIOUS = f"/home/{VICTIM}/precious"
"""A folder of the victim's, that links of the hostile user lead to."""

PROGRAM = f'#!/bin/sh\necho "$0 run by $(id -un)" >> {EVIDENCE}\n'
MODULE = f"with open({EVIDENCE!r}, 'a') as file:\n    print(__file__, 'imported', file=file)\n"

IN_THE_WAY = {
    "a folder of his": "mkdir -m 777 $place",
    "a link to a folder of his": "mkdir -m 777 $own && ln -s $own $place",
    "a link to a folder of the victim's": f"ln -s {PRECIOUS} $place",
    "a link to what the victim does not have yet": f"ln -s {PRECIOUS}/new $place",
    "a link to a file of the victim's": f"ln -s {PRECIOUS}/letter $place",
    "a file": "echo his > $place; chmod 666 $place",
    "a pipe": "mkfifo -m 666 $place",
    "a socket": "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => shift, Listen => 1)' $place",
}
"""What a user can put where another's cache would be (``$place``), as a script; ``$own`` is a folder of his."""

_OLD = 10**18
"""Nanoseconds; a time of access that the next access changes."""


def add_users(host: Host) -> None:
    """A hostile user and a victim, who has something to lose."""
    host.add_user(HOSTILE)
    host.add_user(VICTIM)
    host.run(f"mkdir -m 700 {PRECIOUS}; echo dear > {PRECIOUS}/letter", user=VICTIM)
    host.run(f": > {EVIDENCE}; chmod 666 {EVIDENCE}")


def place(host: Host) -> str:
    """Where the victim's cache goes if nothing is wrong."""
    return f"/tmp/likewise-{host.run(f'id -u {VICTIM}').strip()}"


def lay(host: Host, script: str) -> None:
    """Let the hostile user run `script`, one of `IN_THE_WAY` or another."""
    host.run(f"place={place(host)} own=/tmp/own; {script}", user=HOSTILE)


def poison(host: Host, folder: str) -> None:
    """Let a copy of somebody's cache in `folder` become the hostile user's, with every program and module exchanged."""
    for path in _walk(host.root / folder.lstrip("/")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and (mode & 0o111 or path.suffix in (".py", ".sh")):
            path.write_text(MODULE if path.suffix == ".py" else PROGRAM)
    host.run(f"chmod -R go+rwX {folder}; chown -hR {HOSTILE}: {folder}")


def evidence(host: Host) -> str:
    """What of the hostile user's was run, and by whom."""
    return host.run(f"cat {EVIDENCE}")


class Watched:
    """Files and folders of a machine, to be told what is done to them from now on.

    Parameters
    ----------
    paths : str
        Absolute, on the machine; everything beneath them counts. Links are not followed.
    """

    def __init__(self, host: Host, *paths: str) -> None:
        self._root = host.root
        self._tops = [host.root / path.lstrip("/") for path in paths]
        found = self._all()
        for path in found:
            if not path.is_symlink():
                os.utime(path, ns=(_OLD, path.lstat().st_mtime_ns))
        self._before = {path: path.lstat() for path in found}

    def differences(self) -> dict[str, str]:
        """What was done: path → ``read`` (a folder: listed), ``changed``, ``made`` or ``removed``. Once only."""
        told = {path: what for path, before in self._before.items() if (what := _difference(path, before))}
        told |= {path: "made" for path in self._all() if path not in self._before}
        return {f"/{path.relative_to(self._root)}": what for path, what in told.items()}

    def _all(self) -> list[Path]:
        return [path for top in self._tops if os.path.lexists(top) for path in _walk(top)]


def _difference(path: Path, before: os.stat_result) -> str:
    """What was done to one file; nothing of it is read here."""
    try:
        now = path.lstat()
    except FileNotFoundError:
        return "removed"
    # The kernel alone sets the time of change, whenever content, owner, mode or links do.
    if (now.st_ino, now.st_mode, now.st_ctime_ns) != (before.st_ino, before.st_mode, before.st_ctime_ns):
        return "changed"
    return "read" if now.st_atime_ns != before.st_atime_ns and not stat.S_ISLNK(now.st_mode) else ""


def _walk(top: Path) -> Iterator[Path]:
    yield top
    if not top.is_symlink():
        for folder, folders, files in os.walk(top):
            yield from (Path(folder) / name for name in (*folders, *files))
