"""What an archive holds, block by block, and a thread that decompresses ahead of whoever uses them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Event, Thread
from typing import BinaryIO

from likewise.model.zstd import ZstdDecompressor, ZstdError

BLOCK = 1 << 17
"""Bytes of a block at most; zstd's own blocks are as large at most."""

AHEAD = 32
"""Blocks that wait to be used at most."""


def decompressed(stream: BinaryIO, refusal: Callable[[str], Exception]) -> Iterator[memoryview]:
    """The content of a stream that must be one zstd frame and nothing else.

    Parameters
    ----------
    stream : BinaryIO
    refusal : callable
        Makes the error to raise when it is not; gets what completes "The copy …".

    Raises
    ------
    OSError
        When the stream can't be read.
    """
    zstd = ZstdDecompressor()
    while not zstd.eof:
        data = stream.read(BLOCK) if zstd.needs_input else b""
        if zstd.needs_input and not data:
            raise refusal("is truncated")
        try:
            block = zstd.decompress(data, BLOCK)
        except ZstdError as error:
            raise refusal(f"is not valid zstd data ({error})") from error
        if block:
            yield memoryview(block)
    if zstd.unused_data or stream.read(1):
        raise refusal("is longer than it should be")


@contextlib.contextmanager
def ahead(blocks: Iterator[memoryview]) -> Iterator[Iterator[memoryview]]:
    """`blocks`, taken by a thread while those before are used (zstd, sha256 and the kernel all let other threads run).

    An error of `blocks` is raised where they are used. When the ``with`` block ends early, the block that the thread is
    at is waited for: a thread that still reads a closed file could read the next one that gets its number.
    """
    free: SimpleQueue[None] = SimpleQueue()
    taken: SimpleQueue[memoryview | BaseException | None] = SimpleQueue()
    over = Event()

    def take() -> None:
        try:
            for block in blocks:
                taken.put(block)
                free.get()
                if over.is_set():
                    return
            taken.put(None)
        except BaseException as error:
            taken.put(error)

    def given() -> Iterator[memoryview]:
        while (item := taken.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            free.put(None)
            yield item

    for _ in range(AHEAD):
        free.put(None)
    thread = Thread(target=take, name="likewise-unpack", daemon=True)
    thread.start()
    try:
        yield given()
    finally:
        over.set()
        free.put(None)
        thread.join()
