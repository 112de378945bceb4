"""Agents begin, end and leave nothing behind: real processes on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.errors import NodeError
from likewise.node.cache import host_name, open_cache, start_time
from likewise.transport.agent import Agent as AgentHere
from likewise.transport.hub import Hub as HubHere
from likewise.transport.lifetime import prune_regularly
from likewise.transport.upload import Uploader
from support.agents import Agent, Client, Line, call, new_cluster, security, until
from support.nodes import archive, layer
from support.prefixes import clean_environ

MIB = 1 << 20


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """The hub of all tests here."""
    with Agent("hub", new_cluster(), tmp_path_factory.mktemp("hub")) as agent:
        yield agent


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process of a node, which does nothing."""
    with subprocess.Popen(["sleep", "60"]) as found:
        yield found
        found.kill()


def lease(cache: Path, process: subprocess.Popen[bytes], cluster: str) -> Path:
    """Write the lease that bootstrap.sh writes for a process."""
    path = Path(open_cache(str(cache)).place("leases"), f"{host_name()}.{process.pid}")
    path.write_text(f"{'0' * 64} {start_time(str(process.pid))} {cluster}\n")
    return path


def test_agent_ends_with_the_last_process_of_its_cluster(
    tmp_path: Path, hub: Agent, process: subprocess.Popen[bytes]
) -> None:
    """An agent stays while a process of its cluster lives on the node, and ends by itself some seconds later."""
    lease(tmp_path, process, hub.cluster)
    agent = Agent("agent", hub.cluster, tmp_path, "--hub", hub.address, lifeline=False)
    joined(hub, 2)
    with pytest.raises(subprocess.TimeoutExpired):
        agent.process.wait(7)
    process.kill()
    process.wait()
    assert agent.process.wait(60) == 0
    assert sorted(os.listdir(tmp_path / "agents")) == [f"{hub.cluster}.lock", f"{hub.cluster}.log"]
    joined(hub, 1)
    agent.kill()


def test_other_clusters_processes_do_not_count(tmp_path: Path, hub: Agent, process: subprocess.Popen[bytes]) -> None:
    """An agent does not stay for processes of another cluster in the same cache."""
    lease(tmp_path, process, new_cluster())
    agent = Agent("agent", hub.cluster, tmp_path, "--hub", hub.address, lifeline=False)
    assert agent.process.wait(60) == 0
    agent.kill()


def test_agents_end_with_their_hub(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    """When the hub ends, agents without any process left end at once, those with one stay with it."""
    name = new_cluster()
    second = tmp_path / "b"
    lease(second, process, name)
    with Agent("hub", name, tmp_path / "hub") as hub:
        agents = [Agent("agent", name, tmp_path / c, "--hub", hub.address, lifeline=False) for c in "ab"]
        lease(tmp_path / "a", process, name)
        joined(hub, 3)
        (tmp_path / "a" / "leases" / f"{host_name()}.{process.pid}").unlink()
        hub.process.stdin.close()  # its lifeline
        assert hub.process.wait(60) == 0
        assert agents[0].process.wait(60) == 0
        assert agents[1].process.poll() is None
        for agent in agents:
            agent.kill()


def joined(hub: Agent, number: int) -> None:
    """Wait until the hub knows so many nodes, itself included."""
    until(lambda: len(call(hub.address, "hub_status")["nodes"]) == number)


def test_one_agent_for_a_cache_and_cluster(tmp_path: Path, hub: Agent) -> None:
    """A second agent for the same cache and cluster ends without an error, and the first one keeps its door."""
    with Agent("agent", hub.cluster, tmp_path, "--hub", hub.address) as first:
        joined(hub, 2)
        with Agent("agent", hub.cluster, tmp_path, "--hub", hub.address) as second:
            assert second.process.wait(60) == 0
        with Client(hub.address), pytest.raises(FileNotFoundError):
            first.source().open("0" * 64)


@pytest.mark.parametrize("end", ["lifeline", "SIGTERM"])
def test_ends_cleanly_in_the_middle_of_a_transfer(tmp_path: Path, hub: Agent, end: str) -> None:
    """An agent that is ended while it fetches ends soon and with status 0; its node's processes hear of it at once."""
    source = layer("big", {"purelib/big.bin": os.urandom(48 * MIB)})
    failures: list[BaseException] = []
    with Client(hub.address, source), Line(hub.address) as line:
        agent = Agent("agent", hub.cluster, tmp_path, "--hub", line.address)

        def ask() -> None:
            try:
                agent.source().open(source.digest)
            except NodeError as error:
                failures.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: line.back > 6 * MIB)
        if end == "SIGTERM":
            agent.process.send_signal(signal.SIGTERM)
        else:
            agent.process.stdin.close()
        assert agent.process.wait(60) == 0
        thread.join(5)
        agent.kill()
    assert "agent ended" in str(failures[0]) or "agent does not answer" in str(failures[0])
    assert not (tmp_path / "agents" / f"{hub.cluster}.sock").exists()
    assert "Traceback" not in agent.log.read_text()


