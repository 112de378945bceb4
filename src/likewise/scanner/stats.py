"""Stat facts of many paths as one value, and where the times of a directory can be trusted.

Looking at 30,000 files is most of what a warm scan does, so everything about it that need not be Python is not: the
facts of a list of paths are one byte string, which is equal to an earlier one when nothing changed.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter
from types import ModuleType

RACY_NS = 2_000_000_000
"""What changed less than this before the scan began is not remembered: a later write could leave the same time
stamps (git's "racy" entries; 2 s is the resolution of the coarsest file systems in use)."""

_FACTS = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
_WIDTH = 4
FACTS = 8 * _WIDTH
"""Bytes that `pack` gives for each path."""

_LOOK = os.O_CLOEXEC | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", os.O_RDONLY)
_MOUNTS = "/proc/self/mountinfo"
_KEEPS_TIMES = frozenset({
    "bcachefs", "beegfs", "btrfs", "ceph", "ext2", "ext3", "ext4", "f2fs", "gpfs", "jfs", "lustre", "nfs", "nfs4",
    "overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs",
})  # fmt: skip
"""File systems that note each name added to, removed from or replaced in a directory in its time stamps, as POSIX asks
for. Object stores and foreign file systems behind FUSE often don't (git's untracked cache has the same doubt)."""


def pack(stats: Iterable[os.stat_result]) -> bytes:
    """Size, mtime, ctime (both in ns) and inode of each, as native 64-bit integers.

    Raises
    ------
    OverflowError
        When a number does not fit.
    """
    return array("q", chain.from_iterable(map(_FACTS, stats))).tobytes()


def facts_of(folder: str, paths: Iterable[str]) -> bytes:
    """The stat facts that `paths` have now, links themselves not what they lead to; b"" when not all can be had.

    Paths may be relative to `folder`: that spares the kernel, and whoever keeps them, the way down to it.
    """
    try:
        descriptor = os.open(folder, _LOOK)
    except (OSError, ValueError):
        return b""
    try:
        return pack(map(partial(os.stat, dir_fd=descriptor, follow_symlinks=False), paths))
    except (OSError, ValueError, OverflowError):
        return b""
    finally:
        os.close(descriptor)


def join_paths(paths: Iterable[str], folder: str = "") -> bytes:
    """Paths as one value, those beneath `folder` relative to it; none of them contains what separates them."""
    base = folder.rstrip("/") + "/"
    if folder:
        paths = [path[len(base) :] if path.startswith(base) else path for path in paths]
    return os.fsencode("\0".join(paths))


def split_paths(joined: bytes) -> list[str]:
    """The paths in what `join_paths` made, as they stand there."""
    return os.fsdecode(joined).split("\0") if joined else []


def version_of(*modules: ModuleType) -> str:
    """Changes with every change of these modules: what was kept by others may mean something else."""
    try:
        return pack([os.stat(module.__file__ or "") for module in modules]).hex()
    except OSError:  # imported from an archive
        return "unknown"


def is_young(facts: bytes, began: int) -> bool:
    """Whether any of what has these facts may change again and keep them (see `RACY_NS`).

    Parameters
    ----------
    facts : bytes
        See `pack`.
    began : int
        When the scan did, in nanoseconds since the epoch.
    """
    numbers = array("q")
    numbers.frombytes(facts)
    newest = max((*numbers[1::_WIDTH], *numbers[2::_WIDTH]), default=0)
    return newest > began - RACY_NS


def keeps_times(folder: str) -> bool:
    """Whether the directories on the file system of `folder` change their times with their names."""
    return file_system(os.path.realpath(folder)) in _KEEPS_TIMES


def file_system(path: str) -> str:
    """The kind of the file system that `path` (links resolved) lies on: ``ext4``; "" where that can't be told."""
    try:
        with open(_MOUNTS, "rb") as file:
            lines = file.read().splitlines()
    except OSError:  # not Linux
        return ""
    return kind_in(lines, os.fsencode(path))


def kind_in(mounts: Sequence[bytes], path: bytes) -> str:
    """The file system of `path` in the lines of ``mountinfo`` (proc(5)); of two mounts on one place, the later."""
    best, kind = -1, ""
    for line in mounts:
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        if len(fields) < 5 or not right:
            continue
        point = fields[4]
        for code in (b"\\040", b"\\011", b"\\012", b"\\134"):  # as the kernel writes space, tab, newline, backslash
            point = point.replace(code, bytes([int(code[1:], 8)]))
        inside = point == b"/" or path == point or path.startswith(point + b"/")
        if inside and len(point) >= best:
            best, kind = len(point), right.partition(b" ")[0].decode("ascii", "replace")
    return kind
