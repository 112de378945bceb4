"""The archives of layers that an agent has, and those that it is receiving.

    <cache>/archives/<digest>.<sha256>         whole; the sha256 is that of the archive itself
    <cache>/archives/<digest>.<sha256>.part    received so far: the first bytes, without a gap

One layer can have several archives (they were packed by different machines), and only bytes of one can be joined: a
transfer that was interrupted goes on, from whatever source, where its archive has the same sha256. All functions here
block and are called from threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
from collections.abc import Callable, Iterable
from typing import BinaryIO

import msgspec

from likewise.model.digest import Digest, digest_bytes, is_digest
from likewise.model.keys import layer_key, manifest_key
from likewise.model.layer import LayerSource
from likewise.node.cache import NodeCache
from likewise.node.disk import READ, check_space, write_all
from likewise.node.unpack import check_archive, file_digest
from likewise.transport.repack import pack_source, pack_tree

BLOCK = 1 << 20


class Archive(msgspec.Struct, frozen=True):
    """A whole archive. `sha256` is that of its bytes, `size` their number."""

    digest: Digest
    sha256: Digest
    size: int
    path: str


class Part:
    """An archive that is being received. The file is locked: of several agents in one cache one receives it."""

    def __init__(self, path: str, whole: Archive) -> None:
        self.whole = whole
        self.archive = msgspec.structs.replace(whole, path=path)
        """The archive as it lies there until `publish`."""
        self.size = 0
        self._hash = hashlib.sha256()
        # a file object, since it closes itself when whoever asked for it is cancelled before getting it
        self._file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            while block := self._file.read(BLOCK):
                self._hash.update(block)
                self.size += len(block)
            check_space(os.path.dirname(path), size=max(0, whole.size - self.size), files=0)
        except BaseException:
            self._file.close()
            raise

    def append(self, data: bytes) -> None:
        """The next bytes of the archive."""
        write_all(self._file.fileno(), data)
        self._hash.update(data)
        self.size += len(data)

    def is_announced(self) -> bool:
        """Whether it is, byte for byte, the archive that was announced."""
        return self.size == self.whole.size and self._hash.hexdigest() == self.whole.sha256

    def publish(self) -> Archive:
        """Give the archive its name: it is checked, and others may have it."""
        os.rename(self.archive.path, self.whole.path)
        return self.whole

    def discard(self) -> None:
        """Forget what was received."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.archive.path)

    def close(self) -> None:
        """Keep what was received for another time."""
        self._file.close()


