"""One wheel on its way to be a layer: what networks, proxies, servers and disks do to it. Real servers, on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from likewise.layers.wheel import wheel_source
from likewise.model.digest import Digest, digest_bytes
from likewise.model.plan import LockedFile
from likewise.node.cache import NodeCache, open_cache
from likewise.transport import wheels
from likewise.transport.archives import Archive, Archives
from likewise.transport.fetch import SourceDamaged, SourceFailed
from likewise.transport.wheels import OtherLayer, WheelFetch
from support.authority import make_authority
from support.indexes import IndexServer, Manner, dead_url, offer, serve_index
from support.proxy import Proxy, serve_proxy

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's own."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[IndexServer]:
    """An index that offers `sample`."""
    offer(tmp_path / "index", "sample", "1.0", files={"sample/noise.bin": os.urandom(MIB)})
    with serve_index(tmp_path / "index") as found:
        yield found


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy."""
    with serve_proxy() as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    """The node's."""
    return open_cache(str(tmp_path / "node"))


def sample(index: IndexServer, files_url: str = "") -> tuple[LockedFile, Digest]:
    """The wheel of `sample`, at `files_url` or where the index has it, and the layer that it is."""
    wheel = next(index.manner.folder.glob("*.whl"))
    source = wheel_source(wheel, unpack_to=index.manner.folder.parent / "unpacked")
    data, url = wheel.read_bytes(), f"{files_url or index.files_url}{wheel.name}"
    return LockedFile(filename=wheel.name, url=url, sha256=digest_bytes(data), size=len(data)), source.digest


def fetch(cache: NodeCache, file: LockedFile, digest: Digest, **how: Any) -> Archive:
    """Fetch it as an agent does. Nothing but the archive stays, whatever happens."""
    scratch = Path(cache.place("tmp"), "wheels.1")

    async def work() -> Archive:
        async with WheelFetch(file, digest, Archives(cache), str(scratch), **how) as one:
            await one.download()
            return await one.make()

    try:
        return asyncio.run(work())
    finally:
        assert list(scratch.iterdir()) == []


