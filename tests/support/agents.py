"""Agents and hubs as processes of their own, on loopback, with real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from distributed.core import rpc

from likewise.cluster.certificates import ClusterSecurity, make_security
from likewise.cluster.environ import tls_environ
from likewise.model.digest import Digest
from likewise.model.layer import LayerSource
from likewise.model.offer import Offer
from likewise.node.cache import NodeCache, open_cache
from likewise.node.layers import LayerShelf
from likewise.node.sources import AgentSource
from likewise.transport.upload import Uploader
from support.nodes import archive
from support.prefixes import clean_environ

T = TypeVar("T")


@functools.cache
def security() -> ClusterSecurity:
    """The credentials of all clusters here."""
    return make_security()


class Agent:
    """One agent or hub, started as clusters start it. Ends with the block, or with this process."""

    def __init__(self, command: str, cluster: str, cache: Path, *options: str, lifeline: bool = True) -> None:
        self.cluster = cluster
        self.cache: NodeCache = open_cache(str(cache))
        self.log = cache / "agents" / f"{cluster}.log"
        role = "scheduler" if command == "hub" else "worker"
        argv = [command, "--cluster", cluster, "--cache", str(cache), "--host", "127.0.0.1", *options]
        if lifeline:
            argv.append("--lifeline")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "likewise.transport", *argv],
                env=clean_environ(**tls_environ(security(), role)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill(signal.SIGTERM)

    @functools.cached_property
    def address(self) -> str:
        """A hub's address, once it listens."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        return str(json.loads(line)["hub"])

    def source(self) -> AgentSource:
        """The node's side of its door."""
        return AgentSource(self.cache.root, self.cluster)

    def shelf(self) -> LayerShelf:
        """Where this node's processes unpack layers that come through the door."""
        return LayerShelf(self.cache, [self.source()])

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it by a signal, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


def call(address: str, operation: str, **what: Any) -> Any:
    """Ask a hub or an agent something, as another member of the cluster would."""

    async def ask() -> Any:
        async with rpc(address, connection_args=security().get_connection_args("worker")) as peer:
            return await getattr(peer, operation)(**what)

    return asyncio.run(ask())


class Client:
    """The client's uploader, in a thread with an event loop of its own.

    `layers` are what it can give, by digest; a list holds one archive for each time that it is asked.
    """

    def __init__(self, hub: str, *layers: LayerSource, manifest: bytes = b"{}") -> None:
        self.archives = {source.digest: [archive(source)] for source in layers}
        self.damaged: list[Digest] = []
        self.uploader = Uploader(hub, security(), self._open, manifest, damaged=self.damaged.append)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def _open(self, digest: Digest) -> io.BytesIO:
        if not self.archives.get(digest):
            raise FileNotFoundError(digest)
        copies = self.archives[digest]
        return io.BytesIO(copies.pop(0) if len(copies) > 1 else copies[0])

    def __enter__(self) -> Client:
        self._thread.start()
        self.running = asyncio.run_coroutine_threadsafe(self.uploader.run(), self._loop)
        return self

    def __exit__(self, *exception: object) -> None:
        self.running.cancel()
        asyncio.run_coroutine_threadsafe(self._settle(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def offer(self, offers: Iterable[Offer], *, first: bool = False) -> None:
        """Tell the hub what nodes can have from an index."""
        asyncio.run_coroutine_threadsafe(self.uploader.offer(offers, first=first), self._loop).result(20)

    async def _settle(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=10) if others else None

    @property
    def sent(self) -> int:
        """Bytes sent so far."""
        return sum(self.uploader.sent.values())


class Line:
    """A TCP line to `target` that counts what comes back over it, and can be cut."""

    def __init__(self, target: str, *, cut_after: int = 0) -> None:
        host, _, port = target.removeprefix("tls://").rpartition(":")
        self._target = host, int(port)
        self._cut_after = cut_after
        self.back = 0
        self.forth = 0
        self.cuts = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tls://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Close every connection; new ones can be made."""
        self.cuts += 1
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open |= {near, far}
                for way in ((near, far, "forth"), (far, near, "back")):
                    threading.Thread(target=self._pass, args=way, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                setattr(self, way, getattr(self, way) + len(data))
                if self._cut_after and not self.cuts and self.back + self.forth > self._cut_after:
                    self.cut()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            self._open.discard(end)
            end.close()


def new_cluster() -> str:
    """A cluster's id."""
    return secrets.token_hex(8)


def until(condition: Callable[[], T], seconds: float = 60) -> T:
    """Wait until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return value


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """The most memory that a process ever had (VmHWM, proc(5)), in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))
