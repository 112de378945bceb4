"""Files that are read where they are: from real servers, those that send parts and those that don't."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from likewise.errors import FetchError
from likewise.indexes.ranges import BLOCK, TAIL, RangeFile, open_remote
from likewise.indexes.secret import Secret
from likewise.indexes.values import Indexes
from likewise.layers.claimed import claimed_source
from likewise.layers.wheel import wheel_source
from likewise.model.digest import digest_bytes
from likewise.model.plan import LockedFile
from support.indexes import IndexServer, dead_url, offer, serve_index

SIZES = (1, 1_000, BLOCK, TAIL - 1, TAIL, TAIL + 1, 3 * BLOCK, 10 * BLOCK + 17)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[IndexServer]:
    """A server that sends parts."""
    (tmp_path / "files").mkdir()
    with serve_index(tmp_path / "files") as server:
        yield server


def put(index: IndexServer, size: int) -> bytes:
    """A file called ``some`` on the server; its content."""
    data = os.urandom(size)
    (index.manner.folder / "some").write_bytes(data)
    return data


def reader(index: IndexServer, **arguments: int) -> RangeFile:
    return RangeFile("some", Secret(f"{index.files_url}some"), Indexes(), timeout=5, **arguments)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_any_part_of_it_is_what_the_server_has(index: IndexServer, size: int, known: bool) -> None:
    """Whether or not its size is known before: every place, every length, as of a file that is here."""
    data = put(index, size)
    remote, here = reader(index, **({"size": size} if known else {})), io.BytesIO(data)
    assert remote.size == size
    for start in {0, 1, size // 3, size - 1, max(0, size - TAIL - 1), size, size + 5}:
        for length in (0, 1, BLOCK - 1, BLOCK + 1, size):
            assert remote.seek(start) == here.seek(start) == remote.tell()
            assert remote.read(length) == here.read(length)
    assert remote.seek(-1, io.SEEK_END) == size - 1
    assert remote.read() == data[-1:]
    assert remote.received <= size + BLOCK, "nothing is asked for twice"


def test_little_is_asked_for(index: IndexServer) -> None:
    """The end costs one question, and what was read before none."""
    data = put(index, 40 * BLOCK)
    remote = reader(index, size=len(data))
    remote.seek(-TAIL, io.SEEK_END)
    assert remote.read() == data[-TAIL:]
    assert [one.headers["range"] for one in index.asked] == [f"bytes={38 * BLOCK}-{40 * BLOCK - 1}"]
    remote.seek(5 * BLOCK - 1)
    assert remote.read(2) == data[5 * BLOCK - 1 : 5 * BLOCK + 1]
    assert remote.seek(-1, io.SEEK_CUR) == 5 * BLOCK
    assert remote.read(10) == data[5 * BLOCK : 5 * BLOCK + 10]
    assert len(index.asked) == 2
    assert remote.received == 4 * BLOCK


def test_a_layer_is_known_from_a_wheel_on_a_server(tmp_path: Path, index: IndexServer) -> None:
    """Of five megabytes a small part comes, and the layer is that of the whole wheel."""
    files = {f"sample/part{number}.so": os.urandom(1_000_000) for number in range(5)}
    wheel = offer(index.manner.folder, "sample", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64", files=files)
    size = wheel.stat().st_size
    file = LockedFile(
        filename=wheel.name, url=index.files_url + wheel.name, sha256=digest_bytes(wheel.read_bytes()), size=size
    )
    with open_remote(file, Indexes()) as remote:
        layer = claimed_source(remote, where=file.filename)
        assert isinstance(remote.raw, RangeFile)
        assert remote.raw.received < size / 50
    assert layer.digest == wheel_source(wheel, unpack_to=tmp_path / "whole").digest


def test_a_server_without_parts_is_told(index: IndexServer) -> None:
    """It sends everything, which nobody reads."""
    put(index, 1_000)
    index.manner = type(index.manner)(folder=index.manner.folder, ranges=False)
    for arguments in ({}, {"size": 1_000}):
        with pytest.raises(FetchError, match="sends no parts"):
            reader(index, **arguments)


@pytest.mark.parametrize("known", [999, 1_001, BLOCK * 3])
def test_a_file_of_another_size_is_refused(index: IndexServer, known: int) -> None:
    """It is not the one that was pinned."""
    put(index, 1_000)
    with pytest.raises(FetchError):
        reader(index, size=known)


@pytest.mark.parametrize(("fault", "said"), [("status", "500"), ("close", "can't be reached"), ("truncate", "part")])
def test_what_fails_is_told_without_the_url(index: IndexServer, fault: str, said: str) -> None:
    """In words of our own; the exception carries nothing that knows the address."""
    put(index, 1_000)
    index.manner = type(index.manner)(folder=index.manner.folder, fault=fault)
    with pytest.raises(FetchError, match=said) as caught:
        reader(index, size=1_000)
    assert index.files_url not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_nobody_there(index: IndexServer) -> None:
    """A server that is down is told at once."""
    with pytest.raises(FetchError, match="can't be reached"):
        RangeFile("some", Secret(dead_url() + "some"), Indexes(), size=10)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-9/10"},  # another part
        {"Content-Range": "bytes 5-9/11"},  # another size
        {"Content-Range": "bytes 5-9/*"},
        {},
        {"Content-Range": "bytes 5-9/10", "Content-Encoding": "gzip"},
    ],
)
def test_what_was_not_asked_for_is_refused(headers: dict[str, str]) -> None:
    """A server that answers 206 with anything else than that very part is not believed."""

    class Lying(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(206)
            for name, value in {**headers, "Content-Length": "5"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"other")

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Lying) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            with pytest.raises(FetchError):
                RangeFile("some", Secret(f"http://127.0.0.1:{server.server_address[1]}/some"), Indexes(), size=10)
        finally:
            server.shutdown()


def test_there_is_a_limit(index: IndexServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads all of a large file gets an error, not all of it."""
    put(index, 10 * BLOCK)
    monkeypatch.setattr("likewise.indexes.ranges.MOST", 5 * BLOCK)
    remote = reader(index)
    with pytest.raises(FetchError, match="more than"):
        remote.read()
    assert remote.received <= 5 * BLOCK
