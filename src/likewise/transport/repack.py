"""An archive of a layer that lies unpacked, or was just made: the same format as the client writes, checked while it is
read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from likewise.layers.content import read_content
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerSource, encode_listing
from likewise.model.zstd import CompressionParameter, ZstdCompressor
from likewise.node.disk import READ, Tree, write_all
from likewise.node.unpack import damaged, read_listing

BLOCK = 1 << 20
_LEVEL = 1  # as the client packs: mostly the very same bytes come out


def pack_tree(folder: str, listing: bytes, digest: Digest, out: BinaryIO) -> tuple[Digest, int]:
    """Write the archive of the layer in `folder` to `out`.

    Parameters
    ----------
    folder : str
        Where the layer's files lie.
    listing : bytes
        The layer's listing.
    digest : Digest
        The layer's digest.
    out : binary file, unbuffered

    Returns
    -------
    sha256 : Digest
        Of the archive.
    size : int
        Bytes of the archive.

    Raises
    ------
    DamagedCopy
        When a file is missing or is not what the listing says.
    OSError
        When `out` can't be written.
    """
    return _write(_pieces(folder, listing, digest), out)


def pack_source(source: LayerSource, out: BinaryIO) -> tuple[Digest, int]:
    """Write the archive of a layer whose files lie where `source` says; see `pack_tree`.

    Raises
    ------
    LayerError
        When a file is missing or is not what its entry says.
    OSError
        When `out` can't be written.
    """
    return _write(_pieces_of(source), out)


def _write(pieces: Iterator[bytes], out: BinaryIO) -> tuple[Digest, int]:
    options: dict[int, int] = {CompressionParameter.compression_level: _LEVEL, CompressionParameter.checksum_flag: 0}
    compressor, hashed, size = ZstdCompressor(options=options), hashlib.sha256(), 0
    for block in _blocks(pieces):
        data = compressor.compress(block) if block else compressor.flush()
        write_all(out.fileno(), data)
        hashed.update(data)
        size += len(data)
    return Digest(hashed.hexdigest()), size


def _blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces joined to blocks of about a megabyte, and at the end an empty one."""
    pending = bytearray()
    for piece in pieces:
        pending += piece
        if len(pending) >= BLOCK:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)
    yield b""


def _pieces_of(source: LayerSource) -> Iterator[bytes]:
    listing = encode_listing([file.entry for file in source.files])
    yield len(listing).to_bytes(8, "little") + listing
    for file in source.files:
        if not file.entry.link:
            yield from read_content(file, source)


def _pieces(folder: str, listing: bytes, digest: Digest) -> Iterator[bytes]:
    name = digest[:12]
    if digest_bytes(listing) != digest:
        raise damaged("has another digest", name, digest)
    yield len(listing).to_bytes(8, "little") + listing
    with Tree(folder, make=False) as tree:
        for entry in read_listing(listing, name=name):
            if entry.link:
                continue
            try:
                parent, file = tree.enter(entry.path)
                fd = os.open(file, READ, dir_fd=parent)
            except OSError as error:
                raise damaged(f"lacks {entry.path} ({error})", name, digest) from error
            try:
                hashed, size = hashlib.sha256(), 0
                while (block := os.read(fd, BLOCK)) and size <= entry.size:
                    hashed.update(block)
                    size += len(block)
                    yield block
            finally:
                os.close(fd)
            if size != entry.size or hashed.hexdigest() != entry.sha256:
                raise damaged(f"has other content in {entry.path}", name, digest)
