"""A Dask cluster on hosts that OpenSSH reaches, in a replica of the client's environment. The hosts need no Python."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import click
import dask.config
import msgspec
from distributed.cli import dask_scheduler, dask_worker
from distributed.comm.addressing import get_address_host_port
from distributed.security import Security
from distributed.utils import format_dashboard_link

from likewise.cluster.base import NodeCluster
from likewise.cluster.commands import client_environ, require_tls, split_preloads
from likewise.cluster.environ import dask_environ
from likewise.cluster.options import check_options
from likewise.cluster.process import NodeProcess
from likewise.cluster.replica import PackageSync, Replica
from likewise.cluster.ssh.arguments import Commands, logins, nanny_of, pythons, scheduler_flags, worker_flags
from likewise.cluster.ssh.connection import Connections, require_asyncssh
from likewise.cluster.ssh.machines import Machine, connect, healthy, push
from likewise.cluster.ssh.near import Uplink
from likewise.cluster.ssh.probing import common_target
from likewise.cluster.ssh.process import FailedProcess, PlainScheduler, PlainWorker, SSHProcess, SSHScheduler
from likewise.cluster.ssh.remote import end_cluster_script
from likewise.cluster.ssh.shipping import Shipment
from likewise.errors import LikewiseError, UsageError
from likewise.events import Notice, Reporter
from likewise.model.report import Delivery
from likewise.stages import OpenStage
from likewise.sync import Prepared, target_named

_END_TRIES = 20
_END_POLL = 0.1  # seconds
_END_ANSWER = 5.0  # seconds in which a host that is there answers


class SSHCluster(Replica, NodeCluster):
    """A Dask cluster on hosts that are reached through SSH, in a replica of your environment.

    The hosts need a POSIX shell, tar and gzip; no Python, and no way to the Internet. What OpenSSH's configuration says
    (``~/.ssh/config``, agent, ProxyJump, known hosts) holds here, too.

    Parameters
    ----------
    hosts : list of str
        Names, addresses or aliases of ``~/.ssh/config``. The scheduler runs on the first one, workers on the others. A
        host may be listed several times.
    connect_options : dict or list of dict, optional
        Keywords of `asyncssh.connect`, for all hosts or for each. They come before OpenSSH's configuration.
    worker_options : dict, optional
        Keywords of `distributed.Nanny`: ``nthreads``, ``memory_limit``, …, and ``n_workers`` for each listed host.
    scheduler_options : dict, optional
        Keywords of `distributed.Scheduler`: ``port``, ``dashboard_address``, ….
    worker_class : str
        ``"distributed.Nanny"``, ``"distributed.Worker"``, or the worker class that a nanny shall run.
    remote_python : str or list of str, optional
        With ``package_sync=False``: the hosts' own Python. Default: ``python3``.
    package_sync : bool
        False: plain Dask in the hosts' own prefix, nothing is scanned or copied.
    package_sync_strict, package_sync_ignore, package_sync_only, package_sync_level, package_sync_extras, \
