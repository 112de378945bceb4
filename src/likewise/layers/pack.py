"""The archive of a layer: one zstd stream of the listing and then the files' contents, in the listing's order.

::

    8 bytes   length of the listing, little-endian
    listing   see model.layer; its sha256 is the layer's digest
    contents  of every file that is not a link, without anything between them

There is nothing in it that the listing does not account for, so whoever reads it can check every byte.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from likewise.errors import LayerError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.layer import LayerSource, SourceFile, encode_listing
from likewise.model.zstd import CompressionParameter, ZstdCompressor

CHUNK = 1 << 20
"""Files are read in pieces of this many bytes; small files are gathered until there are as many."""

Progress = Callable[[int], None]


def write_archive(
    source: LayerSource, out: BinaryIO, *, level: int = 3, threads: int = 0, progress: Progress | None = None
) -> None:
    """Write the archive of `source` to `out`, checking every file against its entry while it is read.

    Memory does not depend on the size of the layer. After an error what was written is worthless.

    Parameters
    ----------
    source : LayerSource
    out : binary file
    level : int, default 3
        zstd level, 1 (fast) to 22 (small).
    threads : int, default 0
        Further threads that compress; 0 compresses in the calling one. Archives then differ in their bytes, not in
        what they hold.
    progress : callable, optional
        Called with the number of content bytes just read.

    Raises
    ------
    LayerError
        When a file vanished or changed since it was listed, or when `source.digest` is not its listing's.
    OSError
        When `out` can't be written.
    """
    listing = encode_listing([file.entry for file in source.files])
    if digest_bytes(listing) != source.digest:
        raise LayerError("The layer's digest is not the one of its listing.", where=_where(source))
    compressor = ZstdCompressor(options={
        CompressionParameter.compression_level: level,
        CompressionParameter.nb_workers: threads,
        CompressionParameter.checksum_flag: 0,  # sha256 covers everything
    })  # fmt: skip
    pending = bytearray(len(listing).to_bytes(8, "little") + listing)
    for file in source.files:
        if file.entry.link:
            continue
        for chunk in _content(file, source):
            pending += chunk
            if progress:
                progress(len(chunk))
            if len(pending) >= CHUNK:
                out.write(compressor.compress(pending))
                pending.clear()
    out.write(compressor.compress(pending) + compressor.flush())


def _content(file: SourceFile, source: LayerSource) -> Iterator[bytes]:
    """The content of one file in pieces; an error after the last when it was not what its entry says."""
    digest, size = hashlib.sha256(), 0
    try:
        for chunk in [file.data] if file.data is not None else _read(file):
            size += len(chunk)
            if size > file.entry.size:
                break
            digest.update(chunk)
            yield chunk
    except OSError as error:
        raise _changed(file, source, error.strerror or str(error)) from error
    if size != file.entry.size:
        raise _changed(file, source, f"its size is no longer {file.entry.size} bytes")
    if Digest(digest.hexdigest()) != file.entry.sha256:
        raise _changed(file, source, "its content is another")


def _read(file: SourceFile) -> Iterator[bytes]:
    """The file's bytes; one call more than it takes to read all of them shows whether it has grown."""
    size = file.entry.size
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if file.offset is not None:
            yield os.pread(descriptor, size, file.offset)
            return
        while chunk := os.read(descriptor, min(CHUNK, size + 1)):
            yield chunk
            size -= len(chunk)
            if size < 0:
                return
    finally:
        os.close(descriptor)


def _changed(file: SourceFile, source: LayerSource, reason: str) -> LayerError:
    return LayerError(
        f"{file.path or file.entry.path} changed while it was being packed ({reason}).",
        where=_where(source),
        todo="Run again.",
        details={"layer": source.name, "file": file.entry.path, "path": file.path},
    )


def _where(source: LayerSource) -> str:
    return f"{source.name} {source.version}".strip()