def test_through_a_proxy(index: IndexServer, proxy: Proxy, cache: NodeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only way out: not even the name is known here."""
    proxy.hosts["index.example"] = f"127.0.0.1:{index.port}"
    monkeypatch.setenv("http_proxy", proxy.url)
    file, digest = sample(index, "http://index.example/files/")
    assert fetch(cache, file, digest).digest == digest
    assert proxy.asked == [f"GET {file.url}"]


def test_through_a_proxy_with_tls(
    index: IndexServer, proxy: Proxy, cache: NodeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is a line, and the server's certificate is checked through it."""
    authority, stranger = (make_authority(tmp_path / name) for name in ("authority", "stranger"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.chain)
    secure = IndexServer(Manner(folder=index.manner.folder), "localhost")
    secure._server.socket = context.wrap_socket(secure._server.socket, server_side=True)
    secure.start()
    try:
        monkeypatch.setenv("https_proxy", proxy.url.removeprefix("http://"))
        file, digest = sample(secure, secure.files_url.replace("http://", "https://"))
        monkeypatch.setenv("SSL_CERT_FILE", str(stranger.bundle))
        with pytest.raises(SourceFailed, match=r"CERTIFICATE|SSL"):
            fetch(cache, file, digest)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
        assert fetch(cache, file, digest).digest == digest
        assert set(proxy.asked) == {f"CONNECT localhost:{secure.port}"}
    finally:
        secure.stop()


def test_past_a_proxy(index: IndexServer, cache: NodeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``no_proxy`` names is asked directly, though nobody listens where the proxy should be."""
    monkeypatch.setenv("http_proxy", dead_url())
    file, digest = sample(index)
    with pytest.raises(SourceFailed):
        fetch(cache, file, digest)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch(cache, file, digest).digest == digest


@pytest.mark.parametrize("status", [403, 407])
def test_a_proxy_that_refuses(
    index: IndexServer, proxy: Proxy, cache: NodeCache, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It says nothing of the wheel: another node may have a way."""
    proxy.refuses = status
    monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://me:canary@"))
    with pytest.raises(SourceFailed, match=str(status)) as caught:
        fetch(cache, *sample(index))
    assert not isinstance(caught.value, SourceDamaged)
    assert "canary" not in str(caught.value)


def full(host: str, port: int = 0) -> tuple[socket.socket, list[socket.socket]]:
    """A port at which nobody is let in any more: further packets are dropped, as a firewall does it."""
    listener = socket.socket()
    listener.bind((host, port))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
        waiting.append(one)
    time.sleep(0.1)
    return listener, waiting


def test_where_packets_vanish_all_addresses_are_tried_at_once(
    index: IndexServer, cache: NodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server with many of them does not take as many times as long."""
    monkeypatch.setattr(wheels, "SILENCE", 2.0)
    first, rest = full("127.0.0.1")
    port = first.getsockname()[1]
    walls = [(first, rest), *(full(f"127.0.0.{last}", port) for last in range(2, 7))]
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", wall.getsockname()) for wall, _ in walls]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: addresses)
    file, digest = sample(index, f"http://index.example:{port}/files/")
    started = time.monotonic()
    try:
        with pytest.raises(SourceFailed, match="can't be reached"):
            fetch(cache, file, digest)
        assert time.monotonic() - started < 2.5 * wheels.SILENCE < len(walls) * wheels.SILENCE
    finally:
        for wall, waiting in walls:
            for one in (wall, *waiting):
                one.close()


def test_what_becomes_slow_gives_way(index: IndexServer, cache: NodeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less came than the client would give; with nothing to compare with, the same is quick enough."""
    index.manner = Manner(folder=index.manner.folder, fault="slow", delay=0.4)
    monkeypatch.setattr(wheels, "WINDOW", 0.5)
    file, digest = sample(index)
    with pytest.raises(SourceFailed, match="too slow") as caught:
        fetch(cache, file, digest, lowest=100e6)
    assert not isinstance(caught.value, SourceDamaged)
    assert fetch(cache, file, digest).digest == digest


def test_another_layer_is_told_apart_from_wrong_bytes(index: IndexServer, cache: NodeCache) -> None:
    """The first is so for everybody, the second is this server's doing."""
    file, digest = sample(index)
    with pytest.raises(OtherLayer):
        fetch(cache, file, digest_bytes(b"something else"))
    index.manner = Manner(folder=index.manner.folder, fault="wrong-content")
    with pytest.raises(SourceDamaged) as caught:
        fetch(cache, file, digest)
    assert not isinstance(caught.value, OtherLayer)


@pytest.mark.root
def test_a_full_disk_is_no_fault_of_the_wheel(
    index: IndexServer, cache: NodeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the index nor the offer is blamed: it is this machine that has no space."""
    monkeypatch.setattr(wheels, "check_space", lambda *args, **more: None)
    place = cache.place("tmp")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k,mode=700", "none", place], check=True)
    try:
        with pytest.raises(OSError, match="No space") as caught:
            fetch(cache, *sample(index))
        assert not isinstance(caught.value, SourceFailed)
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("fault", ["hang", "slow", ""])
def test_cancelled_again_and_again_it_leaves_nothing(index: IndexServer, cache: NodeCache, fault: str) -> None:
    """While it waits for the server, while it receives, and while it makes the layer."""
    file, digest = sample(index)
    index.manner = Manner(folder=index.manner.folder, fault=fault, delay=0.3)
    scratch = Path(cache.place("tmp"), "wheels.1")

    async def work() -> None:
        async with WheelFetch(file, digest, Archives(cache), str(scratch)) as one:
            await one.download()
            await one.make()

    async def cancel() -> None:
        task = asyncio.create_task(work())
        while not (index.asked and (fault or list(scratch.rglob("noise.bin")))):
            await asyncio.sleep(0.001)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0.05)
            if fault == "hang":
                index.stop()
        assert task.cancelled()
        assert list(scratch.iterdir()) == []

    asyncio.run(cancel())
    assert list(scratch.iterdir()) == []
