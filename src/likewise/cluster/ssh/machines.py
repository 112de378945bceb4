"""The hosts of a cluster: logged in to, asked what they are like, and given the kit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from likewise.cluster.ssh.arguments import Login
from likewise.cluster.ssh.connection import Connections, Host
from likewise.cluster.ssh.probing import Probe, check_fit, node_address, probe
from likewise.cluster.ssh.push import KitStream, has_kit, push_kit, script_name
from likewise.errors import ClusterError, LikewiseError
from likewise.model.keys import kit_key
from likewise.node.command import Launch
from likewise.stages import OpenStage, counted
from likewise.sync import Prepared


@dataclass
class Machine:
    """One host of the cluster; once it has an `error`, the cluster does without it.

    Attributes
    ----------
    login : Login
    python : str
        Its own Python, for a cluster that is no replica.
    host : Host, optional
        Once it is logged in to.
    probe : Probe, optional
        Once it was asked.
    address : str
        Where its processes listen.
    error : LikewiseError, optional
        What is wrong with it.
    """

    login: Login
    python: str = ""
    host: Host | None = None
    probe: Probe | None = None
    address: str = ""
    error: LikewiseError | None = None

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.login.name

    def launch(self, prepared: Prepared, cluster: str, hub: str) -> Launch:
        """The command prefix for a node of `cluster` on this host."""
        assert self.probe is not None
        return Launch(
            script=f"{self.probe.cache}/{script_name()}",
            cache=self.probe.cache,
            manifest=prepared.manifest.id,
            kit="",
            kit_id=prepared.kit_id,
            kit_sha256=prepared.kit_sha256,
            cluster=cluster,
            hub=hub,
            stream=prepared.streams,
            first=prepared.first,
        )

    async def attempt(self, work: Awaitable[Any]) -> None:
        """Await `work`; an error of likewise's own makes the machine one that failed."""
        try:
            await work
        except LikewiseError as error:
            self.error = error


async def connect(
    machines: Sequence[Machine], connections: Connections, cache: str, prepared: Prepared | None, stage: OpenStage
) -> None:
    """Log in everywhere and ask every host what it is like.

    Raises
    ------
    ClusterError
        When too many hosts failed (see `check_left`), or the environment does not fit one.
    """
    manifest = prepared.manifest if prepared else None

    async def one(machine: Machine) -> None:
        machine.host = await connections.host(machine.name, machine.login.options)
        machine.probe = await probe(machine.host, cache, manifest)
        stage.advance(1, machine.name)

    await on_each_host(machines, one)
    check_left(machines)
    probes = [machine.probe for machine in machines if machine.probe is not None and machine.error is None]
    if manifest is not None:
        check_fit({probe.node: probe for probe in probes}.values(), manifest)
    for machine in machines:
        if machine.probe is not None:
            machine.address = node_address(machine.probe, probes)
    stage.summary = counted(len({probe.node for probe in probes}), "host")


async def push(machines: Sequence[Machine], prepared: Prepared, stage: OpenStage) -> int:
    """Give the kit to every host that lacks it; the number of bytes that it took.

    Raises
    ------
    ClusterError
        When too many hosts failed.
    """
    kit = KitStream(prepared.store.path(kit_key(prepared.kit_id)))
    total = 0

    def sent(size: int) -> None:
        nonlocal total
        total += size
        stage.advance(size, "kit")

    async def one(machine: Machine) -> None:
        assert machine.host is not None and machine.probe is not None
        if not has_kit(machine.probe, prepared.kit_id):
            await push_kit(machine.host, machine.probe, kit, prepared.kit_id, prepared.kit_sha256, sent)

    await on_each_host(machines, one)
    check_left(machines)
    return total


async def on_each_host(machines: Sequence[Machine], work: Callable[[Machine], Awaitable[None]]) -> None:
    """Do `work` once on each host that has not failed, at the same time; a host listed twice has one result."""
    groups: dict[tuple[str, str], list[Machine]] = {}
    for machine in machines:
        if machine.error is None:
            groups.setdefault((machine.name, repr(machine.login.options)), []).append(machine)
    await asyncio.gather(*(first.attempt(work(first)) for first, *_ in groups.values()))
    for first, *others in groups.values():
        for machine in others:
            machine.host, machine.probe, machine.error = first.host, first.probe, first.error


def check_left(machines: Sequence[Machine]) -> None:
    """Refuse to go on without the scheduler's host, or with none for workers.

    Raises
    ------
    LikewiseError
        What is wrong with the only host that failed, or a ClusterError that names all of them.
    """
    scheduler, *workers = machines
    if scheduler.error is None and not (workers and all(machine.error for machine in workers)):
        return
    errors = list({machine.name: machine.error for machine in machines if machine.error}.values())
    if len(errors) == 1:
        raise errors[0]
    raise ClusterError(
        "These hosts can't be used:" + "".join(f"\n    {error}" for error in errors),
        where=scheduler.name if scheduler.error else "",
        details={"errors": [error.as_dict() for error in errors]},
    )


def healthy(machines: Iterable[Machine]) -> list[Machine]:
    """Those that have not failed."""
    return [machine for machine in machines if machine.error is None]
