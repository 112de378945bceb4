"""From options to command lines. Pure: nothing here starts a process or asks the machine.

Every backend runs ``<argv prefix> -m distributed.cli.dask_worker …``; they differ only in how they run it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dask.utils import parse_bytes

from likewise.errors import UnsupportedError, UsageError
from likewise.model.plan import Plan
from likewise.model.target import Target

LIFELINE = "likewise.cluster.lifeline"
"""Dask preload that ends the process when its standard input reaches its end: when the client is gone."""

OWN_CONFIG = "likewise.cluster.own_config"
"""Dask preload that forgets what the machine's own Dask configuration files say."""

SCHEDULER_SIDE = "likewise.cluster.scheduler_side"
"""Dask preload that tells which environment is the current one, and helps to replace workers."""

SCHEDULER_FILE = "scheduler.json"
"""Where a worker on another machine, started before its scheduler has an address, waits for it: in its own working
directory."""

RESERVED = frozenset(
    {"--protocol", "--scheduler-file", "--tls-ca-file", "--tls-cert", "--tls-key", "--name", "--nanny", "--no-nanny"}
    | {"--nworkers", "--preload-nanny", "--pid-file"}
)
"""Flags that a cluster itself gives to scheduler and workers."""

LATE_DASHBOARD = "likewise.cluster.late_dashboard"
"""Dask preload that brings the dashboard when the scheduler already works."""

_SYSTEMS = {"darwin": "macOS", "win32": "Windows", "cygwin": "Windows"}


def require_local_target(goal: Target | Plan | None, machine: str) -> None:
    """Refuse nodes on this computer that are another platform than it is.

    Parameters
    ----------
    goal : Target, Plan or None
        As ``package_sync_target``.
    machine : str
        As of `platform.machine`.

    Raises
    ------
    UsageError
    """
    target = goal.target if isinstance(goal, Plan) else goal
    if target is not None and (target.platform.os, target.platform.arch) != ("linux", machine):
        raise UsageError(
            f"The nodes of this cluster are on this computer, which is linux-{machine} and not {target.platform}.",
            where="package_sync_target",
            todo="Use SSHCluster or a job queue for nodes of another platform.",
        )


def require_local_nodes(platform: str) -> None:
    """Refuse to simulate nodes on a computer that can't be one.

    Parameters
    ----------
    platform : str
        As in `sys.platform`.

    Raises
    ------
    UnsupportedError
        On anything but Linux.
    """
    if not platform.startswith("linux"):
        system = _SYSTEMS.get(platform, platform)
        raise UnsupportedError(
            f"Nodes run Linux, so they can't be simulated on {system}: use SSHCluster to run them on Linux machines.",
            details={"platform": platform},
        )


def cluster_shape(n_workers: int | None, threads: int | None, cores: int) -> tuple[int, int]:
    """How many workers with how many threads each, as `distributed.LocalCluster` chooses.

    Parameters
    ----------
    n_workers, threads : int, optional
        What the user asked for.
    cores : int
        Cores of the machine (of all simulated nodes together).

    Raises
    ------
    UsageError
        For a negative number of workers, or less than one thread.
    """
    if n_workers is not None and n_workers < 0:
        raise UsageError(f"n_workers is {n_workers}.", todo="Give 0 or more.")
    if threads is not None and threads < 1:
        raise UsageError(f"threads_per_worker is {threads}.", todo="Give 1 or more.")
    if n_workers is None and threads is None:
        n_workers = _processes(cores)
        return n_workers, cores // n_workers
    if n_workers is None:
        assert threads is not None
        return max(1, cores // threads), threads
    return n_workers, threads or max(1, math.ceil(cores / max(1, n_workers)))


def _processes(cores: int) -> int:
    # The rule of distributed.deploy.utils.nprocesses_nthreads, whose default is evaluated at import.
    if cores <= 4:
        return max(1, cores)
    return min(f for f in range(1, cores + 1) if cores % f == 0 and f >= math.sqrt(cores))


def memory_bytes(limit: float | str | None, n_workers: int, total: int) -> int:
    """The memory limit of one worker in bytes, 0 for none, with the meanings of `distributed.LocalCluster`.

    Parameters
    ----------
    limit : int, float, str or None
        Bytes, a fraction of all memory (a float of at most 1), text such as ``"4 GiB"``, ``"auto"`` for an equal
        share, None or 0 for no limit.
    n_workers : int
    total : int
        Memory of the machine in bytes.

    Raises
    ------
    UsageError
        When the limit can't be understood.
    """
    if limit is None or limit == 0:
        return 0
    if limit == "auto":
        return total // max(1, n_workers)
    if isinstance(limit, float) and limit <= 1:
        return int(limit * total)
    try:
        return int(parse_bytes(limit))
    except ValueError as error:
        raise UsageError(f"memory_limit is {limit!r}.", todo='Give bytes, text such as "4 GiB", or "auto".') from error


def render_options(options: Mapping[str, Any], *, where: str = "options") -> list[str]:
    """`options` in the spelling of Dask's commands: ``memory_limit=1`` becomes ``--memory-limit 1``.

    None is left out, a bool becomes ``--name`` or ``--no-name``, a list repeats the option, and a mapping becomes
    ``"GPU=2 MEM=10"`` as ``--resources`` wants it.

    Raises
    ------
    UsageError
        For a value that can't be written on a command line.
    """
    argv: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            argv.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, Mapping):
            pairs = [f"{k}={_word(v, f'{where}[{name!r}]')}" for k, v in value.items()]
            argv += [f"--{flag}", " ".join(pairs)] if pairs else []
        elif isinstance(value, (list, tuple)):
            for item in value:
                argv += [f"--{flag}", _word(item, f"{where}[{name!r}]")]
        else:
            argv += [f"--{flag}", _word(value, f"{where}[{name!r}]")]
    return argv


