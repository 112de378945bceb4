"""Which files are believed to be what `RECORD` says, without having been read.

Installers unpack a wheel in one go and write `RECORD` last. So a regular file that has the size which stands there, and
was neither written nor replaced since, is believed to have the content, too: reading all files to hash them is most of
what a first scan would do. Whoever reads such a file later, to pack it, hashes it in the same pass, and makes a note
when it is another (`likewise.layers.content`). From then on the files of that distribution are read.

Not believed is what has no sha256 or no size in `RECORD`; what is a link; what this user may not be able to read; what
lies in a metadata folder, which is read in any case; and nothing at all where `RECORD` says that it is from the future,
or where conda installed it, which rewrites files.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from likewise.model.digest import digest_bytes
from likewise.scanner.facts import now_ns

UNPACKING_NS = 60_000_000_000
"""Longer than this no installer takes to unpack one wheel; if it does, the rest is read. Only uv's cache needs it: what
is edited in place there, or through a link in any other prefix, may be older than the `RECORD` of this one."""


class Voucher(NamedTuple):
    """A `RECORD` that is believed.

    `written` and `changed` are the latest times (ns since the epoch) of modification and of change that a file may
    have, `user` is who has to be able to read it; `note` is the path of the file to make when `RECORD` is wrong.
    """

    written: int
    changed: int
    user: int
    note: str

    def covers(self, path: str, facts: os.stat_result, size: int) -> bool:
        """Whether a file is believed to have the content that `RECORD` claims for it.

        The time of change tells of what restored the other one (``cp -p``, an archive). It says nothing where a file
        has several names, as in a prefix that uv linked to its cache: it changes with each name.

        Parameters
        ----------
        path : str
        facts : stat_result
            Of `path` itself, not of what it leads to.
        size : int
            In bytes, as it stands in `RECORD`.
        """
        return (
            facts.st_size == size
            and facts.st_mtime_ns <= self.written
            and (facts.st_nlink > 1 or facts.st_ctime_ns <= self.changed)
            and stat.S_ISREG(facts.st_mode)
            and facts.st_mode & (stat.S_IRUSR if facts.st_uid == self.user else stat.S_IROTH) != 0
            and not (".dist-info/" in path or ".egg-info/" in path or "EGG-INFO/" in path)
        )


class Beliefs:
    """Which `RECORD` files are believed, and where it is noted that one was wrong.

    Parameters
    ----------
    folder : Path
        Where stat facts are kept between scans; the notes are in a folder of their own in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.join(folder, "disbelieved")
        self._began = now_ns()
        self._user = os.geteuid() if hasattr(os, "geteuid") else 0
        self._wrong: frozenset[str] = frozenset()
        with suppress(OSError):  # mostly there is none
            self._wrong = frozenset(os.listdir(self._folder))

    def voucher(self, record: str, facts: os.stat_result) -> Voucher | None:
        """What the `RECORD` at this path, with these stat facts, vouches for; None when it is not believed."""
        identity = f"{record}\0{facts.st_size}\0{facts.st_mtime_ns}\0{facts.st_ino}"
        name = digest_bytes(os.fsencode(identity))[:32]
        if name in self._wrong or facts.st_mtime_ns > self._began or not stat.S_ISREG(facts.st_mode):
            return None
        try:
            unpacked = os.stat(os.path.join(os.path.dirname(record), "WHEEL")).st_mtime_ns
        except OSError:
            return None
        written = min(facts.st_mtime_ns, unpacked + UNPACKING_NS)
        return Voucher(written, facts.st_ctime_ns, self._user, self.note(name))

    def note(self, name: str) -> str:
        """The path of the note with this file name."""
        return os.path.join(self._folder, name)

    def hold(self, name: str) -> bool:
        """Whether what was believed under the note with this name is believed still; "" stands for what was read."""
        return name not in self._wrong
