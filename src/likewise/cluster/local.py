"""Nodes that are processes on this computer, each simulated machine with a node cache of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import dask.config
import msgspec
from dask.system import CPU_COUNT
from distributed import Client
from distributed.cli import dask_scheduler, dask_worker
from distributed.core import Status
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from likewise.cluster.base import NodeCluster
from likewise.cluster.commands import Nodes, address_file, client_environ, node_name, require_tls, split_preloads
from likewise.cluster.environment import Environment, environment_of
from likewise.cluster.options import check_options, cluster_shape, memory_bytes, require_local_nodes
from likewise.cluster.process import NodeProcess, SchedulerProcess
from likewise.cluster.verify import client_differences, verify_nodes
from likewise.console.render import ConsoleReporter, default_reporter
from likewise.errors import ClusterError, UsageError, VerifyError
from likewise.events import Notice, Reporter
from likewise.model.report import LaunchReport
from likewise.model.verify import VerifyReport
from likewise.settings import resolve_settings

if TYPE_CHECKING:
    from likewise.sync import Prepared

_HOST = "127.0.0.1"


class Cluster(NodeCluster):
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
        See `likewise.plan.planner.PlanOptions`.
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
        package_sync_strict: bool = False,
        package_sync_ignore: Iterable[str] = (),
        package_sync_only: Iterable[str] = (),
        package_sync_fail_on: str = "critical-only",
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
        self._reporter = reporter or default_reporter()
        self._own_reporter = reporter is None
        self._nodes = _nodes(scheduler, worker, nodes, nanny, env, security, package_sync, self._reporter)
        self._node_cache = Path(node_cache or resolve_settings().node).expanduser().absolute()
        self._plan_options: dict[str, Any] = {
            "strict": package_sync_strict,
            "ignore": _names(package_sync_ignore, "package_sync_ignore"),
            "only": _names(package_sync_only, "package_sync_only"),
            "fail_on": package_sync_fail_on,
        }
        self._package_sync = package_sync
        self._prepared: Prepared | None = None
        self._run: Path | None = None
        if package_sync and not asynchronous:  # in the caller's thread, where Ctrl-C arrives
            self._prepared = self._prepare_environment()
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

    @property
    def environment(self) -> Environment | None:
        """What the nodes run: its id and distributions. None with ``package_sync=False``."""
        return environment_of(self._prepared.manifest) if self._prepared else None

    @property
    def report(self) -> LaunchReport:
        """What each stage of the launch did, and how long it took."""
        prepared = self._prepared.report.stages if self._prepared else ()
        return LaunchReport(stages=(*prepared, *super().report.stages))

    def verify(self, *, timeout: float = 600, raise_on_difference: bool = False) -> VerifyReport:
        """Check that every node runs exactly the manifest, and that the manifest is still your environment.

        Every file on every node is read. Computations go on meanwhile.

        Parameters
        ----------
        timeout : float
            Seconds that each node has for its report.
        raise_on_difference : bool
            Whether a difference is an error.

        Returns
        -------
        VerifyReport
            Awaitable in an asynchronous cluster.

        Raises
        ------
        UsageError
            When nothing was replicated (``package_sync=False``).
        ClusterError
            When the cluster is closed, or has lost its scheduler.
        VerifyError
            With `raise_on_difference`, when anything differs.
        """
        if not self._package_sync:
            raise UsageError(
                "There is no replica to verify: this cluster runs in the nodes' own prefix.",
                where=str(self.name),
                todo="Start it without package_sync=False.",
            )
        if self.status is not Status.running or self.scheduler.status is not Status.running:
            raise ClusterError("The cluster does not run.", where=str(self.name), todo="Start a new one.")
        return self.sync(self._verify, timeout, raise_on_difference)  # type: ignore[no-any-return]

    async def _verify(self, timeout: float, raise_on_difference: bool) -> VerifyReport:
        assert self._prepared is not None
        looking = asyncio.get_running_loop().run_in_executor(None, client_differences, self._prepared.drift)
        try:
            async with Client(self, asynchronous=True, set_as_default=False) as client:
                nodes = self._processes_by_address()
                report = await verify_nodes(client, nodes, self._prepared.manifest, timeout=timeout)
        except OSError as error:
            raise ClusterError(f"The scheduler can't be reached: {error}.", where=str(self.name)) from error
        finally:
            differences = await looking
        report = msgspec.structs.replace(report, differences=(*report.differences, *differences))
        if raise_on_difference and not report.ok:
            raise VerifyError(
                f"The cluster differs from its manifest in {len(report.differences)} places.",
                where=str(self.name),
                todo="Look at cluster.verify().differences, and start the cluster again.",
                details={"differences": msgspec.to_builtins(report.differences)},
            )
        return report

    def _prepare_environment(self) -> Prepared:
        from likewise.sync import PlanOptions, prepare  # plain Dask needs none of it

        try:
            return prepare(PlanOptions(**self._plan_options), reporter=self._reporter)
        except BaseException:
            self._end_show()
            raise

    def _end_show(self) -> None:
        """Leave the terminal as it was, where the reporter is our own."""
        if self._own_reporter and isinstance(self._reporter, ConsoleReporter):
            self._reporter.close()

    async def _prepare(self) -> None:
        if self._package_sync and self._prepared is None:
            preparing = asyncio.get_running_loop().run_in_executor(None, self._prepare_environment)
            try:
                self._prepared = await asyncio.shield(preparing)
            except asyncio.CancelledError:
                preparing.add_done_callback(_give_back)
                raise
        self._run = Path(tempfile.mkdtemp(prefix="likewise-"))
        for index in range(self._nodes.count):
            (self._run / node_name(index)).mkdir()

    def _prefix(self, node: int) -> list[str]:
        """What runs Python on a node."""
        if self._prepared is None:
            return [sys.executable]
        return list(self._prepared.launch(self._node_cache / node_name(node)).argv())

    def _scheduler_process(self) -> SchedulerProcess:
        assert self._run is not None
        return SchedulerProcess(self._nodes.scheduler(self._prefix(0), self._run), address_file=address_file(self._run))

    def _worker_process(self, name: Any, scheduler: str | None) -> NodeProcess:
        assert self._run is not None
        prefix = self._prefix(self._nodes.place(name))
        return NodeProcess(self._nodes.worker(prefix, self._run, name, scheduler), name=name)

    def _cleanup(self) -> None:
        self._end_show()
        if self._prepared is not None:
            self._prepared.close()
        if self._run is not None:
            shutil.rmtree(self._run, ignore_errors=True)


def _nodes(
    scheduler: Mapping[str, Any],
    worker: Mapping[str, Any],
    count: int,
    nanny: bool,
    env: Mapping[str, str] | None,
    security: Security | bool | None,
    replica: bool,
    reporter: Reporter,
) -> Nodes:
    """Check the arguments that the nodes are made of."""
    if count < 1:
        raise UsageError(f"nodes is {count}.", todo="Give 1 or more.")
    check_options(scheduler, _flags(dask_scheduler.main), where="scheduler_options")
    check_options(worker, _flags(dask_worker.main), where="worker_options")
    environ, config = client_environ(
        os.environ, env, replica=replica, notice=lambda text: reporter.report(Notice(message=text, severity="note"))
    )
    return Nodes(
        count=count,
        nanny=nanny,
        scheduler_options={"host": _HOST, "port": 0, "protocol": "tls", **scheduler},
        worker_options={"host": _HOST, "dashboard": False, "dashboard_address": f"{_HOST}:0", **worker},
        preloads=split_preloads(config, scheduler, worker),
        environ=environ,
        security=require_tls(security),
    )


def _names(names: Iterable[str], where: str) -> tuple[str, ...]:
    if isinstance(names, str):  # it would be taken for a list of letters
        raise UsageError(f"A single name, {names!r}, is no list of names.", where=where, todo=f"Write [{names!r}].")
    return tuple(names)


def _absolute(path: str | os.PathLike[str] | None) -> str | None:
    return os.path.abspath(path) if path else None


def _flags(command: click.Command) -> set[str]:
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}


def _give_back(preparing: asyncio.Future[Prepared]) -> None:
    if not preparing.cancelled() and preparing.exception() is None:
        preparing.result().close()
