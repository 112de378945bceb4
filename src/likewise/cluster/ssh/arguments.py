"""The arguments of SSHCluster, which are those of `dask.distributed.SSHCluster`: checked, and put into commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed.security import Security

from likewise.cluster.environ import tls_environ
from likewise.cluster.options import SCHEDULER_FILE, render_options, scheduler_argv, worker_argv
from likewise.cluster.process import Command
from likewise.errors import UsageError

_NANNIES = {"distributed.Nanny", "dask.distributed.Nanny", "distributed.nanny.Nanny"}
_WORKERS = {"distributed.Worker", "dask.distributed.Worker", "distributed.worker.Worker"}


@dataclass(frozen=True)
class Login:
    """A host of the cluster, and how to log in there: keywords of `asyncssh.connect`."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def logins(
    hosts: Sequence[str] | None, connect_options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
) -> tuple[Login, ...]:
    """One login for each of `hosts`.

    Raises
    ------
    UsageError
        Without hosts, or when there is not one element of `connect_options` for each.
    """
    if isinstance(hosts, str) or not hosts or not all(isinstance(host, str) for host in hosts):
        raise UsageError(
            f"hosts is {hosts!r}, and not a list of names.",
            where="hosts",
            todo="The first one is for the scheduler, the others are for workers.",
        )
    if connect_options is None or isinstance(connect_options, Mapping):
        return tuple(Login(host, connect_options or {}) for host in hosts)
    if len(connect_options) != len(hosts):
        raise UsageError(
            f"connect_options has {len(connect_options)} elements for {len(hosts)} hosts.", where="connect_options"
        )
    return tuple(Login(host, options) for host, options in zip(hosts, connect_options, strict=True))


def pythons(remote_python: str | Sequence[str] | None, hosts: int) -> tuple[str, ...]:
    """The Python of each host for a cluster that is no replica.

    Raises
    ------
    UsageError
        When there is not one for each of the `hosts`.
    """
    if remote_python is None or isinstance(remote_python, str):
        return (remote_python or "python3",) * hosts
    if len(remote_python) != hosts:
        raise UsageError(f"remote_python has {len(remote_python)} elements for {hosts} hosts.", where="remote_python")
    return tuple(remote_python)


def nanny_of(worker_class: str) -> tuple[bool, dict[str, Any]]:
    """Whether `worker_class` means a nanny, and the further options of ``dask worker`` for another class."""
    if worker_class in _NANNIES:
        return True, {}
    if worker_class in _WORKERS:
        return False, {}
    return True, {"worker_class": worker_class}


def worker_flags(options: Mapping[str, Any], *, nanny: bool) -> dict[str, Any]:
    """Keywords of `distributed.Nanny` or `distributed.Worker` in the spelling of ``dask worker``."""
    port = "nanny_port" if nanny else "worker_port"
    spelling = {"port": port, "http_prefix": "dashboard_prefix", "ncores": "nthreads"}
    return {spelling.get(name, name): value for name, value in options.items()}


def scheduler_flags(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `distributed.Scheduler` in the spelling of ``dask scheduler``."""
    return {{"http_prefix": "dashboard_prefix"}.get(name, name): value for name, value in options.items()}


@dataclass(frozen=True, kw_only=True)
class Commands:
    """What runs on the hosts.

    Attributes
    ----------
    nanny : bool
    scheduler_options, worker_options : mapping
        For the command lines.
    preloads : mapping
        The user's own Dask preloads of ``scheduler``, ``worker`` and ``nanny``.
    environ : mapping
        Variables of every process, without TLS.
    security : distributed.Security
    """

    nanny: bool
    scheduler_options: Mapping[str, Any]
    worker_options: Mapping[str, Any]
    preloads: Mapping[str, tuple[str, ...]]
    environ: Mapping[str, str] = field(repr=False)
    security: Security = field(repr=False)

    def scheduler(self, node: str, prefix: Sequence[str], address: str) -> Command:
        """The scheduler's command; it listens at `address`."""
        options = {**_listen(address, self.scheduler_options), "port": 0, "protocol": "tls", **self.scheduler_options}
        argv = scheduler_argv(options, preload=self.preloads["scheduler"])
        return self._command("scheduler", node, [*prefix, *argv], "scheduler")

    def worker(self, node: str, prefix: Sequence[str], address: str, name: Any, scheduler: str | None) -> Command:
        """The command of the worker `name`; without the scheduler's address it waits until it is told."""
        options = {
            **_listen(address, self.worker_options),
            "dashboard": False,
            "dashboard_address": _at(address, 0),
            **self.worker_options,
        }
        argv = worker_argv(
            options,
            name=name,
            nanny=self.nanny,
            scheduler=scheduler or "",
            scheduler_file=SCHEDULER_FILE,
            preload=self.preloads["worker"],
            preload_nanny=self.preloads["nanny"],
        )
        return self._command(f"worker {name}", node, [*prefix, *argv], "worker")

    def plain_scheduler(self, node: str, python: str, address: str) -> Command:
        """The scheduler's command in a host's own prefix."""
        options = {**_listen(address, self.scheduler_options), "port": 0, "protocol": "tls", **self.scheduler_options}
        argv = [python, "-m", "distributed.cli.dask_scheduler", *render_options(options, where="scheduler_options")]
        return self._command("scheduler", node, argv, "scheduler")

    def plain_worker(self, node: str, python: str, address: str, name: Any, scheduler: str) -> Command:
        """The command of the worker `name` in a host's own prefix."""
        options = {**_listen(address, self.worker_options), "dashboard": False, **self.worker_options}
        options |= {"name": str(name), "nanny": self.nanny}
        argv = ["-m", "distributed.cli.dask_worker", scheduler, *render_options(options, where="worker_options")]
        return self._command(f"worker {name}", node, [python, *argv], "worker")

    def _command(self, label: str, node: str, argv: Sequence[str], role: Any) -> Command:
        environ = {**self.environ, **tls_environ(self.security, role)}
        return Command(label=label, node=node, argv=tuple(argv), cwd="", env=environ)


def _listen(address: str, options: Mapping[str, Any]) -> dict[str, str]:
    chosen = {"host", "interface", "listen_address"} & options.keys()
    return {"host": address} if address and not chosen else {}


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