package_sync_conda_extras, package_sync_fail_on
        As in `likewise.Cluster`.
    package_sync_target : str, Target or Plan, optional
        The platform of the hosts (``"linux-64"``, ``"linux-aarch64-glibc2.31"``), or a plan that was made for it with
        `likewise.plan`; ``"auto"``: the hosts are asked. Default: as this machine is, ``"auto"`` if that is no Linux.
        Wheels for another platform are fetched from your indexes.
    package_sync_source : str, optional
        Who gives the hosts what a public index offers, too: ``"client"`` (this machine alone), ``"index"`` (a host
        fetches it wherever it can), or ``"auto"`` (both, and whoever turns out to be quicker gives most; the index is
        looked at only when this machine would be busy for more than a few seconds). Default: as the setting
        ``likewise.source`` says, which is ``"auto"``.
    node_cache : str
        The folder of the node cache on each host. Default: each host's first safe and usable place of ``$TMPDIR``,
        ``/tmp``, ``~/.cache``.
    env : mapping of str to str, optional
        Environment variables for the nodes. Of the client's own they get none.
    security : distributed.Security, optional
        Default: temporary certificates of this cluster. TLS is always on.
    name : str, optional
    silence_logs : int
        Level below which Dask's loggers in the client are silent.
    reporter : Reporter, optional
        Listens to the progress of the launch. Default: what people see, on a terminal or in a notebook.
    asynchronous, loop
        As in `distributed.LocalCluster`.

    Raises
    ------
    UnsupportedError
        Without the package asyncssh.
    UsageError
        An argument is wrong; before anything is scanned.
    ClusterError
        The scheduler's host, or every other one, can't be used; or the environment does not fit a host. Each host is
        named.
    LikewiseError
        Anything that goes wrong while the environment is prepared.
    """

    tolerates_lost_workers = True
    nodes_fetch = True

    def __init__(
        self,
        hosts: Sequence[str] | None = None,
        connect_options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        worker_options: Mapping[str, Any] | None = None,
        scheduler_options: Mapping[str, Any] | None = None,
        worker_class: str = "distributed.Nanny",
        remote_python: str | Sequence[str] | None = None,
        *,
        node_cache: str = "auto",
        env: Mapping[str, str] | None = None,
        security: Security | bool | None = None,
        name: str | None = None,
        silence_logs: int | bool = logging.WARN,
        reporter: Reporter | None = None,
        asynchronous: bool = False,
        loop: Any = None,
        **kwargs: Any,
    ) -> None:
        require_asyncssh()
        where = logins(hosts, connect_options)
        own = pythons(remote_python, len(where))
        self._machines = [Machine(login, python) for login, python in zip(where, own, strict=True)]
        self._asks = _asks_hosts(kwargs)
        sync = PackageSync.take(kwargs)
        options = dict(worker_options or {})
        per_host = options.pop("n_workers", 1)
        if not isinstance(per_host, int) or per_host < 1:
            raise UsageError(f"n_workers is {per_host!r}.", where="worker_options", todo="Give 1 or more.")
        self._listen(reporter)
        self._commands = _commands(
            options, scheduler_options or {}, worker_class, env, security, self._cluster_id, self._reporter
        )
        self._node_cache = node_cache
        self._connections = Connections()
        self._shipment: Shipment | None = None
        self._shipping = ExitStack()
        self._dashboard = ""
        self._ship_stage: OpenStage | None = None
        self._scheduler_side: SSHScheduler
        self._first_workers = per_host * (len(where) - 1)
        self._begin_replica(sync, prepare=not asynchronous, known=not self._asks)
        super().__init__(
            n_workers=self._first_workers,
            worker_options={k: v for k, v in options.items() if k in ("nthreads", "memory_limit")},
            reporter=self._reporter,
            security=self._commands.security,
            name=name,
            silence_logs=silence_logs,
            asynchronous=asynchronous,
            loop=loop,
            **kwargs,
        )

    # Before the first process

    async def _prepare(self) -> None:
        if self._asks and self._package_sync.enabled:
            await self._ask_hosts()
        await self._prepare_replica()
        with self._stages.stage("connect", total=len(self._machines), unit="hosts") as stage:
            await connect(self._machines, self._connections, self._node_cache, self._prepared, stage)
        if self._prepared is None:
            return
        stage = self._shipping.enter_context(self._stages.stage("ship"))
        self._ship_stage = stage
        started, uplink = time.perf_counter(), Uplink()
        kit = await push(self._machines, self._prepared, stage)
        uplink.pushed(kit, time.perf_counter() - started)
        stage.did(kit=kit)
        self._shipment = Shipment(
            self._machines[0],
            self._prepared,
            self._cluster_id,
            self._commands.security,
            stage,
            uplink=uplink,
            source=self._source(),
            reporter=self._reporter,
        )
        await self._shipment.start()

    async def _ask_hosts(self) -> None:
        """Let the hosts say what the environment has to be made for."""
        with self._stages.stage("ask", total=len(self._machines), unit="hosts") as stage:
            await connect(self._machines, self._connections, self._node_cache, None, stage)
            name = common_target([one.probe for one in healthy(self._machines) if one.probe is not None])
            self._package_sync = msgspec.structs.replace(self._package_sync, goal=target_named(name))
            stage.summary = name

    async def _bring_up(self, stage: OpenStage) -> None:
        starting = super()._bring_up(stage)
        await (self._shipment.unless_it_fails(starting) if self._shipment is not None else starting)
        await self._find_dashboard()
        if self._shipment is not None and self._ship_stage is not None:
            await self.scheduler_comm.likewise_set_current(hub=self._shipment.hub)
            received = await self._shipment.received()
            self._ship_stage.did(**received)
            self._ship_stage.summary = _shipped({**self._ship_stage.done})
            self._shipping.close()

    async def _offer(self, prepared: Prepared) -> None:
        if self._shipment is not None:
            await self._shipment.offer(prepared)

    def _deliveries(self) -> tuple[Delivery, ...]:
        return self._shipment.layers if self._shipment is not None else ()

    def _delta_sources(self) -> dict[str, str]:
        assert self._shipment is not None
        return {"hub": self._shipment.hub}

    async def _find_dashboard(self) -> None:
        port = self.scheduler_info.get("services", {}).get("dashboard")
        if port:
            scheduler = self._scheduler_side
            host, _ = get_address_host_port(scheduler.address)
            with suppress(LikewiseError):  # a cluster without it is better than none
                self._dashboard = format_dashboard_link(*await scheduler.host.reach(host, port))

    @property
    def dashboard_link(self) -> str:
        """Where a browser on this computer finds the dashboard; "" where there is none."""
        return self._dashboard

    # Processes

    def _prefix(self, machine: Machine) -> list[str]:
        """What runs Python on a host."""
        assert self._prepared is not None and self._shipment is not None
        return machine.launch(self._prepared, self._cluster_id, self._shipment.hub).argv()

    def _scheduler_process(self) -> SSHScheduler:
        machine = self._machines[0]
        assert machine.host is not None
        if self._prepared is None:
            command = self._commands.plain_scheduler(machine.name, machine.python, machine.address)
            self._scheduler_side = PlainScheduler(machine.host, command)
        else:
            command = self._commands.scheduler(machine.name, self._prefix(machine), machine.address)
            self._scheduler_side = SSHScheduler(machine.host, command)
        return self._scheduler_side

    def _worker_process(self, name: Any, scheduler: str | None) -> NodeProcess:
        machine = self._machine_of(name)
        if machine.error is not None or machine.host is None:
            return FailedProcess(f"worker {name}", machine.name, machine.error, name=name)
        if isinstance(self._scheduler_side, PlainScheduler):
            plain = partial(self._commands.plain_worker, machine.name, machine.python, machine.address, name)
            return PlainWorker(machine.host, plain, name=name, scheduler=self._scheduler_side)
        command = self._commands.worker(machine.name, self._prefix(machine), machine.address, name, scheduler)
        early = None if scheduler else self._scheduler_side.announced
        return SSHProcess(machine.host, command, name=name, scheduler=early)

    def _machine_of(self, name: Any) -> Machine:
        """Workers go to the hosts in turn: the first ones to all that were named, later ones to those that work."""
        hosts = self._machines[1:] or self._machines
        if int(name) >= self._first_workers:
            hosts = healthy(hosts)
        return hosts[int(name) % len(hosts)]

    # The end

    async def _close(self) -> None:
        try:
            await super()._close()
        finally:
            if self._shipment is not None:
                await self._shipment.close()
            hosts = {id(machine.host): machine for machine in healthy(self._machines) if machine.host is not None}
            await asyncio.gather(*(self._end_on(machine) for machine in hosts.values()))
            await self._connections.close()

    async def _end_on(self, machine: Machine) -> None:
        """End what is left on a host: the agent, and whatever tasks started and forgot."""
        assert machine.host is not None
        with suppress(LikewiseError, OSError, asyncio.TimeoutError):
            for attempt in range(_END_TRIES):
                script = end_cluster_script(self._cluster_id, "TERM" if attempt < _END_TRIES // 2 else "KILL")
                answer = await asyncio.wait_for(machine.host.run(script), _END_ANSWER)
                if answer.last == "0":
                    return
                await asyncio.sleep(_END_POLL)

    def _cleanup(self) -> None:
        self._end_replica()


def _commands(
    worker: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    worker_class: str,
    env: Mapping[str, str] | None,
    security: Security | bool | None,
    cluster_id: str,
    reporter: Reporter,
) -> Commands:
    """Check the arguments that the processes are made of."""
    nanny, more = nanny_of(worker_class)
    worker = {**worker_flags(worker, nanny=nanny), **more}
    scheduler = {"dashboard": True, "dashboard_address": ":8787", **scheduler_flags(scheduler)}
    check_options(scheduler, _flags(dask_scheduler.main), where="scheduler_options")
    check_options(worker, _flags(dask_worker.main), where="worker_options")
    environ, config = client_environ(
        {}, env, replica=True, notice=lambda text: reporter.report(Notice(message=text, severity="note"))
    )
    # Scratch files go into the process's own folder in the node cache, so that nothing is left anywhere else.
    environ |= dask_environ(dask.config.serialize({**config, "temporary-directory": "."}))
    return Commands(
        nanny=nanny,
        scheduler_options=scheduler,
        worker_options=worker,
        preloads=split_preloads(config, scheduler, worker),
        environ={**environ, "LIKEWISE_CLUSTER": cluster_id},
        security=require_tls(security, check_name=True),
    )


def _asks_hosts(arguments: dict[str, Any]) -> bool:
    """Whether the hosts say what they are; ``package_sync_target`` is then not among `arguments` any more."""
    wanted = arguments.get("package_sync_target")
    asks = wanted == "auto" if wanted is not None else not sys.platform.startswith("linux")
    if asks:
        arguments.pop("package_sync_target", None)
    return asks


def _flags(command: click.Command) -> set[str]:
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}


def _shipped(sizes: Mapping[str, int]) -> str:
    parts = [f"{size / 1e6:.1f} MB from {source}" for source, size in sizes.items() if size]
    return ", ".join(parts) or "nothing to ship"
