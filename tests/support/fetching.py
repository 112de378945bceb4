"""A hub and nodes that fetch from an index what it has: agents, wheels, and the offers of them."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from likewise.layers.wheel import wheel_source
from likewise.model.digest import digest_bytes
from likewise.model.layer import LayerSource
from likewise.model.offer import Offer
from likewise.model.plan import LockedFile
from support.agents import Agent, call, new_cluster, until
from support.indexes import IndexServer, offer

MIB = 1 << 20
NODES = 3


class Cluster:
    """A hub and three nodes."""

    def __init__(self, root: Path) -> None:
        self.id = new_cluster()
        self.hub = Agent("hub", self.id, root / "hub")
        self.nodes = [Agent("agent", self.id, root / f"n{i}", "--hub", self.hub.address) for i in range(NODES)]
        until(lambda: len(self.status()["nodes"]) == NODES + 1)

    def status(self) -> dict[str, Any]:
        """What the hub says."""
        found: dict[str, Any] = call(self.hub.address, "hub_status")
        return found

    def everywhere(self, *sources: LayerSource) -> None:
        """All nodes get these layers at once."""
        with ThreadPoolExecutor(NODES) as pool:
            list(pool.map(lambda node: unpack(node, *sources), self.nodes))

    def end(self) -> None:
        """End all that still runs; nothing that was in the making stays behind."""
        alive = [agent for agent in (*self.nodes, self.hub) if agent.process.poll() is None]
        for agent in alive:
            agent.kill(signal.SIGTERM)
        for agent in alive:
            assert not in_the_making(agent).exists()


def in_the_making(agent: Agent) -> Path:
    """Where an agent has what it makes layers of."""
    return Path(agent.cache.place("tmp"), f"wheels.{agent.process.pid}")


def unpack(agent: Agent, *sources: LayerSource) -> None:
    """What a process of the node does: ask for all of them, then check what comes."""
    with ThreadPoolExecutor(len(sources)) as pool:
        list(pool.map(lambda source: agent.source().open(source.digest).close(), sources))
    for source in sources:
        agent.shelf().get(source.digest, source.name)
        for file in source.files:
            found = Path(agent.cache.layer(source.digest), file.entry.path).read_bytes()
            assert digest_bytes(found) == file.entry.sha256


class Made:
    """A wheel on an index, the layer that it is, and the offer of it."""

    def __init__(self, index: IndexServer, name: str, size: int = MIB, *, client_has: bool = True) -> None:
        self.wheel = offer(index.manner.folder, name, "1.0", files={f"{name}/noise.bin": os.urandom(size)})
        data = self.wheel.read_bytes()
        self.source = wheel_source(self.wheel, unpack_to=self.wheel.parent / "unpacked" / name)
        self.file = LockedFile(
            filename=self.wheel.name,
            url=f"{index.files_url}{self.wheel.name}",
            sha256=digest_bytes(data),
            size=len(data),
        )
        self.offer = Offer(layer=self.source.digest, file=self.file, client_has=client_has)


def asked(index: IndexServer, made: Made) -> int:
    """How often the wheel was asked for."""
    return sum(one.path.endswith(made.wheel.name) for one in index.asked)
