"""The archive of a layer: one zstd stream of the listing and then the files' contents, in the listing's order.

::

    8 bytes   length of the listing, little-endian
    listing   see model.layer; its sha256 is the layer's digest
    contents  of every file that is not a link, without anything between them

There is nothing in it that the listing does not account for, so whoever reads it can check every byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from likewise.layers.content import CHUNK, read_content, read_listing
from likewise.model.layer import LayerSource
from likewise.model.zstd import CompressionParameter, ZstdCompressor

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
        When a file vanished, or is not what its entry says, or when `source.digest` is not its listing's.
    OSError
        When `out` can't be written.
    """
    listing = read_listing(source)
    compressor = ZstdCompressor(options={
        CompressionParameter.compression_level: level,
        CompressionParameter.nb_workers: threads,
        CompressionParameter.checksum_flag: 0,  # sha256 covers everything
    })  # fmt: skip
    pending = bytearray(len(listing).to_bytes(8, "little") + listing)
    for file in source.files:
        if file.entry.link:
            continue
        for chunk in read_content(file, source):
            pending += chunk
            if progress:
                progress(len(chunk))
            if len(pending) >= CHUNK:  # small files are gathered until there are as many bytes
                out.write(compressor.compress(pending))
                pending.clear()
    out.write(compressor.compress(pending) + compressor.flush())