class Archives:
    """The archives beneath a node's cache and, for a hub, in the client's store.

    Parameters
    ----------
    cache : NodeCache
    store : str, optional
        A store's directory that can be read here.
    """

    def __init__(self, cache: NodeCache, store: str = "") -> None:
        self._cache = cache
        self._store = store
        self.folder = cache.place("archives")
        self._stored: dict[Digest, tuple[tuple[int, int, int], Archive]] = {}

    def find(self, digest: Digest) -> Archive | None:
        """An archive of the layer that lies here."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                layer, _, sha256 = entry.name.partition(".")
                if layer == digest and is_digest(sha256):
                    with contextlib.suppress(OSError):
                        return Archive(digest, Digest(sha256), entry.stat().st_size, entry.path)
        return self._in_store(digest) if self._store else None

    def stored(self, digests: Iterable[Digest]) -> list[Digest]:
        """Those that the store has."""
        return [d for d in digests if self._store and os.path.exists(f"{self._store}/{layer_key(d)}")]

    def stored_manifest(self, manifest_id: Digest) -> bytes | None:
        """The manifest in the store; its digest was checked."""
        if self._store and is_digest(manifest_id):
            with contextlib.suppress(OSError), open(f"{self._store}/{manifest_key(manifest_id)}", "rb") as file:
                data = file.read()
                if digest_bytes(data) == manifest_id:
                    return data
        return None

    def unpacked(self) -> list[Digest]:
        """The layers that lie unpacked in the cache: every byte of them was checked."""
        names = os.listdir(self._cache.place("layers"))
        return [Digest(name[:64]) for name in names if name.endswith(".listing") and is_digest(name[:64])]

    def whole(self) -> list[Digest]:
        """The layers of which archives lie here."""
        return [Digest(n[:64]) for n in os.listdir(self.folder) if is_digest(n[:64]) and is_digest(n[65:])]

    def in_kits(self) -> list[Digest]:
        """The layers of the kits that bootstrap.sh unpacked; materialising takes them from there."""
        kits = self._cache.place("kits")
        found: list[Digest] = []
        for kit in os.listdir(kits):
            with contextlib.suppress(OSError):
                found += [Digest(name) for name in os.listdir(f"{kits}/{kit}/listings") if is_digest(name)]
        return found

    def read(self, archive: Archive, offset: int, size: int) -> bytes:
        """Some bytes of an archive."""
        fd = os.open(archive.path, READ)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def receive(self, digest: Digest, sha256: Digest, size: int) -> Part:
        """Begin, or go on, to receive an archive.

        Raises
        ------
        BlockingIOError
            When another agent is at it.
        NodeError, OSError
            When the disk can't take it.
        """
        path = f"{self.folder}/{digest}.{sha256}"
        return Part(f"{path}.part", Archive(digest, sha256, size, path))

    def check(self, archive: Archive) -> None:
        """Read a whole archive and compare every byte with what the layer's digest says.

        Raises
        ------
        DamagedCopy, UnreadableCopy, OSError
        """
        with open(archive.path, "rb", buffering=0) as file:
            check_archive(file, archive.digest)

    def remove(self, digest: Digest) -> None:
        """Remove every archive of the layer, and what was received of one; from the store too."""
        for name in os.listdir(self.folder):
            if name.startswith(digest):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.folder}/{name}")
        self._stored.pop(digest, None)
        if self._store:
            with contextlib.suppress(OSError):
                os.unlink(f"{self._store}/{layer_key(digest)}")

    def pack(self, digest: Digest) -> Archive | None:
        """Make an archive of the unpacked layer, checking every file on the way; None when it is not there.

        Raises
        ------
        DamagedCopy
            When a file is missing or not what the listing says.
        OSError
            When the disk can't take it.
        """
        try:
            with open(self._cache.listing(digest), "rb") as file:
                listing = file.read()
            return self.pack_from(self._cache.layer(digest), listing, digest)
        except FileNotFoundError:  # expired, while it was read perhaps
            return None

    def pack_from(self, folder: str, listing: bytes, digest: Digest) -> Archive:
        """Make an archive of the layer whose files lie in `folder`, checking every file on the way.

        Raises
        ------
        DamagedCopy
            When a file is missing or not what the listing says, or the listing is another layer's.
        OSError
            When the disk can't take it.
        """
        return self._pack(digest, lambda out: pack_tree(folder, listing, digest, out))

    def pack_source(self, source: LayerSource) -> Archive:
        """Make an archive of a layer whose files lie where `source` says, checking every file on the way.

        Raises
        ------
        LayerError
            When a file is missing or not what the layer says.
        OSError
            When the disk can't take it.
        """
        return self._pack(source.digest, lambda out: pack_source(source, out))

    def _pack(self, digest: Digest, write: Callable[[BinaryIO], tuple[Digest, int]]) -> Archive:
        """The archive of a layer that `write` writes to a file; it returns sha256 and size."""
        temporary = f"{self.folder}/{digest}.{os.getpid()}.pack"
        try:
            with open(temporary, "wb", buffering=0) as out:
                sha256, size = write(out)
            archive = Archive(digest, sha256, size, f"{self.folder}/{digest}.{sha256}")
            os.rename(temporary, archive.path)
            return archive
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def _in_store(self, digest: Digest) -> Archive | None:
        """The store's archive. Its sha256 is computed when it is asked for first, and after a change."""
        path = f"{self._store}/{layer_key(digest)}"
        try:
            with open(path, "rb", buffering=0) as file:
                stat = os.fstat(file.fileno())
                facts = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
                known = self._stored.get(digest)
                if known is None or known[0] != facts:
                    known = facts, Archive(digest, Digest(file_digest(file.fileno())), stat.st_size, path)
                    self._stored[digest] = known
                return known[1]
        except FileNotFoundError:
            return None
