"""Nodes that are processes on this computer, each simulated machine with a node cache of its own."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import dask.config
from dask.system import CPU_COUNT
from distributed.cli import dask_scheduler, dask_worker
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from likewise.arguments import levels, names, source
from likewise.cluster.base import NodeCluster
from likewise.cluster.commands import Nodes, address_file, client_environ, node_name, require_tls, split_preloads
from likewise.cluster.local_process import LocalProcess, LocalScheduler
from likewise.cluster.options import (
    check_options,
    cluster_shape,
    memory_bytes,
    require_local_nodes,
    require_local_target,
)
from likewise.cluster.process import NodeProcess
from likewise.cluster.replica import PackageSync, Replica, goal
from likewise.errors import UsageError
from likewise.events import Notice, Reporter
from likewise.model.plan import Plan
from likewise.model.target import Target
from likewise.settings import resolve_settings

if TYPE_CHECKING:
    pass

_HOST = "127.0.0.1"


class Cluster(Replica, NodeCluster):
    """A Dask cluster on this computer whose scheduler and workers run in a replica of your environment.

    Workers run in a folder of their own, so relative paths do not lead to the client's files.

    Parameters
    ----------
    n_workers, threads_per_worker : int, optional
        Default: from the number of cores, as `distributed.LocalCluster` does.
    memory_limit : int, float, str or None
        Of one worker: bytes, a fraction of all memory, ``"4 GiB"``, ``"auto"`` (an equal share), None for no limit.
    nanny : bool
        Whether each worker is watched and restarted by a nanny.
    nodes : int
        Number of machines to simulate: worker i runs on node ``i % nodes``, the scheduler on node 0.
    node_cache : path, optional
        Folder below which each node has its cache. Default: below the user's cache folder.
    package_sync : bool
        False: plain Dask in this prefix, nothing is scanned or copied (as a comparison).
    package_sync_strict, package_sync_ignore, package_sync_only, package_sync_fail_on
        See `likewise.planner.options.PlanOptions`. Default: the settings below ``likewise.plan``.
    package_sync_level : mapping of str to str, optional
        Distribution -> ``"exact"``, ``"minor"`` or ``"any"``: how far its version may move on another platform.
    package_sync_extras : list of str, optional
        Requirements (PEP 508) for the cluster alone: wheels beside what is installed here.
    package_sync_conda_extras : list of str, optional
        Match specs of conda packages for the cluster alone, where this prefix is one of conda's. Its own packages stay
        as they are.
    package_sync_target : str, Target or Plan, optional
        A plan to carry out (of `likewise.plan`, for the platform of this computer). Default: a copy of this prefix.
    package_sync_source : str, optional
        As in `likewise.SSHCluster`. Nodes on this computer get everything from this computer.
    auto_sync : bool
        Whether the client of `get_client` looks for changes before it sends work, and then calls `sync`.
    env : mapping of str to str, optional
        Environment variables for the nodes. Of the client's own they get only what every login session has.
    security : distributed.Security, optional
        Default: temporary certificates of this cluster. TLS is always on.
    dashboard_address : str or None
        Where the scheduler serves its dashboard; None for nowhere.
    local_directory : path, optional
        Where workers put what they spill.
    resources : mapping of str to float, optional
        Of each worker, for task constraints.
    death_timeout : str or float
        Time after which a worker that can't reach its scheduler ends.
    scheduler_options, worker_options : mapping, optional
        Further options of ``dask scheduler`` and ``dask worker``: ``{"lifetime": "1h"}``.
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
        On macOS and Windows, before anything else.
    UsageError
        An argument is wrong; before anything is scanned.
    ClusterError
        A process could not be started; its last words are in the message.
    LikewiseError
        Anything that goes wrong while the environment is prepared.
    """

    def __init__(
        self,
        n_workers: int | None = None,
        threads_per_worker: int | None = None,
        *,
        memory_limit: float | str | None = "auto",
        nanny: bool = True,
        nodes: int = 1,
        node_cache: str | os.PathLike[str] | None = None,
        package_sync: bool = True,
        package_sync_strict: bool | None = None,
        package_sync_ignore: Iterable[str] | None = None,
        package_sync_only: Iterable[str] | None = None,
        package_sync_level: Mapping[str, str] | None = None,
        package_sync_extras: Iterable[str] | None = None,
        package_sync_conda_extras: Iterable[str] | None = None,
        package_sync_fail_on: str | None = None,
        package_sync_target: str | Target | Plan | None = None,
        package_sync_source: str | None = None,
        auto_sync: bool = False,
        env: Mapping[str, str] | None = None,
        security: Security | bool | None = None,
        dashboard_address: str | None = ":8787",
        local_directory: str | os.PathLike[str] | None = None,
        resources: Mapping[str, float] | None = None,
        death_timeout: str | float | None = "60s",
        scheduler_options: Mapping[str, Any] | None = None,
        worker_options: Mapping[str, Any] | None = None,
        name: str | None = None,
        silence_logs: int | bool = logging.WARN,
        reporter: Reporter | None = None,
        asynchronous: bool = False,
        loop: Any = None,
    ) -> None:
        require_local_nodes(sys.platform)
        n_workers, threads = cluster_shape(n_workers, threads_per_worker, CPU_COUNT)
        memory = memory_bytes(memory_limit, n_workers, MEMORY_LIMIT)
        scheduler = {
            "dashboard": dashboard_address is not None,
            "dashboard_address": dashboard_address or f"{_HOST}:0",
            **(scheduler_options or {}),
        }
        worker = {
            "nthreads": threads,
            "memory_limit": memory,
            "local_directory": _absolute(local_directory or dask.config.get("temporary-directory", None)),
            "resources": resources,
            "death_timeout": death_timeout,
            **(worker_options or {}),
        }
        sync = PackageSync(
            enabled=package_sync,
            strict=package_sync_strict,
            ignore=names(package_sync_ignore, "package_sync_ignore"),
            only=names(package_sync_only, "package_sync_only"),
            level=levels(package_sync_level, "package_sync_level"),
            extras=names(package_sync_extras, "package_sync_extras"),
            conda_extras=names(package_sync_conda_extras, "package_sync_conda_extras"),
            fail_on=package_sync_fail_on,
            goal=goal(package_sync_target),
            source=source(package_sync_source, "package_sync_source"),
            auto=auto_sync,
        )
        require_local_target(sync.goal, platform.machine())
        self._listen(reporter)
        cluster_id = self._cluster_id if package_sync else ""
        self._nodes = _nodes(scheduler, worker, nodes, nanny, env, security, cluster_id, self._reporter)
        self._node_cache = Path(node_cache or resolve_settings().node).expanduser().absolute()
        self._run: Path | None = None
        self._begin_replica(sync, prepare=not asynchronous)
        super().__init__(
            n_workers=n_workers,
            worker_options={"nthreads": threads, "memory_limit": memory},
            reporter=self._reporter,
            security=self._nodes.security,
            name=name,
            silence_logs=silence_logs,
            asynchronous=asynchronous,
            loop=loop,
        )

    def _shares_store(self) -> bool:
        from likewise.sync import open_store

        return open_store().loose.can_serve(self._node_cache)

    async def _prepare(self) -> None:
        await self._prepare_replica()
        self._run = Path(tempfile.mkdtemp(prefix="likewise-"))
        for index in range(self._nodes.count):
            (self._run / node_name(index)).mkdir()

    def _prefix(self, node: int) -> list[str]:
        """What runs Python on a node."""
        if self._prepared is None:
            return [sys.executable]
        return list(self._prepared.launch(self._node_cache / node_name(node)).argv())

    def _scheduler_process(self) -> LocalScheduler:
        assert self._run is not None
        return LocalScheduler(self._nodes.scheduler(self._prefix(0), self._run), address_file=address_file(self._run))

    def _worker_process(self, name: Any, scheduler: str | None) -> NodeProcess:
        assert self._run is not None
        prefix = self._prefix(self._nodes.place(name))
        return LocalProcess(self._nodes.worker(prefix, self._run, name, scheduler), name=name)

    def _cleanup(self) -> None:
        self._end_replica()
        if self._run is not None:
            shutil.rmtree(self._run, ignore_errors=True)


def _nodes(
    scheduler: Mapping[str, Any],
    worker: Mapping[str, Any],
    count: int,
    nanny: bool,
    env: Mapping[str, str] | None,
    security: Security | bool | None,
    cluster_id: str,
    reporter: Reporter,
) -> Nodes:
    """Check the arguments that the nodes are made of; `cluster_id` is empty without a replica."""
    if count < 1:
        raise UsageError(f"nodes is {count}.", todo="Give 1 or more.")
    check_options(scheduler, _flags(dask_scheduler.main), where="scheduler_options")
    check_options(worker, _flags(dask_worker.main), where="worker_options")
    environ, config = client_environ(
        os.environ,
        env,
        replica=bool(cluster_id),
        notice=lambda text: reporter.report(Notice(message=text, severity="note")),
    )
    if cluster_id:
        environ["LIKEWISE_CLUSTER"] = cluster_id
    return Nodes(
        count=count,
        nanny=nanny,
        scheduler_options={"host": _HOST, "port": 0, "protocol": "tls", **scheduler},
        worker_options={"host": _HOST, "dashboard": False, "dashboard_address": f"{_HOST}:0", **worker},
        preloads=split_preloads(config, scheduler, worker),
        environ=environ,
        security=require_tls(security),
    )


def _absolute(path: str | os.PathLike[str] | None) -> str | None:
    return os.path.abspath(path) if path else None


def _flags(command: click.Command) -> set[str]:
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
