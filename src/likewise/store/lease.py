"""A lease: content that a living process uses. It ends with the process, even with ``kill -9``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from likewise.model.digest import Digest
from likewise.model.keys import LEASES, loose_key, loose_kit_key
from likewise.store.folder import Folder
from likewise.store.values import check_key


class Lease:
    """The keys that one process keeps from being removed; made by `LocalStore.lease`, in force at once.

    A context manager. Whoever uses it without ``with`` has to keep a reference to it: a lease that is garbage
    collected has ended.
    """

    def __init__(self, folder: Folder, keys: Iterable[str], on_release: Callable[[Iterable[str]], None]) -> None:
        self._folder = folder
        self._on_release = on_release
        self._keys: set[str] = set()
        self._file = folder.temporary(LEASES)
        try:
            self.add(keys)
        except BaseException:
            self.release()
            raise

    @property
    def keys(self) -> frozenset[str]:
        """What is leased."""
        return frozenset(self._keys)

    def add(self, keys: Iterable[str]) -> None:
        """Lease these too.

        Raises
        ------
        StoreError
            When the lease can't be written: a full disk, …
        """
        new = sorted({check_key(key) for key in keys} - self._keys)
        if not new:
            return
        with self._folder.gate(shared=True):
            self._file.write("".join(f"{key}\n" for key in new).encode())
        self._keys.update(new)

    def release(self) -> None:
        """End the lease; its content counts as used now. Releasing twice is harmless."""
        if self._file.closed:
            return
        self._on_release(self._keys)  # while still in force: what was in use an instant ago has not expired
        self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(str(self._file.name))

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


def read_leases(files: Iterable[Path]) -> set[str]:
    """The keys in all of `files`, and under which the same content lies unpacked."""
    keys: set[str] = set()
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            keys.update(path.read_text("utf-8").split())
    return keys | {unpacked for key in keys if (unpacked := unpacked_key(key))}


def unpacked_key(key: str) -> str:
    """Where what an archive with this key holds lies unpacked; "" for what is no archive."""
    kind, _, name = key.partition("/")
    digest = Digest(name.rpartition("/")[2])
    return loose_key(digest) if kind == "layers" else loose_kit_key(digest) if kind == "kits" else ""
