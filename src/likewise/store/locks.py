"""Advisory file locks that the kernel frees when their holder dies, however it dies.

`flock` on POSIX, `msvcrt` on Windows (which knows exclusive locks alone). Some network file systems have no locks at
all: there a lock is granted at once, and a file counts as held while it is younger than a day.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EOPNOTSUPP)}
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_BELIEVED = 24 * 3600.0  # seconds that a file counts as held where nobody can tell

# Never through a planted link. That programs we start don't inherit the descriptor, and with it the lock, is Python's
# own doing (PEP 446).
OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # Windows' locks are mandatory: lock a byte that nobody reads

    def _lock(fd: int, *, shared: bool, wait: bool) -> None:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, _FAR, os.SEEK_SET)
        try:
            while True:
                try:
                    return msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                except OSError as error:  # LK_LOCK gives up after ten seconds
                    if not wait or error.errno not in _BUSY:
                        raise
        finally:
            os.lseek(fd, position, os.SEEK_SET)

else:
    import fcntl

    def _lock(fd: int, *, shared: bool, wait: bool) -> None:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def hold(fd: int, *, shared: bool = False) -> None:
    """Wait for a lock on the open file `fd` and keep it until the file is closed or the process ends."""
    try:
        _lock(fd, shared=shared, wait=True)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def is_held(path: Path) -> bool:
    """Whether a living process holds `path` exclusively (False when the file is gone)."""
    try:
        fd = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at the same time don't take each other for the holder.
        _lock(fd, shared=True, wait=False)
    except OSError as error:
        if error.errno in _BUSY:
            return True
        if error.errno in _UNSUPPORTED:
            return time.time() - os.fstat(fd).st_mtime < _BELIEVED
        raise
    else:
        return False
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool) -> Iterator[None]:
    """Hold the lock file `path` (made when missing) for the length of a ``with`` block."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | OPEN_FLAGS, 0o600)
    try:
        hold(fd, shared=shared)
        yield
    finally:
        os.close(fd)  # closing frees the lock; an explicit unlock would also free it for a forked parent