def test_other_credentials_are_refused(tmp_path: Path, hub: Agent) -> None:
    """Who has no certificate of the cluster gets nothing, and can't give anything."""
    from likewise.cluster.certificates import make_security

    stranger = AgentHere(open_cache(str(tmp_path)), hub.address, make_security())

    async def hello() -> None:
        async with stranger:
            await stranger.tell("hello", name="stranger", have=[])

    with pytest.raises(NodeError, match="connection failed"):
        asyncio.run(hello())
    joined(hub, 1)


def test_plain_connections_are_not_offered(tmp_path: Path) -> None:
    """Without credentials an agent does not start, and says why; no secret is asked for on a command line."""
    done = subprocess.run(
        [sys.executable, "-m", "likewise.transport", "hub", "--cluster", "ab", "--cache", str(tmp_path),
         "--host", "127.0.0.1", "--lifeline"],
        env=clean_environ(), capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == NodeError.exit_code and "TLS" in done.stderr and done.stdout == ""


def test_cancelled_transfers_leave_nothing(tmp_path: Path) -> None:
    """Whatever is cancelled in the middle (agent, hub, upload) leaves no task, no thread's work and no open file."""
    source = layer("big", {"purelib/big.bin": os.urandom(24 * MIB)})
    path = tmp_path / "archive"
    path.write_bytes(archive(source))
    before = open_files()

    async def interrupted() -> int:
        loop_files = open_files()
        async with HubHere(open_cache(str(tmp_path / "hub")), security(), host="127.0.0.1") as hub:
            upload = Uploader(hub.address, security(), lambda digest: path.open("rb"), b"{}")
            running = asyncio.create_task(upload.run())
            async with AgentHere(open_cache(str(tmp_path / "a")), hub.address, security()) as agent:
                asking = asyncio.create_task(agent.get(source.digest))
                while not sum(upload.sent.values()) > 4 * MIB:
                    await asyncio.sleep(0.001)
                running.cancel()
                asking.cancel()
                await asyncio.gather(running, asking, return_exceptions=True)
        await asyncio.sleep(0.1)  # Tornado closes sockets in callbacks
        assert {task.get_coro().__qualname__ for task in asyncio.all_tasks()} == {
            "test_cancelled_transfers_leave_nothing.<locals>.interrupted"
        }
        return len(open_files()) - len(loop_files)

    assert asyncio.run(interrupted()) == 0
    assert open_files() == before


def open_files() -> list[str]:
    """What this process has open, but for its event loop's own."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue  # that of the listing itself
    return sorted(target for target in found if "eventpoll" not in target)


@pytest.mark.root
def test_full_disk_is_named(tmp_path: Path, hub: Agent) -> None:
    """A node whose disk can't take a layer names itself and the disk; the other nodes get theirs, and it goes on."""
    big, small = (layer(f"l{size}", {"purelib/x.bin": os.urandom(size)}) for size in (6 * MIB, 100_000))
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", tmp_path / "small"], check=True)
    try:
        with (
            Client(hub.address, big, small),
            Agent("agent", hub.cluster, tmp_path / "small", "--hub", hub.address) as agent,
            Agent("agent", hub.cluster, tmp_path / "large", "--hub", hub.address) as other,
        ):
            with pytest.raises(NodeError, match="disk") as caught:
                agent.shelf().get(big.digest, "big")
            assert str(tmp_path / "small") in caught.value.where
            other.shelf().get(big.digest, "big")
            agent.shelf().get(small.digest, "small")
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


def test_expired_code_goes_while_the_agent_lives(tmp_path: Path) -> None:
    """An agent that runs for long removes what nobody has used, without another start on its node."""
    cache = open_cache(str(tmp_path / "cache"))
    old = Path(cache.place("archives"), "0" * 64 + "." + "1" * 64)
    old.write_bytes(b"of last week")
    os.utime(old, (1e9, 1e9))

    async def live() -> None:
        pruning = asyncio.create_task(prune_regularly(cache, every=0.01))
        while old.exists():
            assert not pruning.done()
            await asyncio.sleep(0.01)
        pruning.cancel()

    asyncio.run(asyncio.wait_for(live(), 30))
