"""Decompressing ahead: a thread takes blocks while those before are used, and nothing else is different."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.node import unpack as unpacking
from likewise.node.blocks import AHEAD, ahead
from likewise.node.unpack import DamagedCopy, UnreadableCopy, unpack
from support.nodes import Content, archive, layer

FILES: dict[str, Content] = {
    "purelib/pkg/__init__.py": b"x = 1\n",
    "purelib/pkg/big.bin": os.urandom(3 << 20),
    "purelib/pkg/link.bin": "big.bin",
    "purelib/pkg/zeros.bin": b"\0" * (20 << 20),
}


def blocks(count: int, taken: list[int], error: Exception | None = None) -> Iterator[memoryview]:
    """Numbered blocks; `taken` tells which ones somebody has asked for."""
    for number in range(count):
        taken.append(number)
        yield memoryview(number.to_bytes(2, "little"))
    if error:
        raise error


def numbers(given: Iterator[memoryview]) -> list[int]:
    return [int.from_bytes(block, "little") for block in given]


def unpackers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "likewise-unpack"]


def test_blocks_come_in_order() -> None:
    """Whoever takes blocks from the thread gets what the thread got, all of it and in order."""
    with ahead(blocks(1000, [])) as given:
        assert numbers(given) == list(range(1000))
    assert unpackers() == []


def test_no_more_is_taken_than_can_be_held() -> None:
    """A slow user holds the thread up: memory does not depend on how much there is."""
    taken: list[int] = []
    with ahead(blocks(1000, taken)) as given:
        next(given)
        until = time.monotonic() + 10
        while len(taken) < AHEAD and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)
        assert AHEAD <= len(taken) <= AHEAD + 2
        assert numbers(given) == list(range(1, 1000))


def test_error_comes_where_it_belongs() -> None:
    """What goes wrong in the thread is raised after the blocks before it, as it is."""
    error = OSError(5, "Input/output error")
    with ahead(blocks(3, [], error)) as given:
        assert [next(given) for _ in range(3)]
        with pytest.raises(OSError) as caught:
            next(given)
    assert caught.value is error


def test_leaving_early_ends_the_thread() -> None:
    """When nobody wants the rest, the thread has ended before anything else is done with the stream."""
    taken: list[int] = []
    with pytest.raises(ZeroDivisionError), ahead(blocks(1000, taken)) as given:
        next(given)
        raise ZeroDivisionError
    assert unpackers() == []
    assert len(taken) <= AHEAD + 2


@pytest.fixture
def always_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of this size have the thread, too, on a machine with one core as well."""
    monkeypatch.setattr(unpacking, "LARGE", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


@pytest.mark.usefixtures("always_ahead")
def test_large_layer_comes_out_whole(tmp_path: Path) -> None:
    """Unpacked with the thread, every file has its content."""
    source = layer("pkg", FILES)
    unpack(io.BytesIO(archive(source)), source.digest, str(tmp_path), name="pkg")
    for path, content in FILES.items():
        found = tmp_path / path
        assert (os.readlink(found) if isinstance(content, str) else found.read_bytes()) == content


@pytest.mark.usefixtures("always_ahead")
@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer", "second frame"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    """A damaged large archive is refused like a small one, and no thread is left."""
    source = layer("pkg", FILES)
    data = bytearray(archive(source))
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "truncated":
        del data[-100:]
    else:
        data += archive(source) if damage == "second frame" else b"x"
    with pytest.raises(DamagedCopy, match=r"^pkg: The copy of the layer"):
        unpack(io.BytesIO(data), source.digest, str(tmp_path), name="pkg")
    assert unpackers() == []


@pytest.mark.usefixtures("always_ahead")
def test_unreadable_is_not_damaged(tmp_path: Path) -> None:
    """An input error in the thread says nothing against the copy."""
    source = layer("pkg", FILES)

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1 << 20:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(UnreadableCopy, match="Input/output error"):
        unpack(Failing(archive(source)), source.digest, str(tmp_path), name="pkg")
    assert unpackers() == []
