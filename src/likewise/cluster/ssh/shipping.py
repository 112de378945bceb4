"""What the client gives to the cluster: the kit to every host, every other layer once, to the hub on the first one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, BinaryIO

from distributed.security import Security

from likewise.cluster.arrivals import deliveries, is_settled
from likewise.cluster.environ import tls_environ
from likewise.cluster.process import Command
from likewise.cluster.ssh.machines import Machine
from likewise.cluster.ssh.near import Near, Uplink
from likewise.cluster.ssh.process import SSHProcess, reach_address
from likewise.errors import ClusterError, LikewiseError
from likewise.events import LayerArrived, Reporter, StageAdvanced
from likewise.model.digest import Digest
from likewise.model.keys import layer_key
from likewise.model.report import Delivery
from likewise.node.unpack import DamagedCopy, UnreadableCopy, check_archive
from likewise.stages import OpenStage
from likewise.sync import Prepared
from likewise.transport.upload import Uploader

logger = logging.getLogger("likewise.cluster")

_HUB = b'{"hub"'
_GIVERS = ("client", "index", "store")
_LOOK = 1.0  # seconds between looks at what has arrived, while something is on its way
_LATER = 10.0  # seconds between looks for what is on its way
_ANSWER = 2.0  # seconds that the hub has for its last answer


class HubProcess(SSHProcess):
    """The hub, on the scheduler's host."""

    def __init__(self, machine: Machine, prepared: Prepared, cluster: str, security: Security) -> None:
        assert machine.host is not None
        argv = [*machine.launch(prepared, cluster, "").argv("hub"), "--host", machine.address, "--lifeline"]
        argv += ["--first", ",".join(prepared.first)] if prepared.first else []
        command = Command(
            label="hub", node=machine.name, argv=tuple(argv), cwd="", env=tls_environ(security, "scheduler")
        )
        super().__init__(machine.host, command)
        self._announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def _heard(self, line: bytes) -> bool:
        if not line.startswith(_HUB) or self._announced.done():
            return False
        self._announced.set_result(json.loads(line)["hub"])
        return True

    async def listening(self) -> str:
        """Wait for its address, as the hosts reach it.

        Raises
        ------
        LikewiseError
            With its last words, when it ends instead.
        """
        ended = asyncio.ensure_future(self.exited.wait())
        ends: set[asyncio.Future[Any]] = {ended, self._announced}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not self._announced.done():
            raise self.failure("ended before it was ready")
        return self._announced.result()

    def _release(self) -> None:
        self._announced.cancel()
        super()._release()