def _word(value: Any, where: str) -> str:
    if isinstance(value, (str, int, float)) and "\0" not in str(value):
        return str(value)
    raise UsageError(
        f"{value!r} can't be written on a command line.", where=where, todo="Give a string, a number or a bool."
    )


def check_options(
    options: Mapping[str, Any], known: Collection[str], *, where: str, reserved: Collection[str] = RESERVED
) -> None:
    """Refuse options that Dask's command does not have or that are not the user's, before any process is started.

    Parameters
    ----------
    options : mapping
    known : collection of str
        Every ``--flag`` of the command, ``--no-…`` included.
    where : str
        Name of the argument, for the error.
    reserved : collection of str
        Flags that the cluster itself gives.

    Raises
    ------
    UsageError
        Naming the options.
    """
    flags = {name: f"--{name.replace('_', '-')}" for name in options}
    taken = sorted(name for name, flag in flags.items() if flag in reserved)
    if taken:
        raise UsageError(
            f"{', '.join(taken)} is set by the cluster itself.",
            where=where,
            todo="Leave it out.",
            details={"taken": taken},
        )
    unknown = sorted(name for name, flag in flags.items() if flag not in known)
    if unknown:
        raise UsageError(
            f"Dask's command has no option {', '.join(unknown)}.",
            where=where,
            todo="See `dask worker --help` and `dask scheduler --help`.",
            details={"unknown": unknown},
        )


def scheduler_argv(options: Mapping[str, Any], *, preload: Sequence[str] = ()) -> list[str]:
    """What follows the argv prefix to run a scheduler. Its dashboard comes late, where nothing needs it at once."""
    ours: dict[str, Any] = {"preload": [OWN_CONFIG, LIFELINE, SCHEDULER_SIDE, *preload]}
    if options.get("dashboard") and not options.keys() & {"dashboard_prefix", "jupyter"}:
        ours = {"dashboard": False, "preload": [OWN_CONFIG, LIFELINE, SCHEDULER_SIDE, LATE_DASHBOARD, *preload]}
    return ["-m", "distributed.cli.dask_scheduler", *render_options({**options, **ours}, where="scheduler_options")]


def worker_argv(
    options: Mapping[str, Any],
    *,
    name: object,
    nanny: bool = True,
    scheduler: str = "",
    scheduler_file: str = "",
    preload: Sequence[str] = (),
    preload_nanny: Sequence[str] = (),
) -> list[str]:
    """What follows the argv prefix to run a worker.

    Parameters
    ----------
    options : mapping
        Options of ``dask worker``.
    name : object
        Name of the worker; unique in its cluster.
    nanny : bool
        Whether a nanny watches over it.
    scheduler : str
        The scheduler's address, or
    scheduler_file : str
        a file that will hold it once the scheduler listens.
    preload, preload_nanny : sequence of str
        The user's own, since Dask ignores its configuration where the command line names any.
    """
    target = [scheduler] if scheduler else ["--scheduler-file", scheduler_file]
    ours = {"name": str(name), "nanny": nanny, "preload": [OWN_CONFIG, LIFELINE, *preload]}
    if nanny:
        ours["preload_nanny"] = list(preload_nanny)
    rendered = render_options({**options, **ours}, where="worker_options")
    return ["-m", "distributed.cli.dask_worker", *target, *rendered]
