"""While layers travel to a node, its worker answers as it did before."""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distributed import Client, LocalCluster

from support.agents import Agent, new_cluster
from support.nodes import layer, put

SIZE = 100_000_000
SLOWER = 10
"""A worker that moved the bytes itself would answer hundreds of times later, if at all before they are there."""


def test_a_worker_answers_while_a_big_layer_arrives(tmp_path: Path) -> None:
    """The median answer of a worker takes no more than a few times as long while its node's agent fetches."""
    store, name = tmp_path / "store", new_cluster()
    source = layer("big", {"purelib/big.bin": os.urandom(SIZE)})
    put(store, source)
    with (
        Agent("hub", name, tmp_path / "hub", "--store", str(store)) as hub,
        Agent("agent", name, tmp_path / "node", "--hub", hub.address) as agent,
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        ThreadPoolExecutor(1) as pool,
    ):

        def answer() -> float:
            started = time.perf_counter()
            client.submit(os.getpid, pure=False).result()
            return time.perf_counter() - started

        idle = [answer() for _ in range(100)]
        arriving = pool.submit(agent.source().open, source.digest)
        busy = []
        while not arriving.done():
            busy.append(answer())
        arriving.result().close()
        assert len(busy) >= 10
        assert statistics.median(busy) < SLOWER * statistics.median(idle)
