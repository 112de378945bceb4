"""What runs on the simulated machines of this computer: options, variables and folders put together to commands."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.config
from distributed.security import Security

from likewise.cluster.certificates import make_security
from likewise.cluster.client_config import portable_config
from likewise.cluster.environ import basic_environ, check_environ, dask_environ, tls_environ
from likewise.cluster.options import scheduler_argv, worker_argv
from likewise.cluster.process import Command
from likewise.errors import UsageError

_SYSTEM_BIN = frozenset({"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"})


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The simulated machines and what is the same on all of them.

    Attributes
    ----------
    count : int
        Number of machines; worker i runs on ``i % count``, the scheduler on 0.
    nanny : bool
    scheduler_options, worker_options : mapping
        For the command line.
    preloads : mapping
        The user's own Dask preloads of ``scheduler``, ``worker`` and ``nanny``.
    environ : mapping
        Variables of every process, without TLS.
    security : distributed.Security
    """

    count: int
    nanny: bool
    scheduler_options: Mapping[str, Any]
    worker_options: Mapping[str, Any]
    preloads: Mapping[str, tuple[str, ...]]
    environ: Mapping[str, str] = field(repr=False)
    security: Security

    def place(self, name: Any) -> int:
        """The machine of the worker `name`."""
        return int(name) % self.count

    def scheduler(self, prefix: Sequence[str], run: Path) -> Command:
        """The scheduler's command; it will write its address to `address_file(run)`."""
        options = {**self.scheduler_options, "scheduler_file": str(address_file(run))}
        argv = scheduler_argv(options, preload=self.preloads["scheduler"])
        environ = {**self.environ, **tls_environ(self.security, "scheduler")}
        return _command("scheduler", 0, [*prefix, *argv], run, environ)

    def worker(self, prefix: Sequence[str], run: Path, name: Any, scheduler: str | None) -> Command:
        """The command of the worker `name`; without an address it waits for the scheduler to write its own."""
        argv = worker_argv(
            self.worker_options,
            name=name,
            nanny=self.nanny,
            scheduler=scheduler or "",
            scheduler_file=str(address_file(run)),
            preload=self.preloads["worker"],
            preload_nanny=self.preloads["nanny"],
        )
        environ = {**self.environ, **tls_environ(self.security, "worker")}
        return _command(f"worker {name}", self.place(name), [*prefix, *argv], run, environ)


def address_file(run: Path) -> Path:
    """Where the scheduler writes its address: how processes that start together find each other without a port that
    somebody else could take first."""
    return run / "scheduler.json"


def node_name(index: int) -> str:
    """What a simulated machine is called."""
    return f"node-{index}"


def _command(label: str, node: int, argv: Sequence[str], run: Path, environ: Mapping[str, str]) -> Command:
    # A folder of its own: `python -m` puts the working directory first on sys.path, and nothing of the user's may
    # be found there that was not shipped.
    return Command(
        label=label, node=node_name(node), argv=tuple(argv), cwd=str(run / node_name(node)), env=dict(environ)
    )


def split_preloads(
    config: Mapping[str, Any], scheduler_options: Mapping[str, Any], worker_options: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """The user's preloads: from the options, else from the configuration `config` that the nodes get.

    Dask's commands forget the configured ones where an option names any, and ours always do.
    """

    def of(role: str, given: Any = None) -> tuple[str, ...]:
        value = given or dask.config.get(f"distributed.{role}.preload", [], config=dict(config)) or []
        return (value,) if isinstance(value, str) else tuple(value)

    return {
        "scheduler": of("scheduler", scheduler_options.get("preload")),
        "worker": of("worker", worker_options.get("preload")),
        "nanny": of("nanny"),
    }


def client_environ(
    client: Mapping[str, str], env: Mapping[str, str] | None, *, replica: bool, notice: Callable[[str], None]
) -> tuple[dict[str, str], dict[str, Any]]:
    """The variables of every process, and the Dask configuration in them.

    Parameters
    ----------
    client : mapping
        The client's variables.
    env : mapping, optional
        What the user asked for.
    replica : bool
        Whether the nodes run in a replica: then the client's own programs leave ``PATH``.
    notice : callable
        Told what part of the configuration stays on the client.
    """
    config, left_out = portable_config(dask.config.config, dask.config.merge(*dask.config.defaults))
    if left_out:
        notice(f"These parts of your Dask configuration stay on the client: {', '.join(left_out)}.")
    own = {sysconfig.get_path("scripts")} - _SYSTEM_BIN if replica else set()
    environ = {
        **basic_environ(client, without=own),
        **check_environ(env),
        **dask_environ(dask.config.serialize(config)),
    }
    return environ, config


def require_tls(security: Security | bool | None, *, check_name: bool = False) -> Security:
    """The credentials of the cluster: given, or made for it alone (with `check_name` as in `ClusterSecurity`).

    Raises
    ------
    UsageError
        When they would leave connections in the clear.
    """
    if security is None or security is True:
        return make_security(check_name=check_name)
    needed = ["tls_ca_file", *(f"tls_{role}_cert" for role in ("client", "scheduler", "worker"))]
    if not isinstance(security, Security) or not all(getattr(security, name) for name in needed):
        raise UsageError(
            "Connections between client and nodes always use TLS, and `security` can't provide it.",
            where="security",
            todo="Leave it out for temporary certificates, or give one with a CA and certificates for all roles.",
        )
    return security
