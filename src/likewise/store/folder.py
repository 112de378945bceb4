"""The directory beneath a store: the user's own, with a gate, and temporary files that a killed process can't leave."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from likewise.errors import StoreError
from likewise.model.keys import LEASES
from likewise.store.failures import foreign, store_error
from likewise.store.locks import OPEN_FLAGS, hold, is_held, locked

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

TEMPORARY = "tmp"
_LOCK = "lock"  # in a temporary folder: folders themselves can't be locked on every file system


class OutFile(io.FileIO):
    """A file being written, whose failures are `StoreError`: the writer's other `OSError` stay distinguishable."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what fits; the number of bytes written."""
        try:
            return super().write(data)
        except OSError as error:
            raise store_error(error, Path(str(self.name))) from error


class Folder:
    """`root` with its gate (the file ``lock``), ``tmp/`` and ``leases/``; made when missing, mode 0700.

    Raises
    ------
    StoreError
        When it can't be made, is not a directory, or belongs to somebody else.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._make()

    def _make(self) -> None:
        try:
            self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.root.mkdir(mode=0o700)
            check_own(self.root)
            for name in (TEMPORARY, LEASES):
                with contextlib.suppress(FileExistsError):
                    (self.root / name).mkdir(mode=0o700)
        except OSError as error:
            raise store_error(error, self.root) from error

    @contextlib.contextmanager
    def gate(self, *, shared: bool) -> Iterator[None]:
        """Hold the gate; failures of what is done behind it become `StoreError`."""
        path = self.root / "lock"
        try:
            if not all((self.root / name).is_dir() for name in (TEMPORARY, LEASES)):  # removed while we live
                self._make()
            with locked(path, shared=shared):
                yield
        except OSError as error:
            raise store_error(error, Path(error.filename) if isinstance(error.filename, str) else path) from error

    def temporary(self, kind: str) -> OutFile:
        """A new, empty, locked file in ``tmp/`` or ``leases/``; `name` is its path."""
        path = self.root / kind / self.unique().name
        with self.gate(shared=True):  # between being made and being locked it would look abandoned
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FLAGS, 0o600)
            try:
                hold(fd)
                return OutFile(path, "wb", opener=lambda *_: fd)
            except BaseException:
                os.close(fd)
                os.unlink(path)
                raise

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new folder in ``tmp/`` for the length of the block. All that is in it goes then, or with this process."""
        path = self.unique()
        with self.gate(shared=True):
            path.mkdir(mode=0o700)
            lock = os.open(path / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FLAGS, 0o600)
            hold(lock)
        try:
            yield path
        finally:
            try:
                with contextlib.suppress(OSError):
                    remove(path)
            finally:
                os.close(lock)

    def unique(self) -> Path:
        """A name in ``tmp/`` that nobody else will use. What bears it and is not locked will be swept."""
        return self.root / TEMPORARY / f"{os.getpid()}-{secrets.token_hex(8)}"

    def held(self, kind: str) -> list[Path]:
        """The files in ``tmp/`` or ``leases/`` whose processes live."""
        try:
            return [path for path in sorted((self.root / kind).iterdir()) if _is_held(path)]
        except OSError as error:
            raise store_error(error, self.root / kind) from error

    def abandoned(self, kind: str) -> list[Path]:
        """What is there and whose processes have died. To be called behind the exclusive gate.

        Nobody will use these names any more, so they can be removed afterwards, which may take long.
        """
        return [path for path in (self.root / kind).iterdir() if not _is_held(path)]


def _is_held(path: Path) -> bool:
    return is_held(path / _LOCK if path.is_dir() else path)


def remove(path: Path) -> int:
    """Remove a file, or a folder with all that is in it; bytes of the files that had no other name.

    It may have gone already: two may remove the same.
    """
    freed = 0
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            with os.scandir(path) as entries:
                freed = sum(remove(Path(entry.path)) for entry in entries)
            path.rmdir()
        else:
            path.unlink()
            freed = found.st_size if found.st_nlink == 1 else 0
    return freed


def check_own(root: Path) -> None:
    """Refuse a directory that somebody else made, or may write to.

    Raises
    ------
    StoreError
        With the reason. A symbolic link is accepted when the user made it and it leads to the user's own directory.
    """
    link, real = root.lstat(), root.stat()
    if not stat.S_ISDIR(real.st_mode):
        raise StoreError(
            "The store's place is taken by something that is not a directory.",
            where=str(root),
            todo="Move it away, or put the cache elsewhere with LIKEWISE_CACHE.",
            details={"errno": "ENOTDIR"},
        )
    if not hasattr(os, "geteuid"):
        return
    for found in (link, real):
        if found.st_uid != os.geteuid():
            raise foreign(root, f"belongs to another user (uid {found.st_uid})")
    if stat.S_IMODE(real.st_mode) & 0o077:
        root.chmod(0o700)
