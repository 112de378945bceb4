"""What likewise adds to a scheduler: the current manifest, and emptying workers. Dask's own workers, in processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import Client, LocalCluster
from distributed.core import Status

from likewise.cluster.replace import end, members, no_scaling, retire, specs_of
from likewise.cluster.scheduler_side import install

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers don't have this file


@asynccontextmanager
async def cluster_of(n_workers: int, **options: Any) -> AsyncIterator[tuple[Any, Client]]:
    """A cluster with our handlers, and a client."""
    async with LocalCluster(
        n_workers=n_workers, threads_per_worker=1, asynchronous=True, dashboard_address=None, **options
    ) as cluster:
        install(cluster.scheduler, manifest="m" * 64, cluster="c" * 16)
        async with Client(cluster, asynchronous=True) as client:
            if n_workers:
                await client.wait_for_workers(n_workers)
            yield cluster, client


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an asynchronous test."""
    asyncio.run(asyncio.wait_for(test(), 100))


def work(x: int, seconds: float, folder: str) -> int:
    """A task that leaves a note when it begins."""
    with open(os.path.join(folder, f"{x}-{os.getpid()}-{time.time_ns()}"), "w"):
        time.sleep(seconds)
    return x


def test_the_current_manifest() -> None:
    """Whoever asks learns manifest, cluster and hub, and what was set since; other words are left alone."""

    async def test() -> None:
        async with cluster_of(0) as (_, client):
            assert await client.scheduler.likewise_current() == {"manifest": "m" * 64, "cluster": "c" * 16, "hub": ""}
            await client.scheduler.likewise_set_current(manifest="n" * 64, nonsense="x")
            await client.scheduler.likewise_set_current(hub="tls://x:1")
            current = await client.scheduler.likewise_current()
            assert current == {"manifest": "n" * 64, "cluster": "c" * 16, "hub": "tls://x:1"}

    run(test)


def test_draining(tmp_path: Path) -> None:
    """The running task ends where it is, those that wait go elsewhere, each runs once, and all results are there."""

    async def test() -> None:
        async with cluster_of(2) as (cluster, client):
            scheduler = cluster.scheduler
            futures = client.map(work, range(12), [0.5] * 12, [str(tmp_path)] * 12)
            while len(os.listdir(tmp_path)) < 2:
                await asyncio.sleep(0.02)
            first, _second = list(scheduler.workers)
            assert await client.scheduler.likewise_drain(addresses=[first], timeout=60) == {}
            assert not scheduler.workers[first].processing
            assert sum(len(ws.processing) for ws in scheduler.workers.values()) > 0
            assert await client.gather(futures) == list(range(12))
            assert sorted(int(name.partition("-")[0]) for name in os.listdir(tmp_path)) == list(range(12))
            await client.scheduler.likewise_resume(addresses=[first])
            assert scheduler.workers[first].status is Status.running
            assert await client.submit(int, 7, workers=[first]) == 7

    run(test)


def test_draining_has_a_limit(tmp_path: Path) -> None:
    """A task that does not end in time is named; the worker's retirement lets it begin anew elsewhere."""

    async def test() -> None:
        async with cluster_of(2) as (cluster, client):
            (first, name), *_ = [(a, ws.name) for a, ws in cluster.scheduler.workers.items()]
            kept = await client.scatter({"kept": 1}, workers=[first])
            future = client.submit(work, 1, 2.0, str(tmp_path), workers=[first], allow_other_workers=True)
            while not os.listdir(tmp_path):
                await asyncio.sleep(0.02)
            interrupted = await retire(cluster, client, [name], timeout=0.3)
            assert interrupted == (future.key,)
            assert name not in cluster.worker_spec and name not in cluster.workers
            assert await future == 1
            assert len(os.listdir(tmp_path)) == 2
            assert await kept["kept"] == 1

    run(test)


def test_a_worker_that_dies_while_it_is_drained(tmp_path: Path) -> None:
    """The drain ends, and what ran there runs elsewhere."""

    async def test() -> None:
        async with cluster_of(2) as (cluster, client):
            first = next(iter(cluster.scheduler.workers))
            future = client.submit(work, 1, 3.0, str(tmp_path), workers=[first], allow_other_workers=True)
            while not os.listdir(tmp_path):
                await asyncio.sleep(0.02)
            draining = asyncio.ensure_future(client.scheduler.likewise_drain(addresses=[first], timeout=60))
            await asyncio.sleep(0.2)
            os.kill(int(os.listdir(tmp_path)[0].split("-")[1]), 9)
            assert await draining == {}
            assert await future == 1

    run(test)


def test_specs_and_their_workers() -> None:
    """Workers are found by the spec that they belong to; ending a spec ends its worker and nothing else."""

    async def test() -> None:
        async with cluster_of(2) as (cluster, client):
            addresses = {str(ws.name): address for address, ws in cluster.scheduler.workers.items()}
            assert members(cluster, 1) == {"1"}
            assert specs_of(cluster, [addresses["1"]]) == [1]
            assert specs_of(cluster, ["tls://nobody:1"]) == []
            await end(cluster, [1])
            assert set(cluster.worker_spec) == set(cluster.workers) == {0}
            assert list(cluster.scheduler.workers) == [addresses["0"]]
            assert await client.submit(int, 5) == 5

    run(test)


def test_adaptive_scaling_waits() -> None:
    """While workers are exchanged, adaptive scaling neither ends nor adds any; afterwards it goes on."""

    async def test() -> None:
        async with cluster_of(0) as (cluster, client):
            cluster.adapt(minimum=0, maximum=1, interval="50ms")
            with await no_scaling(cluster):
                future = client.submit(int, 3)
                await asyncio.sleep(0.5)
                assert not cluster.worker_spec
            assert await future == 3

    run(test)
