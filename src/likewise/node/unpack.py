"""Archive → directory. Nothing that an archive says is believed before its digest was checked.

An archive is a zstd stream of: the length of the listing (8 bytes, little-endian), the listing, and the contents of
the listed files, links left out, in the order of the listing. The digest of the listing is the layer's digest, and the
listing holds each file's digest; so the whole is checked by checking these, and memory stays at one block.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import BinaryIO

from likewise.errors import LayerError, NodeError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import FileEntry, climbs, decode_listing
from likewise.node.blocks import BLOCK, ahead, decompressed
from likewise.node.disk import CREATE, READ, Tree, create, link_or_copy, mode, write_all

SMALL = BLOCK
"""Bytes; a file that is no larger is made by one write and hashed by one call."""

LARGE = 16 << 20
"""Bytes; what is larger is decompressed by one thread while another hashes and writes."""

LISTING_LIMIT = 256 << 20
"""Bytes; a listing has about 150 per file, so this is far beyond what a layer can be."""


class DamagedCopy(NodeError):
    """This copy of a layer is not what its digest says. Another source may have a sound one."""


class UnreadableCopy(NodeError):
    """This copy could not be read to its end; it may still be sound."""


def damaged(reason: str, name: str, digest: str) -> DamagedCopy:
    """The refusal of a copy of the layer `name`; `reason` completes "The copy …"."""
    return DamagedCopy(
        f"The copy of the layer {reason}.",
        where=name,
        todo="Start the cluster again; the damaged copy is removed and made anew.",
        details={"layer": name, "digest": digest},
    )


class Unpacker:
    """Reads one archive, strictly in order.

    Parameters
    ----------
    stream : BinaryIO
        The archive.
    digest : Digest
        The layer that it must be.
    name : str
        How the layer is called in errors.
    """

    def __init__(self, stream: BinaryIO, digest: Digest, name: str) -> None:
        self._digest = digest
        self._name = name
        self._blocks = decompressed(stream, self._damaged)
        self._block = memoryview(b"")

    def listing(self) -> bytes:
        """The listing, which is what the digest says.

        Raises
        ------
        DamagedCopy
        """
        length = int.from_bytes(self._exactly(8), "little")
        if length > LISTING_LIMIT:
            raise self._damaged("has no listing")
        listing = self._exactly(length)
        if digest_bytes(listing) != self._digest:
            raise self._damaged("has another digest")
        return listing

    def files(self, entries: Sequence[FileEntry], into: str) -> None:
        """Make the files of `entries` (the decoded listing) in the directory `into`.

        Raises
        ------
        DamagedCopy
            When a file's content is not what the listing says, or something follows the last one.
        OSError
            When a file can't be written.
        """
        with contextlib.ExitStack() as stack:
            if sum(entry.size for entry in entries) > LARGE and len(os.sched_getaffinity(0)) > 1:
                self._blocks = stack.enter_context(ahead(self._blocks))
            self._files(entries, stack.enter_context(Tree(into)))
            if self._next():
                raise self._damaged("is longer than it should be")

    def _files(self, entries: Sequence[FileEntry], tree: Tree) -> None:
        for entry in entries:
            if entry.link:
                tree.symlink(entry.path, entry.link)
                continue
            folder, name = tree.enter(entry.path)
            if entry.size <= SMALL:
                content = self._whole(entry)
                create(folder, name, content, executable=entry.executable)
                if sha256(content).hexdigest() != entry.sha256:
                    raise self._damaged(f"has other content in {entry.path}")
                continue
            fd = os.open(name, CREATE, mode(entry.executable), dir_fd=folder)
            try:
                self._content(entry, fd)
            finally:
                os.close(fd)

    def check(self, entries: Sequence[FileEntry]) -> None:
        """Read and check everything as `files` does, and keep nothing.

        Raises
        ------
        DamagedCopy
        """
        with open(os.devnull, "wb", buffering=0) as nothing:
            for entry in entries:
                if not entry.link:
                    self._content(entry, nothing.fileno())
        if self._next():
            raise self._damaged("is longer than it should be")

    def _whole(self, entry: FileEntry) -> memoryview | bytes:
        """All that should be the content of a small file: a view of the block, where that has all of it."""
        if entry.size > len(self._block):
            return self._exactly(entry.size, f"ends within {entry.path}")
        content, self._block = self._block[: entry.size], self._block[entry.size :]
        return content

    def _content(self, entry: FileEntry, fd: int) -> None:
        piece = self._block[: entry.size]
        missing = entry.size - len(piece)
        self._block = self._block[len(piece) :]
        hashed = sha256(piece)
        write_all(fd, piece)
        while missing:
            if not self._block and not self._next():
                raise self._damaged(f"ends within {entry.path}")
            piece = self._block[:missing]
            self._block = self._block[len(piece) :]
            missing -= len(piece)
            hashed.update(piece)
            write_all(fd, piece)
        if hashed.hexdigest() != entry.sha256:
            raise self._damaged(f"has other content in {entry.path}")

    def _exactly(self, size: int, too_short: str = "ends within its listing") -> bytes:
        pieces = bytearray()
        while len(pieces) < size:
            if not self._block and not self._next():
                raise self._damaged(too_short)
            wanted = size - len(pieces)
            pieces += self._block[:wanted]
            self._block = self._block[wanted:]
        return bytes(pieces)

    def _next(self) -> bool:
        """Replace the used-up block by the next; whether there is one. Anything after the zstd frame is refused."""
        if not self._block:
            try:
                self._block = next(self._blocks, self._block)
            except OSError as error:
                raise UnreadableCopy(f"The copy of the layer can't be read ({error}).", where=self._name) from error
        return bool(self._block)

    def _damaged(self, reason: str) -> DamagedCopy:
        return damaged(reason, self._name, self._digest)


def check_archive(file: BinaryIO, digest: Digest) -> None:
    """Read a whole archive and compare every byte with what the layer's digest says.

    Raises
    ------
    DamagedCopy, UnreadableCopy
    """
    unpacker = Unpacker(file, digest, digest[:12])
    unpacker.check(read_listing(unpacker.listing(), name=digest[:12]))


def unpack(stream: BinaryIO, digest: Digest, into: str, *, name: str) -> tuple[bytes, tuple[FileEntry, ...]]:
    """Unpack an archive into the directory `into`, which must be empty and visible to nobody yet.

    Parameters
    ----------
    stream : BinaryIO
    digest : Digest
        The layer's digest; the listing is compared with it before anything is written.
    into : str
    name : str
        How the layer is called in errors.

    Returns
    -------
    listing : bytes
    entries : tuple of FileEntry
        The listing, decoded.

    Raises
    ------
    DamagedCopy
        When the archive is truncated, too long, corrupt, or another layer's.
    UnreadableCopy
        When it can't be read.
    NodeError
        When it is what its digest says, and names paths that may not be shipped.
    OSError
        When the disk can't take it.
    """
    unpacker = Unpacker(stream, digest, name)
    listing = unpacker.listing()
    entries = read_listing(listing, name=name)
    unpacker.files(entries, into)
    return listing, entries


def read_listing(listing: bytes, *, name: str) -> tuple[FileEntry, ...]:
    """Decode a listing whose digest was checked.

    Raises
    ------
    NodeError
        When it names paths that may not be shipped.
    """
    try:
        entries = decode_listing(listing, where=name)
    except LayerError as error:
        raise NodeError(error.what, where=name, todo=error.todo, details=error.details) from error
    links = {entry.path: entry.link for entry in entries if entry.link}
    for path in links:
        if _leaves(path, links):
            raise NodeError(f"The link {path} leads out of the layer over other links.", where=name)
    return entries


def _leaves(path: str, links: Mapping[str, str]) -> bool:
    """Whether a link leads out of its scheme directory once all links on its way are followed.

    Each link by itself stays inside as it is written (the listing's own check); but ``d/..`` is somewhere else when
    ``d`` is a link. One that leads from there to another place in the prefix, as that check allows, may do so; what
    goes up once more from where it leads may not, since other layers say what lies there.
    """
    scheme, *here = path.split("/")
    pending = here[-1:]
    here.pop()
    followed = 0
    while pending:
        part = pending.pop(0)
        if part == "..":
            if not here:
                return True
            here.pop()
        elif part not in ("", "."):
            target = links.get("/".join((scheme, *here, part)))
            if target is None:
                here.append(part)
            elif climbs(target) > len(here):
                return ".." in pending
            else:
                pending = target.split("/") + pending
                followed += 1
                if followed > 40:  # a loop leads nowhere (Linux gives up after 40, too)
                    return False
    return False


def adopt(tree: str, listing: bytes, digest: Digest, into: str, *, name: str) -> tuple[bytes, tuple[FileEntry, ...]]:
    """Like `unpack`, from files that lie unpacked in the directory `tree`: each is checked, then hard-linked.

    Raises
    ------
    DamagedCopy
        When a file is missing or not what the listing says.
    NodeError, OSError
        As in `unpack`.
    """
    if digest_bytes(listing) != digest:
        raise damaged("has another digest", name, digest)
    entries = read_listing(listing, name=name)
    with Tree(tree, make=False) as source, Tree(into) as target:
        for entry in entries:
            if entry.link:
                target.symlink(entry.path, entry.link)
                continue
            try:
                folder, file = source.enter(entry.path)
                fd = os.open(file, READ, dir_fd=folder)
            except OSError as error:
                raise damaged(f"lacks {entry.path} ({error})", name, digest) from error
            try:
                if file_digest(fd) != entry.sha256:
                    raise damaged(f"has other content in {entry.path}", name, digest)
                if stat.S_IMODE(os.fstat(fd).st_mode) != mode(entry.executable):
                    os.fchmod(fd, mode(entry.executable))
            finally:
                os.close(fd)
            into_folder, into_file = target.enter(entry.path)
            link_or_copy(folder, file, into_folder, into_file, executable=entry.executable)
    return listing, entries


def file_digest(fd: int) -> str:
    """sha256 of what can be read from `fd`, in hexadecimal digits."""
    hashed = sha256()
    while block := os.read(fd, BLOCK):
        hashed.update(block)
    return hashed.hexdigest()
