"""What a file contained when it had these stat facts: the reason why a second scan only looks and does not read."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from likewise.model.digest import Digest, digest_bytes
from likewise.scanner.stats import RACY_NS

KEEP_DAYS = 30
"""Facts that no scan asked for in this time are forgotten."""

_T = TypeVar("_T")
_Fact = tuple[int, int, int, int, str, int]  # size, mtime_ns, ctime_ns, inode, sha256, day last used


class Facts:
    """Stat facts -> sha256 for the files of one prefix, kept in one file of `folder`.

    `digest` and `remember` may be called from several threads. A damaged or unreadable file counts as empty, and
    writing is best effort, since losing it costs only time.

    Parameters
    ----------
    folder : Path
        Made when missing, private to the user.
    prefix : str
        Whose files these are; names the file.
    behind : Facts, optional
        Asked for what is not known here, and told what is learnt: many facts that are seldom needed.
    """

    def __init__(self, folder: Path, prefix: str, *, behind: Facts | None = None) -> None:
        self._behind = behind
        self._file = folder / f"{digest_bytes(os.fsencode(prefix))[:32]}.facts"
        self._began = now_ns()
        self._today = self._began // 86_400_000_000_000
        self._used: set[str] = set()  # paths whose fact says an earlier day than today
        self._changed = False

    @functools.cached_property
    def _facts(self) -> dict[str, _Fact]:
        """Read when first asked for: where `Memory` knows all, nobody asks."""
        return read_kept(self._file, dict[str, _Fact]) or {}

    def digest(self, path: str, stat: os.stat_result) -> Digest | None:
        """The sha256 of the file at `path`, when its stat facts are the ones known; else None."""
        fact = self._facts.get(path)
        if fact is None:
            return self._from_behind(path, stat) if self._more else None
        size, mtime, ctime, inode, digest, day = fact
        if inode != stat.st_ino or mtime != stat.st_mtime_ns or ctime != stat.st_ctime_ns or size != stat.st_size:
            return self._from_behind(path, stat)
        if day != self._today:
            self._used.add(path)
        return Digest(digest)

    @functools.cached_property
    def _more(self) -> bool:
        """Whether there is anything behind to ask."""
        return self._behind is not None and bool(self._behind._facts)

    def _from_behind(self, path: str, stat: os.stat_result) -> Digest | None:
        digest = self._behind.digest(path, stat) if self._behind else None
        if digest is not None:
            self._put(path, stat, digest)
        return digest

    def remember(self, path: str, stat: os.stat_result, digest: Digest) -> None:
        """Keep the digest of `path`, read after `stat` was taken; ignored for files too young to be sure of."""
        if max(stat.st_mtime_ns, stat.st_ctime_ns) > self._began - RACY_NS:
            return
        self._put(path, stat, digest)
        if self._behind:
            self._behind.remember(path, stat, digest)

    def _put(self, path: str, stat: os.stat_result, digest: Digest) -> None:
        self._facts[path] = (
            stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, digest, self._today,
        )  # fmt: skip
        self._changed = True

    def limit(self, paths: Iterable[str]) -> None:
        """Forget all but the facts of `paths`, here and not behind."""
        for path in self._facts.keys() - set(paths):
            del self._facts[path]
            self._used.discard(path)
            self._changed = True

    def save(self) -> None:
        """Write what changed, atomically; forget what was not used for `KEEP_DAYS`."""
        if self._behind:
            self._behind.save()
        if not (self._changed or self._used):
            return
        for path in self._used:
            self._facts[path] = (*self._facts[path][:5], self._today)
        kept = {p: f for p, f in self._facts.items() if f[5] > self._today - KEEP_DAYS}
        if write_kept(self._file, kept):
            self._used.clear()
            self._changed = False


def now_ns() -> int:
    """When a scan begins, as file systems count: nanoseconds since the epoch."""
    return time.time_ns()


def read_kept(file: Path, kind: type[_T]) -> _T | None:
    """What `write_kept` wrote; None when there is nothing, or nothing whole."""
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def write_kept(file: Path, value: object) -> bool:
    """Replace `file` atomically; whether that was possible."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".facts-")
        try:
            with open(descriptor, "wb") as out:
                out.write(msgspec.msgpack.encode(value))
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
    except (OSError, UnicodeEncodeError):  # no room, no right; a path that is no Unicode
        return False
    return True
