"""Locks where `flock` is missing: on Windows, and on file systems that have none."""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from likewise.store import locks
from likewise.store.local import LocalStore


class FakeMsvcrt(types.ModuleType):
    """msvcrt.locking as Microsoft documents it: exclusive, from the current position, refused or tried ten times."""

    LK_LOCK, LK_NBLCK = 1, 2

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.taken: dict[tuple[int, int], int] = {}  # (inode, position) -> descriptor
        self.on_timeout: Any = lambda: None

    def locking(self, fd: int, mode: int, nbytes: int) -> None:
        key = (os.fstat(fd).st_ino, os.lseek(fd, 0, os.SEEK_CUR))
        assert nbytes == 1
        holder = self.taken.get(key)
        if holder is not None and holder != fd and self._open(holder, key[0]):
            if mode == self.LK_LOCK:
                self.on_timeout()
                raise OSError(errno.EDEADLK, "Resource deadlock avoided")
            raise PermissionError(errno.EACCES, "Permission denied")
        self.taken[key] = fd

    @staticmethod
    def _open(fd: int, inode: int) -> bool:
        try:
            return os.fstat(fd).st_ino == inode
        except OSError:
            return False


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as Windows would load it."""
    fake = FakeMsvcrt()
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(sys, "platform", "win32")
    assert locks.__file__
    spec = importlib.util.spec_from_file_location("locks_on_windows", locks.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return types.SimpleNamespace(locks=module, fake=fake)


def test_windows_lock(windows: Any, tmp_path: Path) -> None:
    """On Windows a held file is seen as held until it is closed, and locking does not move the writer's position."""
    path = tmp_path / "lease"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"abc")
    windows.locks.hold(fd)
    os.write(fd, b"def")
    assert windows.locks.is_held(path)
    os.close(fd)
    assert path.read_bytes() == b"abcdef"
    assert not windows.locks.is_held(path)
    assert not windows.locks.is_held(tmp_path / "missing")


def test_windows_waits_longer_than_msvcrt(windows: Any, tmp_path: Path) -> None:
    """msvcrt gives up after ten seconds; the gate is waited for until its holder closes it."""
    path = tmp_path / "lock"
    holder = os.open(path, os.O_RDWR | os.O_CREAT)
    windows.locks.hold(holder)
    timeouts = []

    def on_timeout() -> None:
        timeouts.append(1)
        if len(timeouts) == 3:
            os.close(holder)

    windows.fake.on_timeout = on_timeout
    with windows.locks.locked(path, shared=True):
        assert len(timeouts) == 3


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, such as Lustre mounted without them."""

    def refuse(fd: int, *, shared: bool, wait: bool) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks, "_lock", refuse)


@pytest.mark.usefixtures("lockless")
def test_store_without_locks(tmp_path: Path) -> None:
    """Where nobody can tell who holds what, a store works, and a lease or temporary file is believed for a day."""
    store = LocalStore(tmp_path / "store")
    store.put_bytes("layers/aa/a", b"x")
    abandoned = store.root / "tmp" / "1-abandoned"
    abandoned.write_bytes(b"half")
    lease = store.lease(["layers/aa/a"])
    report = store.prune(everything=True)
    assert (report.removed, report.kept_leased, report.swept) == (0, 1, 0)
    os.utime(abandoned, (0, 0))
    lease.release()
    report = store.prune(everything=True)
    assert (report.removed, report.swept) == (1, 1)


def test_other_failures_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that fails for another reason than missing support is an error, not a lock that seems granted."""

    def fail(fd: int, *, shared: bool, wait: bool) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks, "_lock", fail)
    path = tmp_path / "lock"
    with pytest.raises(OSError, match="Input/output"), locks.locked(path, shared=True):
        pass
    with pytest.raises(OSError, match="Input/output"):
        locks.is_held(path)
