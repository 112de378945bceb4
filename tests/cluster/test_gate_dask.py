"""A Dask scheduler and a worker in a prefix that still grows: waiting for a task's module stops nothing else."""

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
from distributed import Client, WorkerPlugin
from distributed.core import rpc
import gamma

python, folder, log, hold = sys.argv[1:]
HELD = ("gamma", "tool", "ns-one")
FILE = os.path.join(folder, "scheduler.json")

def run():
    import tool_lib
    return tool_lib.VALUE

class Plugin(WorkerPlugin):
    def setup(self, worker):
        import shared.one
        worker.found = shared.one.VALUE

def start(part, *options):
    command = [python, "-m", "distributed.cli.dask_" + part, "--scheduler-file", FILE, "--no-dashboard", *options]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)

async def until(true):
    end = time.monotonic() + 60
    while not await true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)

async def wanted(*names):
    return all(f"wanted {name}\\n" in open(log).read() for name in names)

async def main():
    processes = [start("scheduler", "--port", "0"), start("worker", "--no-nanny")]
    try:
        await until(lambda: asyncio.to_thread(os.path.exists, FILE))
        async with Client(scheduler_file=FILE, asynchronous=True) as client:
            await client.wait_for_workers(1)
            (address,) = await client.run(os.getpid)
            kept = client.submit(lambda: 43, key="kept")
            await kept

            async def serves():
                seen = set()
                async def beat():
                    find = lambda dask_scheduler: dask_scheduler.workers[address].last_seen
                    seen.add(await asyncio.wait_for(client.run_on_scheduler(find), 10))
                    return len(seen) > 3
                await until(beat)
                async with rpc(address) as peer:
                    await asyncio.wait_for(peer.get_data(keys=["kept"], who=None, serializers=["pickle"]), 10)

            future = client.submit(gamma.work)  # the scheduler reads the graph, and then the worker the task
            await until(lambda: wanted("gamma"))
            await serves()
            register = getattr(client, "register_plugin", None) or client.register_worker_plugin
            beside = [asyncio.ensure_future(each) for each in (client.run(run), register(Plugin()))]
            await until(lambda: wanted(*HELD))
            await serves()
            print(future.status, *[each.done() for each in beside])
            for name in HELD:
                os.unlink(os.path.join(hold, name))
            await beside[1]
            found = await client.run(lambda dask_worker: dask_worker.found)
            print(await future, *(await beside[0]).values(), *found.values())
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()

if __name__ == "__main__":
    asyncio.run(main())
"""


def oldest() -> list[str]:
    """``dask==…`` and ``distributed==…`` at the lower bounds of pyproject.toml."""
    found = re.findall(r'"(dask|distributed)>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    return [f"{name}=={version}" for name, version in found]


@pytest.mark.parametrize("versions", ["oldest", "newest"])
def test_scheduler_and_worker_live_while_a_task_waits_for_its_module(tmp_path: Path, versions: str) -> None:
    """Heartbeats go on and a peer is served while a task, a function and a plugin need what has not come; it comes."""
    installs = oldest() if versions == "oldest" else ["dask", "distributed"]
    original = tmp_path / "venv"
    small = [wheel for wheel in small_wheels(tmp_path / "wheels") if not wheel.name.startswith(("alpha", "beta"))]
    python = make_venv(original, *installs, *small)
    held = ("gamma", "tool", "ns-one")
    with Growing(original, tmp_path / "prefix", base=Growing.all_but(original, *held)) as growing:
        growing.hold(*held)
        growing.fill()
        script = tmp_path / "client.py"
        script.write_text(CLIENT)
        out = run(python, script, growing.python, tmp_path, growing.plan / "log", growing.plan / "hold")
        assert out.splitlines() == ["pending False False", "3 7 5"]
