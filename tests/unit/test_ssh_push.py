"""The kit on its way to hosts."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import pytest

from likewise.cluster.ssh.push import KitStream, push_error
from likewise.errors import NodeError, StoreError


def test_many_hosts_read_one_packed_kit(tmp_path: Path) -> None:
    """Each reader gets the whole of it, early and late ones, however slow; what was sent is counted."""
    kit = tmp_path / "kit"
    kit.write_bytes(os.urandom(3 << 20) + bytes(3 << 20))
    sent: list[int] = []

    async def read(stream: KitStream, delay: float) -> bytes:
        pieces = []
        async for piece in stream.pieces(sent.append):
            pieces.append(piece)
            await asyncio.sleep(delay)
        return b"".join(pieces)

    async def read_all() -> list[bytes]:
        stream = KitStream(kit)
        return [*await asyncio.gather(read(stream, 0), read(stream, 0.01)), await read(stream, 0)]

    first, second, third = asyncio.run(read_all())
    assert first == second == third
    assert gzip.decompress(first) == kit.read_bytes()
    assert sum(sent) == 3 * len(first)


def test_a_kit_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """And not half a kit."""

    async def read() -> None:
        async for _ in KitStream(tmp_path / "kit").pieces(lambda size: None):
            pass

    with pytest.raises(StoreError, match="kit"):
        asyncio.run(read())


def test_a_host_tells_in_its_own_words_what_went_wrong() -> None:
    """bootstrap.sh's sentence, else the last line, else the exit code."""
    told = push_error("h", "tar: No space left\nlikewise: The kit can't be unpacked. Free some space.\nnoise\n", 15)
    assert isinstance(told, NodeError)
    assert "Free some space" in str(told)
    assert "no such thing" in str(push_error("h", "first\nsh: no such thing\n", 127))
    assert "exit code 1" in str(push_error("h", "", 1))
