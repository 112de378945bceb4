"""The hub's end of an upload that is stopped, and goes on later."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from likewise.model.digest import Digest, digest_bytes
from likewise.node.cache import open_cache
from likewise.transport.archives import Archive, Archives
from likewise.transport.receiving import Receiving
from support.nodes import archive, layer

SOURCE = layer("sample", {"purelib/sample.bin": os.urandom(1 << 20)})
DATA = archive(SOURCE)
HALF = len(DATA) // 2


@pytest.mark.parametrize("busy", [False, True])
def test_a_stopped_upload_is_in_nobodys_way(tmp_path: Path, busy: bool) -> None:
    """Others can receive the archive at once, even if a piece was just coming; what came stays; none of it comes twice.

    Whoever sends it hears with the next piece that it is not wanted.
    """
    archives, digest, sha256 = Archives(open_cache(str(tmp_path))), SOURCE.digest, digest_bytes(DATA)
    arrived: list[Archive] = []
    here: list[int] = []
    refused: list[Digest] = []
    receiving = Receiving(archives, lambda _, size, at: here.append(at), arrived.append, refused.append, 1.0)

    async def put(offset: int, data: bytes) -> tuple[int, bool]:
        answered = await receiving.put(digest, sha256, len(DATA), offset, data)
        return answered["offset"], answered["done"]

    async def upload() -> None:
        receiving.want(digest)
        sending = asyncio.create_task(put(0, DATA[:HALF]))
        while busy and not here:
            await asyncio.sleep(0)
        if not busy:
            await sending
        receiving.withdraw(digest)
        assert await sending == (HALF, busy)
        part = archives.receive(digest, sha256, len(DATA))
        assert part.size == HALF
        part.close()
        assert (await put(HALF, DATA[HALF:]))[1] and not arrived
        receiving.want(digest)
        assert await put(0, b"") == (HALF, False)
        assert (await put(HALF, DATA[HALF:]))[1]

    asyncio.run(upload())
    assert [one.digest for one in arrived] == [digest]
    assert here == [HALF, len(DATA)]
    assert not refused