class Shipment:
    """The hub and the upload of one cluster.

    Parameters
    ----------
    machine : Machine
        The scheduler's.
    prepared : Prepared
    cluster : str
        The cluster's id.
    security : distributed.Security
    stage : OpenStage
        Told of every piece.
    uplink : Uplink
        What is known of the client's line. The kit was pushed.
    source : str
        Who gives what an index offers, too; one of `likewise.model.report.SOURCES`.
    reporter : Reporter
        Told of what has arrived.

    Attributes
    ----------
    layers : tuple of Delivery
        Where each layer came from, as of the last look.
    """

    def __init__(
        self,
        machine: Machine,
        prepared: Prepared,
        cluster: str,
        security: Security,
        stage: OpenStage,
        *,
        uplink: Uplink,
        source: str,
        reporter: Reporter,
    ) -> None:
        self.process = HubProcess(machine, prepared, cluster, security)
        self.hub = ""
        self.layers: tuple[Delivery, ...] = ()
        self._machine, self._prepared, self._security, self._stage = machine, prepared, security, stage
        self._uplink, self._source, self._reporter = uplink, source, reporter
        self._running: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._uploader: Uploader | None = None
        self._near: Near | None = None

    async def start(self) -> None:
        """Start the hub, and begin to upload what it asks for.

        Raises
        ------
        LikewiseError
            When the hub does not start, or can't be reached.
        """
        await self.process
        self.hub = await self.process.listening()
        assert self._machine.host is not None
        self._uploader = Uploader(
            await reach_address(self._machine.host, self.hub),
            self._security,
            self._open,
            self._prepared.manifest.encode(),
            advanced=self._advanced,
            damaged=self._examine,
            name=self._name,
        )
        self._near = Near(self._uploader, self._prepared, self._source, self._uplink, self._reporter)
        self._running = asyncio.ensure_future(self._uploader.run())
        self._running.add_done_callback(_say_why)
        self._following = asyncio.ensure_future(self._follow())

    async def unless_it_fails(self, work: Awaitable[None]) -> None:
        """Await `work`.

        Raises
        ------
        LikewiseError
            When the upload fails before: nodes would wait in vain.
        """
        assert self._running is not None
        working = asyncio.ensure_future(work)
        try:
            ends: set[asyncio.Future[Any]] = {working, self._running}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self._running.result()
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def _open(self, digest: Digest) -> BinaryIO:
        if self._near is not None:
            self._near.asked()
        return self._prepared.open_layer(digest)

    def _examine(self, digest: Digest) -> None:
        """The hub's copy is damaged. Is it so here already? Then it goes, and the next launch makes it anew."""
        try:
            with self._prepared.open_layer(digest) as file:
                check_archive(file, digest)
        except (DamagedCopy, UnreadableCopy):
            self._prepared.store.remove(layer_key(digest))

    def _name(self, digest: Digest) -> str:
        manifest = self._prepared.manifest
        if digest == manifest.outline:
            return "outline"
        return next((ref.name for ref in manifest.layers if digest in (ref.digest, ref.bytecode)), digest[:12])

    def _advanced(self, event: StageAdvanced) -> None:
        self._stage.advance(event.amount, event.item)

    async def received(self) -> dict[str, int]:
        """Bytes that the nodes received, by source: ``client``, ``peer``, ``store``, ``index``."""
        status = await self._look()
        return {str(source): int(size) for source, size in status["bytes"].items()} if status else {}

    async def _follow(self) -> None:
        """Note, and report, what has arrived and where it came from."""
        while True:
            status = await self._look()
            await asyncio.sleep(_LATER if status and is_settled(status) else _LOOK)

    async def _look(self) -> dict[str, Any]:
        """What the hub says, nothing when it does not answer."""
        if self._uploader is None:
            return {}
        try:
            status = await self._uploader.hub_status()
        except LikewiseError:
            return {}
        if self._near is not None:
            await self._near.learn(self._prepared, status["others"])
        prepared, told = self._prepared, {one.digest for one in self.layers if one.source in _GIVERS}
        sizes = {**(self._near.sizes if self._near else {}), **self.uploaded}
        self.layers = deliveries(prepared.manifest, frozenset(prepared.plan.kit), self._uplink.kit, status, sizes)
        for one in self.layers:
            if one.source in _GIVERS and one.digest not in told:
                self._reporter.report(
                    LayerArrived(layer=one.name, kind=one.kind.value, source=one.source, size=one.size)
                )
        return status

    @property
    def uploaded(self) -> dict[Digest, int]:
        """Bytes sent for each layer."""
        return dict(self._uploader.sent) if self._uploader else {}

    async def offer(self, prepared: Prepared) -> None:
        """From now on `prepared` is the current environment, and its layers can be had.

        Raises
        ------
        ClusterError, NodeError
            When the hub is gone.
        """
        if self._uploader is None:
            raise ClusterError("The hub does not run.", where=self._machine.name)
        self._prepared = prepared
        await self._uploader.set_manifest(prepared.manifest.encode())
        if self._near is not None:
            self._near.renew(prepared)

    async def close(self) -> None:
        """End the upload and the hub."""
        with suppress(asyncio.TimeoutError, OSError):
            if self._running is not None and not self._running.done():
                await asyncio.wait_for(self._look(), _ANSWER)
        if self._near is not None:
            await self._near.close()
        tasks = [task for task in (self._following, self._running) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.process.close()


def _say_why(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and running.exception() is not None:
        logger.warning("Nothing is uploaded any more. %s", running.exception())
