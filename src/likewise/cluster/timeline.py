"""When the processes of a cluster began, and when their prefixes' layers were there: for ``likewise run --profile``.

`look`, `follow` and `followed` run on the nodes, on the event loops of scheduler and workers; the rest on the client.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from distributed import Client

from likewise.cluster.verify import SCHEDULER, ask
from likewise.errors import LikewiseError
from likewise.model.timeline import Mark, PrefixTimes, ProcessTimes

_POLL = 0.05  # seconds between looks at a prefix that grows
_PATIENCE = 10.0  # seconds in which every process has answered

# On the nodes


async def look() -> dict[str, Any]:
    """What this process is, and since when; a worker answers for its nanny, which is what was started."""
    pid = os.getpid() if multiprocessing.parent_process() is None else os.getppid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "prefix": sys.prefix,
        "spawned": began(pid),
        "ready": entered(sys.prefix),
    }


def began(pid: int) -> float:
    """When a process began. That survives exec, so it is the moment in which its starter made it."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])  # proc(5): field 22, in clock ticks since boot
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def entered(prefix: str) -> float | None:
    """When ``<prefix>/launch`` made this process's own working directory, right before it became Python."""
    cwd = os.getcwd()
    if os.path.dirname(cwd) != f"{os.path.dirname(os.path.dirname(prefix))}/work":
        return None
    return os.stat(cwd).st_mtime


class _Growth:
    """What was seen of a prefix that grows."""

    def __init__(self) -> None:
        self.layers: dict[str, float] = {}
        self.complete: float | None = None
        self.grew = False

    async def watch(self, folder: str) -> None:
        """Look now and then, until the folder ``growing`` has gone."""
        before = time.time()
        while os.path.isdir(folder):
            self.grew = True
            with suppress(OSError):
                for entry in os.scandir(f"{folder}/there"):
                    if entry.name not in self.layers:
                        self.layers[entry.name] = entry.stat().st_mtime
            before = time.time()
            await asyncio.sleep(_POLL)
        self.complete = before


_growths: dict[str, tuple[_Growth, asyncio.Task[None]]] = {}


async def follow() -> None:
    """Begin to note when layers of this process's prefix are there, if it grows."""
    if sys.prefix not in _growths:
        growth = _Growth()
        folder = f"{sys.prefix}/growing"
        _growths[sys.prefix] = growth, asyncio.ensure_future(growth.watch(folder))
        await asyncio.sleep(0)  # one look


async def followed() -> dict[str, Any]:
    """What was noted since `follow`; of a prefix that was complete by then, what its filler has left."""
    growth, _ = _growths[sys.prefix]
    layers = growth.layers if growth.grew else left_by_filler(sys.prefix)
    return {"layers": layers, "complete": growth.complete if growth.grew else max(layers.values(), default=None)}


def left_by_filler(prefix: str) -> dict[str, float]:
    """When each layer was there, by its key, if the prefix was completed after its last start."""
    folder, name = os.path.split(prefix)
    layers = {}
    with suppress(OSError, ValueError), open(f"{os.path.dirname(folder)}/used/{name}", encoding="ascii") as file:
        for line in file.read().split("\n"):
            key, _, at = line.partition(" ")
            if at:
                layers[key] = float(at)
    return layers


# On the client


class Watched(msgspec.Struct, frozen=True):
    """The processes of a cluster right after the launch; one for each prefix on each node watches that, by address."""

    processes: tuple[ProcessTimes, ...] = ()
    watchers: Mapping[str, tuple[str, str]] = {}


def watch(cluster: Any, joined: Callable[[str], float | None]) -> Watched:
    """Ask every process since when it is there, and have each prefix watched that grows.

    Whoever does not answer is left out: a profile is never worth an error.

    Parameters
    ----------
    cluster : Replica
        Not asynchronous.
    joined : callable
        When the process with this name (``worker 3``) joined, as far as known.
    """
    try:
        return cluster.sync(_watch, cluster, joined)  # type: ignore[no-any-return]
    except (OSError, LikewiseError):
        return Watched()


def collect(cluster: Any, watched: Watched) -> tuple[PrefixTimes, ...]:
    """What the watchers have seen until now.

    Parameters
    ----------
    cluster : Replica
        As for `watch`.
    watched : Watched
    """
    names = {ref.digest[:16]: ref.name for ref in cluster._prepared.manifest.layers}
    try:
        answers = cluster.sync(_collect, cluster, watched)
    except (OSError, LikewiseError):
        return ()
    found = []
    for (node, prefix), told in answers:
        if not told["layers"]:
            continue  # it was complete before this launch
        seen = told["layers"]
        if told["complete"] is not None:  # the last ones came after the last look
            seen = {**dict.fromkeys(names, told["complete"]), **seen}
        layers = sorted((at, names.get(key, key)) for key, at in seen.items())
        marks = tuple(Mark(name=name, at=at) for at, name in layers)
        found.append(PrefixTimes(node=node, prefix=prefix, layers=marks, complete=told["complete"]))
    return tuple(found)


async def _watch(cluster: Any, joined: Callable[[str], float | None]) -> Watched:
    names = {a: f"worker {w['name']}" for a, w in cluster.scheduler_info["workers"].items()} | {SCHEDULER: SCHEDULER}
    nodes: dict[str, str | None] = cluster._processes_by_address()
    async with Client(cluster, asynchronous=True, set_as_default=False) as client:
        answers = await asyncio.gather(*(ask(client, address, _PATIENCE, look) for address in nodes))
        processes, places = [], dict[tuple[str, str], str]()
        for (address, node), told in zip(nodes.items(), answers, strict=True):
            if isinstance(told, Exception):
                continue
            where, name = node or told.pop("host"), names.get(address, address)
            told.pop("host", None)
            processes.append(ProcessTimes(name=name, node=where, joined=joined(name), **told))
            places.setdefault((where, told["prefix"]), address)
        began = await asyncio.gather(*(ask(client, address, _PATIENCE, follow) for address in places.values()))
    watchers = {a: place for (place, a), answer in zip(places.items(), began, strict=True) if answer is None}
    return Watched(tuple(processes), watchers)


async def _collect(cluster: Any, watched: Watched) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    async with Client(cluster, asynchronous=True, set_as_default=False) as client:
        asked = [ask(client, address, _PATIENCE, followed) for address in watched.watchers]
        answers = await asyncio.gather(*asked)
    found = zip(watched.watchers.values(), answers, strict=True)
    return [(place, told) for place, told in found if not isinstance(told, Exception)]
