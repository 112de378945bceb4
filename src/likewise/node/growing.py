"""A prefix that is used before it is complete: what is in its folder ``growing``, and what outsiders may do with it.

    growing/map               one line for each top-level name of modules, and each script as ``bin/<file>``:
                              ``<name>\\t<key> <key> …``, the layers that must be there before it is used
    growing/there/<key>       the layer and its bytecode are laid out
    growing/failed/<key>      why the layer can't be had; removed when it is tried again
    growing/queue             FIFO: keys of layers that are wanted, one a line; what was written last comes first
    growing/lock              held by the process that fills the prefix (`likewise.node.filler`)
    growing/fill              starts such a process, unless there is one
    growing/log               what it has to say
    growing/tmp/              what it is making

A key is the first 16 digits of a layer's digest. The folder goes when everything is there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable

import msgspec

from likewise.model.manifest import Manifest
from likewise.node.cache import is_held
from likewise.node.gate import NO_ROOM

POLL = 0.05
"""Seconds between two looks at what is there."""

NUDGE = 1.0
"""Seconds between two attempts to have somebody fill the prefix, and to have failed layers tried again."""

_HOPELESS = 20
"""After so many nudges without any progress, and nobody who fills the prefix, nobody will."""


def key(digest: str) -> str:
    """How a layer is called in the folder ``growing``."""
    return digest[:16]


class Growing(msgspec.Struct, frozen=True):
    """The folder ``growing`` of the prefix at `prefix`."""

    prefix: str

    @property
    def folder(self) -> str:
        """The folder itself. It is there from the beginning until the prefix is complete."""
        return f"{self.prefix}/growing"

    def place(self, name: str) -> str:
        """What is called `name` in it."""
        return f"{self.folder}/{name}"

    def grows(self) -> bool:
        """Whether the prefix can be used and is not complete."""
        return can_start(self.prefix) and os.path.isdir(self.folder)

    def is_filled(self) -> bool:
        """Whether somebody is filling it."""
        return is_held(self.place("lock"))

    def there(self) -> frozenset[str]:
        """Keys of the layers that are laid out."""
        return frozenset(_names(self.place("there")))

    def failed(self) -> dict[str, int]:
        """Keys of the layers that can't be had, and when that was found out (nanoseconds)."""
        found = {}
        for name in _names(self.place("failed")):
            with contextlib.suppress(OSError):
                found[name] = os.stat(self.place(f"failed/{name}")).st_mtime_ns
        return found

    def reason(self, name: str) -> str:
        """Why the layer with the key `name` can't be had; "" when that is not known."""
        try:
            with open(self.place(f"failed/{name}"), encoding="utf-8", errors="replace") as file:
                return file.read().strip() or NO_ROOM
        except OSError:
            return ""

    def forgive(self) -> None:
        """Forget what could not be had: whoever starts now has it tried again."""
        for name in _names(self.place("failed")):
            with contextlib.suppress(OSError):
                os.unlink(self.place(f"failed/{name}"))

    def want(self, keys: Iterable[str]) -> None:
        """Ask whoever fills the prefix for these layers first. Nobody may be there to hear it."""
        with contextlib.suppress(OSError):
            fd = os.open(self.place("queue"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                for name in keys:
                    os.write(fd, f"{name}\n".encode())
            finally:
                os.close(fd)

    def resume(self) -> None:
        """Have somebody fill the prefix, unless there is somebody."""
        if not self.is_filled():
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                quiet = subprocess.DEVNULL
                subprocess.run([self.place("fill")], stdin=quiet, stdout=quiet, stderr=quiet, check=False, timeout=60)


def can_start(prefix: str) -> bool:
    """Whether Python can be started there; it may still be growing.

    It appears with all that this takes; but what cleans up ``/tmp`` may have been at it since.
    """
    return os.path.isfile(f"{prefix}/launch")


def is_whole(prefix: str) -> bool:
    """Whether the prefix is there, and complete."""
    return can_start(prefix) and not os.path.isdir(f"{prefix}/growing")


def wait_until_whole(prefix: str, manifest: Manifest) -> dict[str, str]:
    """Wait until the prefix does not grow any more, or nothing but layers that can't be had is left.

    Those that could not be had before are tried once more.

    Returns
    -------
    dict
        Name of each layer that is not there → why.
    """
    growing = Growing(prefix)
    before, seen, nudged, vain = growing.failed(), growing.there(), 0.0, 0
    while growing.grows():
        there, failed = growing.there(), growing.failed()
        new = {name for name, when in failed.items() if before.get(name) != when}
        missing = {key(ref.digest): ref.name for ref in manifest.layers if key(ref.digest) not in there}
        if missing and missing.keys() <= new:
            return {name: growing.reason(each) for each, name in missing.items()}
        if time.monotonic() - nudged > NUDGE:
            vain = 0 if there != seen or growing.is_filled() else vain + 1
            if vain > _HOPELESS:
                return {name: growing.reason(each) or _nobody(growing) for each, name in missing.items()}
            growing.resume()
            growing.want(failed.keys() - new)
            nudged, seen = time.monotonic(), there
        time.sleep(POLL)
    return {}


def _nobody(growing: Growing) -> str:
    return f"Whoever fills the prefix ends too early; see {growing.place('log')}."


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # it has just been completed
        return []
