"""The node's shelf of unpacked layers: what is there is sound, and what is missing is fetched.

What a store on this machine has unpacked is used where it lies. Of such a layer the cache keeps the listing, and the
scripts, which a prefix has in another form, so that it can be verified when the store has nothing of it any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial

from likewise.errors import NodeError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import FileEntry
from likewise.node.cache import NodeCache
from likewise.node.disk import CREATE, READ, Tree, disk_error, link_or_copy, remove_tree, write_all
from likewise.node.sources import DirectoryStore, Source, UnpackedKit
from likewise.node.unpack import DamagedCopy, UnreadableCopy, adopt, read_listing, unpack


class LayerShelf:
    """Layers of a cache whose lock is held.

    Parameters
    ----------
    cache : NodeCache
    sources : sequence of Source
        Asked in this order.
    kit : UnpackedKit, optional
        Asked before them.

    Attributes
    ----------
    urgent : bool
        Whether somebody waits for what is asked for, so that a client who is about to make it should hurry.
    """

    def __init__(self, cache: NodeCache, sources: Sequence[Source], kit: UnpackedKit | None = None) -> None:
        self._cache = cache
        self._sources = sources
        self._kit = kit
        self.urgent = True
        self._stores = [source for source in sources if isinstance(source, DirectoryStore)]
        self._loose: dict[Digest, str] = {}
        self._refused: set[Digest] = set()

    def has(self, digest: Digest) -> bool:
        """Whether the layer is there, in the kit, or unpacked in a store, and costs no space."""
        return (
            os.path.exists(self._cache.listing(digest))
            or bool(self._kit and self._kit.listing(digest))
            or self.has_loose(digest)
        )

    def awaited(self) -> frozenset[str]:
        """Digests of layers that a client on this machine is still to make."""
        promised = {Digest(each): store for store in self._stores for each in store.promised()}
        return frozenset(each for each, store in promised.items() if not (store.has(each) or self.has(each)))

    def folder(self, digest: Digest) -> str:
        """Where the files of a layer lie that this shelf has got."""
        return self._loose.get(digest) or self._cache.layer(digest)

    def has_loose(self, digest: Digest) -> bool:
        """Whether a store on this machine has the layer unpacked."""
        return digest not in self._refused and any(store.has_loose(digest) for store in self._stores)

    def get(self, digest: Digest, name: str) -> tuple[FileEntry, ...]:
        """The layer's files; it is fetched when it is not there.

        Raises
        ------
        NodeError
            When no source has a sound copy, or the disk can't take it.
        """
        try:
            return self._there(digest, name) or self._take_loose(digest, name) or self._fetch(digest, name)
        except OSError as error:
            raise disk_error(error, f"{name}, in {self._cache.root}") from error

    def forget(self, digest: Digest) -> None:
        """The layer's files are not all there any more: fetch it when it is asked for again."""
        if self._loose.pop(digest, None):
            self._refused.add(digest)
            for store in self._stores:
                store.reject_loose(digest)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._cache.listing(digest))

    def reader(self, digest: Digest, kept: Collection[str] = ()) -> Callable[[str, int], bytes]:
        """Reads the first bytes (all of them when the number is negative) of a file of the layer.

        Those of the layer paths `kept` are kept where verifying finds them, if they lie in a store.
        """

        def read(path: str, size: int) -> bytes:
            with Tree(self.folder(digest), make=False) as tree:
                folder, name = tree.enter(path)
                if digest in self._loose and path in kept:
                    self._keep(digest, path, folder, name)
                with open(os.open(name, READ, dir_fd=folder), "rb") as file:
                    return file.read(size)

        return read

    def _keep(self, digest: Digest, path: str, folder: int, name: str) -> None:
        """Keep a file of a loose layer that another one may be made from: verifying makes that anew."""
        root = self._cache.linked(digest)
        os.makedirs(root, 0o755, exist_ok=True)
        with Tree(root) as tree:
            into, new = tree.enter(path)
            with contextlib.suppress(FileExistsError):
                link_or_copy(folder, name, into, new, executable=False)

    def _take_loose(self, digest: Digest, name: str) -> tuple[FileEntry, ...] | None:
        """The files of a layer that lies unpacked in a store, and is used there; None when there is none."""
        for store in self._stores if digest not in self._refused else ():
            found = store.loose(digest)
            if found is not None:
                entries = read_listing(found.listing, name=name)
                self._keep_listing(digest, found.listing)
                self._loose[digest] = found.folder
                return entries
        return None

    def _keep_listing(self, digest: Digest, listing: bytes) -> None:
        path = f"{self._cache.linked(digest)}.listing"
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_size == len(listing):
                os.utime(path)  # its last use
                return
        made = f"{self._cache.place('tmp')}/listing.{digest[:16]}.{os.getpid()}"
        fd = os.open(made, CREATE, 0o444)
        try:
            write_all(fd, listing)
        finally:
            os.close(fd)
        os.rename(made, path)

    def _there(self, digest: Digest, name: str) -> tuple[FileEntry, ...] | None:
        path = self._cache.listing(digest)
        try:
            with open(path, "rb") as file:
                listing = file.read()
        except FileNotFoundError:
            return None
        if digest_bytes(listing) != digest or not os.path.isdir(self._cache.layer(digest)):
            os.unlink(path)  # a layer without its listing is not there
            return None
        os.utime(path)  # its last use
        self._loose.pop(digest, None)
        return read_listing(listing, name=name)

    def _fetch(self, digest: Digest, name: str) -> tuple[FileEntry, ...]:
        problems: list[str] = []
        adopted = self._adopt(digest, name, problems)
        if adopted is not None:
            return adopted
        for source in self._sources:
            again = True
            while again:
                entries, again = self._from(source, digest, name, problems)
                if entries is not None:
                    return entries
        raise NodeError(
            "No source has a sound copy of the layer" + "".join(f"; {p}" for p in problems).rstrip(".") + ".",
            where=name,
            todo="Start the cluster again: what was damaged is removed, and the client makes it anew.",
            details={"layer": name, "digest": digest, "problems": problems},
        )

    def _from(
        self, source: Source, digest: Digest, name: str, problems: list[str]
    ) -> tuple[tuple[FileEntry, ...] | None, bool]:
        """The layer's files from this source, and without them whether it may have another copy."""
        if isinstance(source, DirectoryStore):
            source.wait(digest, urgent=self.urgent)
            entries = self._take_loose(digest, name)
            if entries is not None:
                return entries, False
        try:
            stream = source.open(digest)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            problems.append(f"{source}: {'it is not there' if missing else error}")
            return None, False
        with stream:
            try:
                entries = self._publish(digest, partial(unpack, stream, digest, name=name))
            except DamagedCopy as error:
                problems.append(f"{source}: {error.what}")
                return None, source.reject(digest)
            except UnreadableCopy as error:
                problems.append(f"{source}: {error.what}")
                return None, False
        source.accept(digest)
        return entries, False

    def _adopt(self, digest: Digest, name: str, problems: list[str]) -> tuple[FileEntry, ...] | None:
        kit = self._kit
        listing = kit.listing(digest) if kit else None
        if kit is None or listing is None:
            return None
        try:
            return self._publish(digest, partial(adopt, kit.tree, listing, digest, name=name))
        except DamagedCopy as error:
            problems.append(f"the kit: {error.what}")
            return None

    def _publish(
        self, digest: Digest, fill: Callable[[str], tuple[bytes, tuple[FileEntry, ...]]]
    ) -> tuple[FileEntry, ...]:
        """Fill a directory and rename it to the layer's place; the listing follows and makes it count."""
        into = f"{self._cache.place('tmp')}/layer.{digest[:16]}.{os.getpid()}"
        remove_tree(into)
        os.mkdir(into, 0o755)
        try:
            listing, entries = fill(into)
            old = self._cache.layer(digest)
            if os.path.lexists(old):  # from a process that was killed before it wrote the listing
                os.rename(old, f"{into}.old")
                remove_tree(f"{into}.old")
            fd = os.open(f"{into}.listing", CREATE, 0o444)
            try:
                write_all(fd, listing)
            finally:
                os.close(fd)
            try:
                os.rename(into, old)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                remove_tree(into)  # somebody was quicker: the cache's lock was removed with the cache, say
            os.rename(f"{into}.listing", self._cache.listing(digest))
        except BaseException:
            remove_tree(into)
            raise
        return entries
