"""Other workers in the place of those that are there: the new ones come, then the old ones give up what they have.

Works for every `distributed.SpecCluster`: it knows names of specs, the scheduler knows addresses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from distributed import Client

from likewise.cluster.node_side import known_workers
from likewise.errors import ClusterError, LikewiseError

_POLL = 0.05  # seconds between looks for new workers
_MOVE_AGAIN = 3  # times that moving data is tried


def members(cluster: Any, name: Any) -> frozenset[str]:
    """Names that the scheduler knows the workers of the spec `name` by; a job may have several."""
    spec = cluster.worker_spec.get(name) or cluster.new_spec or {}
    return frozenset(f"{name}{suffix}" for suffix in spec.get("group", [""]))


def addresses_of(cluster: Any, names: Iterable[Any]) -> list[str]:
    """Addresses of the workers of these specs that are in the cluster now."""
    wanted = frozenset[str]().union(*(members(cluster, name) for name in names))
    return [address for address, info in cluster.scheduler_info["workers"].items() if str(info["name"]) in wanted]


def specs_of(cluster: Any, addresses: Collection[str]) -> list[Any]:
    """Names of the specs that the workers at these addresses belong to; a stranger's has none."""
    workers = cluster.scheduler_info["workers"]
    named = {str(workers[address]["name"]) for address in addresses if address in workers}
    return [name for name in cluster.worker_spec if members(cluster, name) & named]


def away(cluster: Any) -> list[Any]:
    """Names of the specs whose workers were lost, as long as Dask expects that a nanny starts them again."""
    names = (name for name in cluster.worker_spec if name in cluster.workers and members(cluster, name) & cluster._away)
    return [name for name in names if not _has_ended(cluster.workers[name])]


async def returned(cluster: Any, timeout: float) -> None:
    """Wait until workers that were lost are back, or are given up; at most `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while away(cluster) and time.monotonic() < deadline:
        await asyncio.sleep(_POLL)


async def start_successors(cluster: Any, names: Sequence[Any], timeout: float) -> list[Any]:
    """Start one worker for each of the specs `names`, and wait until all have joined; the names of the new specs.

    Parameters
    ----------
    cluster : distributed.SpecCluster
    names : sequence
    timeout : float
        Seconds.

    Raises
    ------
    LikewiseError
        When one of them does not start or join. None of the new ones is left then.
    """
    new: list[Any] = []
    for name in names:
        ((successor, _),) = cluster.new_worker_spec().items()
        cluster.worker_spec[successor] = cluster.worker_spec[name]
        new.append(successor)
    try:
        await cluster._correct_state()
        await _joined(cluster, new, timeout)
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(end(cluster, new)))
        raise
    return new


async def _joined(cluster: Any, names: Sequence[Any], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        present = {str(info["name"]) for info in cluster.scheduler_info["workers"].values()}
        missing = [name for name in names if not members(cluster, name) <= present]
        if not missing:
            return
        for name in missing:
            process = cluster.workers.get(name)
            if process is not None and _has_ended(process):
                raise process.failure("ended before it joined the cluster")
            if process is None:
                raise ClusterError(
                    f"The new worker {name} ended before it joined the cluster.", where=str(cluster.name)
                )
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{len(missing)} of {len(names)} new workers did not join within {timeout:.0f} s.",
                where=str(cluster.name),
                todo="Call sync() again with a longer timeout.",
            )
        await asyncio.sleep(_POLL)


def _has_ended(process: Any) -> bool:
    return hasattr(process, "exited") and process.exited.is_set()


async def retire(cluster: Any, client: Client, names: Sequence[Any], timeout: float) -> tuple[str, ...]:
    """Let the workers of the specs `names` end what they have begun, move their data away, and end them.

    Parameters
    ----------
    cluster : distributed.SpecCluster
    client : distributed.Client
        Asynchronous, connected.
    names : sequence
    timeout : float
        Seconds that running tasks have; then they begin anew elsewhere.

    Returns
    -------
    tuple of str
        Keys of the tasks that had not ended.

    Raises
    ------
    ClusterError
        When data can't be moved: these workers go on as they are.
    """
    addresses = addresses_of(cluster, names)
    interrupted = await client.scheduler.likewise_drain(addresses=addresses, timeout=timeout)
    left = set(addresses)
    for _ in range(_MOVE_AGAIN):
        await client.retire_workers(workers=sorted(left), close_workers=True, remove=True)
        left &= {*await client.run_on_scheduler(known_workers)}
        if not left:
            break
    if left:
        await client.scheduler.likewise_resume(addresses=sorted(left))
    kept = specs_of(cluster, left)
    await end(cluster, [name for name in names if name not in kept])
    if left:
        raise ClusterError(
            f"The data of {len(left)} workers can't be moved to others, so they stay in their old environment.",
            where=", ".join(sorted(left)),
            todo="Make room (release results, or add workers), and call sync() again.",
            details={"workers": sorted(left)},
        )
    return tuple(sorted({key for keys in interrupted.values() for key in keys}))


async def end(cluster: Any, names: Iterable[Any]) -> None:
    """End the workers of the specs `names`, and forget the specs. What they hold must have been moved."""
    names = list(names)
    addresses = addresses_of(cluster, names)
    for name in names:
        cluster.worker_spec.pop(name, None)
    if addresses:  # they joined, or a nanny has just brought one back: tasks may have come to them
        with suppress(OSError, LikewiseError):
            await cluster.scheduler_comm.retire_workers(workers=addresses, close_workers=True, remove=True)
    processes = [cluster.workers.pop(name) for name in names if name in cluster.workers]
    await asyncio.gather(*(process.close() for process in processes), return_exceptions=True)


async def no_scaling(cluster: Any) -> ExitStack:
    """Keep adaptive scaling from ending, or adding, workers while others come and go; until the stack is closed."""
    adaptive = getattr(cluster, "_adaptive", None)
    stack = ExitStack()
    if adaptive is not None:
        while adaptive._adapting:  # Dask's own way to keep it from overlapping with itself
            await asyncio.sleep(_POLL)
        adaptive._adapting = True
        stack.callback(setattr, adaptive, "_adapting", False)
    return stack
