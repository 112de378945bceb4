"""A Dask worker in a prefix that still grows: waiting for a task's module stops nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.growing import Growing
from support.growing_small import small_wheels
from support.prefixes import make_venv, run
from support.users import ROOT

pytestmark = pytest.mark.registry

CLIENT = """
import asyncio, os, subprocess, sys, time
from distributed import Client, LocalCluster
from distributed.core import rpc
import gamma

python, log, hold = sys.argv[1:]

async def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)

async def main():
    async with LocalCluster(n_workers=0, asynchronous=True, dashboard_address=None) as cluster:
        command = [python, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-nanny"]
        worker = subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.DEVNULL)
        try:
            async with Client(cluster, asynchronous=True) as client:
                await client.wait_for_workers(1)
                ((address, state),) = cluster.scheduler.workers.items()
                await client.submit(lambda: 42, key="first")
                kept = client.submit(lambda: 43, key="second")
                await kept
                future = client.submit(gamma.work)
                await until(lambda: "wanted gamma" in open(log).read())
                seen = set()
                await until(lambda: seen.add(state.last_seen) or len(seen) > 3)
                async with rpc(address) as peer:
                    await asyncio.wait_for(peer.get_data(keys=["second"], who=None, serializers=["pickle"]), 10)
                print(future.status)
                os.unlink(hold)
                print(await future)
        finally:
            worker.terminate()
            worker.wait()

if __name__ == "__main__":
    asyncio.run(main())
"""


def oldest() -> list[str]:
    """``dask==…`` and ``distributed==…`` at the lower bounds of pyproject.toml."""
    found = re.findall(r'"(dask|distributed)>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    return [f"{name}=={version}" for name, version in found]


@pytest.mark.parametrize("versions", ["oldest", "newest"])
def test_a_worker_lives_while_a_task_waits_for_its_module(tmp_path: Path, versions: str) -> None:
    """Heartbeats go on and a peer is served while a task is unpickled whose module has not come; then it is done."""
    installs = oldest() if versions == "oldest" else ["dask", "distributed"]
    original = tmp_path / "venv"
    gamma = [wheel for wheel in small_wheels(tmp_path / "wheels") if wheel.name[:5] in ("gamma", "delta")]
    python = make_venv(original, *installs, *gamma)
    with Growing(original, tmp_path / "prefix", base=Growing.all_but(original, "gamma")) as growing:
        growing.hold("gamma")
        growing.fill()
        script = tmp_path / "client.py"
        script.write_text(CLIENT)
        out = run(python, script, growing.python, growing.plan / "log", growing.plan / "hold" / "gamma")
        assert out.split() == ["pending", "3"]
