"""A node among others: its agent beside it, layers from the hub, the current manifest from the scheduler."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from likewise.cluster.environ import tls_environ
from likewise.cluster.scheduler_side import install
from likewise.node.cache import host_name
from likewise.node.command import Launch
from support.agents import call, new_cluster, security, until
from support.dask_kit import dask_kit
from support.nodes import distribution, start
from support.prefixes import clean_environ
from support.processes import dask_processes

WHERE = "import os, sys; print(os.environ.get('LIKEWISE_CLUSTER'), sys.prefix, flush=True)"
MORE = distribution("more", {"purelib/more.py": b"x = 1\n"})


def tls(role: str) -> dict[str, str]:
    """The variables of a process with a role."""
    return clean_environ(**tls_environ(security(), role))  # type: ignore[arg-type]


class Hub:
    """A hub that bootstrap.sh started, and a cluster in which it has the manifest and the layers."""

    def __init__(self, folder: Path) -> None:
        kit = dask_kit()
        self.manifest = kit.with_layers(MORE)
        self.cluster = new_cluster()
        launch = kit.launch(folder / "hub", self.manifest, cluster=self.cluster)
        argv = [*launch.argv("hub"), "--host", "127.0.0.1", "--store", str(kit.store), "--lifeline"]
        self.process = subprocess.Popen(argv, env=tls("scheduler"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.address = json.loads(self.process.stdout.readline())["hub"]
        call(self.address, "hub_set_manifest", data=self.manifest.encode())

    def launch(self, cache: Path, **change: object) -> Launch:
        """How to start a node of the cluster that can't read the store."""
        launch = dask_kit().launch(cache, self.manifest, cluster=self.cluster, hub=self.address)
        return msgspec.structs.replace(launch, **{"store": "/nowhere", **change})

    def close(self) -> None:
        """End the hub as its client's end would."""
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(20) == 0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    found = Hub(tmp_path_factory.mktemp("cluster"))
    yield found
    found.close()


def agent_of(cache: Path) -> int:
    """The process of the agent in a cache, once its door is open."""
    until(lambda: list((cache / "agents").glob("*.sock")))
    (pid,) = (pid for pid, line in dask_processes("LIKEWISE_CLUSTER").items() if f" agent --cache {cache} " in line)
    return pid


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    return not Path(f"/proc/{pid}").exists()


def test_layers_come_from_the_hub(tmp_path: Path, hub: Hub) -> None:
    """A node that reads no store gets manifest and layers through its agent, which nobody waits for, and which ends
    when nothing of its cluster runs here any more; the next start needs neither, and its agent comes from the prefix.
    """
    cache = tmp_path / "cache"
    argv = [*hub.launch(cache).argv(), "-c", f"import more, sys; {WHERE}; sys.stdin.read()"]
    node = subprocess.Popen(argv, env=tls("worker"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert node.stdin and node.stdout
    prefix = f"{cache}/prefixes/{hub.manifest.id[:16]}"
    assert node.stdout.readline() == f"{hub.cluster} {prefix}\n", (cache / f"agents/{hub.cluster}.log").read_text()
    lease = (cache / f"leases/{host_name()}.{node.pid}").read_text().split()
    assert (lease[0], lease[2]) == (hub.manifest.id, hub.cluster)

    agent = agent_of(cache)
    fields = Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()
    parent, session, nice = int(fields[1]), int(fields[3]), int(fields[16])
    assert parent != node.pid and session not in (os.getsid(0), node.pid) and nice > 0
    assert os.readlink(f"/proc/{agent}/fd/0") == "/dev/null"
    for number in (1, 2):
        assert os.readlink(f"/proc/{agent}/fd/{number}") == f"{cache}/agents/{hub.cluster}.log"
    assert os.readlink(f"/proc/{agent}/exe").startswith(f"{cache}/kits/")

    node.stdin.close()
    assert node.stdout.read() == "" and node.wait(20) == 0  # the agent does not hold the output open
    assert not gone(agent)
    until(lambda: gone(agent))
    assert list((cache / "agents").glob("*.sock")) == []

    (cache / "kits").rename(tmp_path / "kits")
    done = start(hub.launch(cache, kit="/gone", kit_sha256=hub.manifest.id), "-c", WHERE, env=tls("worker"))
    assert (done.stdout, done.stderr) == (f"{hub.cluster} {prefix}\n", "")
    agent = agent_of(cache)
    assert os.readlink(f"/proc/{agent}/exe").startswith(prefix)
    os.kill(agent, 15)
    until(lambda: gone(agent))


def test_store_comes_first(tmp_path: Path) -> None:
    """A node that can read the store asks nobody: it starts while there is no hub at all."""
    kit = dask_kit()
    launch = kit.launch(tmp_path / "cache", cluster="c" * 16, hub="tls://127.0.0.1:1")
    done = start(launch, "-c", WHERE, env=tls("worker"))
    assert done.stdout == f"{'c' * 16} {tmp_path}/cache/prefixes/{launch.manifest[:16]}\n", done.stderr
    os.kill(agent_of(tmp_path / "cache"), 15)


def test_agent_without_credentials(tmp_path: Path) -> None:
    """An agent that can't start says why in its log, and stands in nobody's way: this node needs none."""
    launch = dask_kit().launch(tmp_path / "cache", cluster="c" * 16, hub="tls://127.0.0.1:1")
    assert start(launch, "-c", "").returncode == 0
    log = tmp_path / f"cache/agents/{'c' * 16}.log"
    until(lambda: "There are no TLS credentials" in log.read_text())


# ---- --ask


class Scheduler:
    """A real scheduler that says what nodes run now."""

    def __init__(self, **current: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.address = asyncio.run_coroutine_threadsafe(self._start(current), self._loop).result(30)

    async def _start(self, current: dict[str, str]) -> str:
        from distributed import Scheduler

        self._scheduler = await Scheduler(host="127.0.0.1", protocol="tls", security=security(), dashboard=False)
        install(self._scheduler, **current)  # type: ignore[arg-type]
        return str(self._scheduler.address)

    def close(self) -> None:
        """Close it."""
        asyncio.run_coroutine_threadsafe(self._scheduler.close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)


def test_ask_for_the_current_manifest(tmp_path: Path) -> None:
    """A command prefix made for an old environment starts the one that the scheduler names, cold and warm."""
    kit = dask_kit()
    new = kit.with_layers(MORE)
    scheduler = Scheduler(manifest=new.id, cluster="d" * 16)
    try:
        launch = kit.launch(tmp_path / "cache", ask=True)
        code = f"import more; {WHERE}"
        for _ in ("cold", "warm"):
            done = start(launch, "-c", code, scheduler.address, env=tls("worker"))
            assert done.stdout == f"{'d' * 16} {tmp_path}/cache/prefixes/{new.id[:16]}\n", done.stderr
        for lease in (tmp_path / "cache/leases").iterdir():
            assert lease.read_text().split()[::2] == [new.id, "d" * 16]
    finally:
        scheduler.close()
    done = start(launch, "-c", code, scheduler.address, "--death-timeout", "1", env=tls("worker"))
    assert (done.returncode, done.stdout) == (15, "")
    assert scheduler.address in done.stderr and len(done.stderr.splitlines()) == 1


def test_ask_nobody(tmp_path: Path) -> None:
    """Without a scheduler in the command there is nobody to be asked, and it says so."""
    done = start(dask_kit().launch(tmp_path / "cache", ask=True), "-c", "", env=tls("worker"))
    assert done.returncode == 15 and "names no scheduler" in done.stderr
