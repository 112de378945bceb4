"""Plain Dask on this computer: `package_sync=False`, with real schedulers and workers."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import dask.config
import pytest
from distributed import Client, get_client, get_worker, wait
from distributed.security import Security

from likewise.cluster.local import Cluster
from likewise.errors import ClusterError, UnsupportedError, UsageError
from likewise.events import Event, Notice, StageAdvanced, StageFinished, StageStarted
from support.processes import dask_processes, wait_until_gone

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes don't have this file


class Recorder:
    """A reporter that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        self.events.append(event)


def start(n_workers: int = 2, **options: Any) -> Cluster:
    """A small cluster without nannies, which start in half the time."""
    options = {"threads_per_worker": 1, "nanny": False, "dashboard_address": None, "package_sync": False, **options}
    return Cluster(n_workers, **options)


@pytest.fixture
def marker() -> Iterator[str]:
    """A word that is in the environment of every process of the test's cluster; none is left at the end."""
    word = f"likewise-test-{uuid.uuid4()}"
    yield word
    assert wait_until_gone(word, 0) == {}


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """A cluster for the tests that only look."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 17, "cloud.password": "hunter2"}):
        cluster = start(2, nodes=2, env={"ASKED": "for it"}, resources={"GPU": 2}, memory_limit="300 MB")
    with cluster:
        yield cluster


def whereabouts() -> dict[str, Any]:
    """Facts about the process that this runs in."""
    argv = Path("/proc/self/cmdline").read_bytes().decode()
    return {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "prefix": sys.prefix,
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "failures": dask.config.get("distributed.scheduler.allowed-failures"),
        "cloud": dask.config.get("cloud"),
        "paths": list(dask.config.paths),
        "argv": argv,
    }


def everywhere(cluster: Cluster) -> list[dict[str, Any]]:
    """`whereabouts` of the scheduler and all workers."""
    client = cluster.get_client()
    return [client.run_on_scheduler(whereabouts), *client.run(whereabouts).values()]


# What runs, and what it knows


def test_it_computes(shared: Cluster) -> None:
    """Scheduler and workers compute, and a task can submit tasks of its own over TLS."""

    def inner(x: int) -> int:
        return get_client().submit(lambda y: y * 2, x).result() + 1

    client = shared.get_client()
    assert client.gather(client.map(lambda x: x**2, range(10))) == [x**2 for x in range(10)]
    assert client.submit(inner, 20).result() == 41
    assert shared.environment is None


def test_processes_are_the_clients_equals_not_its_children(shared: Cluster) -> None:
    """Scheduler and workers run in sessions and folders of their own, in this prefix."""
    facts = everywhere(shared)
    assert len({f["pid"] for f in facts}) == 3
    assert all(f["session"] == f["pid"] for f in facts)
    assert all(f["prefix"] == sys.prefix for f in facts)
    assert sorted(Path(f["cwd"]).name for f in facts) == ["node-0", "node-0", "node-1"]
    assert os.getcwd() not in {f["cwd"] for f in facts}


def test_environment_variables(shared: Cluster) -> None:
    """Nodes have a login session's variables, those asked for, and Dask's; nothing else of the client's."""
    allowed = {"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "ASKED"}
    for facts in everywhere(shared):
        environ = facts["environ"]
        ours = {name for name in environ if not name.startswith(("LC_", "DASK_", "__DASK_"))}
        assert ours <= allowed
        assert environ["ASKED"] == "for it"
        assert "hunter2" not in "".join(environ.values())


def test_configuration(shared: Cluster) -> None:
    """Nodes have the client's configuration without its secrets, and look at no configuration file."""
    for facts in everywhere(shared):
        assert facts["failures"] == 17
        assert facts["cloud"] == {}
        assert facts["paths"] == []


def test_no_secret_on_the_command_line(shared: Cluster) -> None:
    """`ps` shows neither key nor certificate."""
    for facts in everywhere(shared):
        assert "BEGIN" not in facts["argv"]
        assert any("PRIVATE KEY" in value for value in facts["environ"].values())


def test_workers_are_as_asked(shared: Cluster) -> None:
    """Threads, memory limit and resources reach the workers."""
    workers = shared.scheduler_info["workers"].values()
    assert [w["nthreads"] for w in workers] == [1, 1]
    assert {w["memory_limit"] for w in workers} == {300_000_000}
    assert shared.get_client().submit(lambda: 1, resources={"GPU": 2}).result() == 1


def test_it_shows_itself(shared: Cluster) -> None:
    """Text for a terminal and HTML for a notebook name the cluster, its address and its workers."""
    assert repr(shared).startswith(f"Cluster({shared.name}, 'tls://127.0.0.1:")
    assert "workers=2, threads=2" in repr(shared)
    assert shared.scheduler_address in shared._repr_html_()


def test_a_plain_connection_is_refused(shared: Cluster) -> None:
    """Without TLS, or with other credentials, nobody gets in."""
    address = shared.scheduler_address
    strangers = [
        (address.replace("tls://", "tcp://"), Security()),
        (address, Security.temporary()),
    ]
    for target, security in strangers:
        with pytest.raises((OSError, RuntimeError, TypeError)):
            Client(target, security=security, timeout=0.6, set_as_default=False)
    assert everywhere(shared)


def test_workers_accept_no_strangers_either(shared: Cluster) -> None:
    """Workers listen on the loopback interface, with TLS."""
    for address in shared.scheduler_info["workers"]:
        assert address.startswith("tls://127.0.0.1:")
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5) as plain:
            plain.sendall(b"hello, I speak no TLS\n" * 10)
            with suppress(ConnectionResetError):
                assert len(plain.recv(1000)) < 20  # a TLS alert at most


def test_one_client_for_one_cluster(shared: Cluster) -> None:
    """`get_client` gives the current client when it is this cluster's, and never another cluster's."""
    client = shared.get_client()
    assert shared.get_client() is client
    assert Client.current() is client
    with start(1, name=shared.name) as other:
        assert other != shared
        theirs = other.get_client()
        assert theirs is not client
        assert theirs.scheduler.address == other.scheduler_address
        assert Client.current() is theirs
        again = shared.get_client()
        assert again.scheduler.address == shared.scheduler_address
        theirs.close()
    assert client.submit(lambda: 5).result() == 5
    again.close()


# Arguments


def test_arguments_are_checked_first() -> None:
    """A wrong argument is refused before anything is started."""
    for wrong in (
        {"nodes": 0},
        {"n_workers": -1},
        {"memory_limit": "plenty"},
        {"env": {"A": 1}},
        {"worker_options": {"lifetiem": "1h"}},
        {"scheduler_options": {"protocol": "tcp"}},
        {"security": Security()},
        {"package_sync_ignore": "numpy"},
    ):
        with pytest.raises(UsageError):
            start(**wrong)


def test_local_nodes_are_refused_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS the cluster says at once what to use, and scans nothing."""
    monkeypatch.setattr(sys, "platform", "darwin")
    recorder = Recorder()
    with pytest.raises(UnsupportedError, match="SSHCluster"):
        Cluster(1, reporter=recorder)
    assert recorder.events == []


def test_options_reach_dask(tmp_path: Path, marker: str) -> None:
    """Options of Dask's own commands, and preloads of the configuration, are in force."""
    preload = tmp_path / "mine.py"
    preload.write_text("def dask_setup(server):\n    server.mine = 'here'\n")
    options = {"worker_options": {"preload": str(preload), "lifetime": "1h"}, "scheduler_options": {"port": 0}}
    with (
        start(1, local_directory=tmp_path / "spill", env={"M": marker}, **options) as cluster,
        cluster.get_client() as client,
    ):
        assert client.submit(lambda: get_worker().mine).result() == "here"
        assert client.submit(lambda: get_worker().lifetime).result() == 3600
        assert client.submit(lambda: get_worker().local_directory).result().startswith(str(tmp_path / "spill"))


# Starting and ending


def test_launch_is_reported(marker: str) -> None:
    """The start is a stage with its time; events tell of each process, and of configuration that stays here."""
    recorder = Recorder()
    with dask.config.set({"cloud.password": "hunter2"}):
        cluster = start(2, nodes=2, reporter=recorder, env={"M": marker})
    (stage,) = cluster.report.stages
    cluster.close()
    cluster.close()  # does nothing
    assert stage.name == "start"
    assert stage.done == {"processes": 3}
    assert stage.summary == "scheduler and 2 workers on 2 nodes"
    advanced = [StageAdvanced] * 3
    assert [type(e) for e in recorder.events] == [Notice, StageStarted, *advanced, StageFinished]
    assert "cloud.password" in recorder.events[0].message  # type: ignore[attr-defined]


def test_nothing_is_left(marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the with block no process runs and no file is left, with nannies and a busy worker, too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with start(1, nanny=True, env={"M": marker}) as cluster:
        client = cluster.get_client()
        client.submit(time.sleep, 60)
        assert len(dask_processes(marker)) >= 3
        assert client.run(lambda: 1)
    assert wait_until_gone(marker, 0) == {}
    left = [p.suffix for p in tmp_path.rglob("*") if p.is_file()]
    assert set(left) <= {".lock", ".dirlock"}  # of Dask's own scratch space
    client.close()


def test_an_exception_closes(marker: str) -> None:
    """An error inside the with block goes up, and everything ends."""
    with pytest.raises(ZeroDivisionError), start(1, env={"M": marker}) as cluster:
        assert len(dask_processes(marker)) == 2
        cluster.scale(1 // 0)
    assert wait_until_gone(marker, 0) == {}


def test_a_worker_that_cannot_start(marker: str) -> None:
    """A worker that ends before it joined ends the launch within seconds, with its node and its last words."""
    started = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        start(2, nodes=2, env={"M": marker}, worker_options={"worker_class": "no.such.Worker"})
    assert time.monotonic() - started < 15
    assert caught.value.where in ("node-0", "node-1")
    assert "exit code 1" in str(caught.value)
    assert "No module named 'no'" in str(caught.value)
    assert wait_until_gone(marker, 0) == {}


def test_a_scheduler_that_cannot_start(marker: str) -> None:
    """A port that is taken ends the launch with the scheduler's own words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=r"scheduler ended before it was ready[\s\S]*in use"):
            start(1, env={"M": marker}, scheduler_options={"port": port})
    assert wait_until_gone(marker, 0) == {}


def test_a_prefix_that_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is not there is an error at once."""
    monkeypatch.setattr(Cluster, "_prefix", lambda self, node: ["/nowhere/python"])
    with pytest.raises(ClusterError, match=r"node-0: The scheduler can't be started: /nowhere/python"):
        start(1)


def test_a_process_that_ends_later_is_told(marker: str) -> None:
    """A worker that dies while the cluster runs is reported with its last words; the cluster goes on."""
    recorder = Recorder()
    with start(2, env={"M": marker}, reporter=recorder) as cluster, cluster.get_client() as client:
        victim = cluster.workers[1]
        os.kill(victim.pid, 9)
        assert client.submit(lambda: 6, retries=2).result(timeout=20) == 6
        notices = [e for e in recorder.events if isinstance(e, Notice)]
        assert "worker 1 ended (killed by SIGKILL)" in notices[0].message
        assert notices[0].subject == "node-0"


def test_losing_the_scheduler_does_not_hold_up_the_end(marker: str) -> None:
    """A cluster whose scheduler died closes within seconds."""
    cluster = start(1, env={"M": marker})
    assert cluster.scheduler is not None
    os.kill(cluster.scheduler.pid, 9)
    started = time.monotonic()
    cluster.close()
    assert time.monotonic() - started < 10
    assert wait_until_gone(marker, 0) == {}


def test_two_clusters_side_by_side(shared: Cluster, marker: str) -> None:
    """Two clusters in one process have their own schedulers and credentials, and end independently."""
    with start(1, env={"M": marker}) as second:
        assert shared.scheduler_address != second.scheduler_address
        with Client(second, set_as_default=False) as client:
            assert client.submit(lambda: 1).result() == 1
        with pytest.raises((OSError, RuntimeError)):
            Client(second.scheduler_address, security=shared.security, timeout=0.6, set_as_default=False)
    assert wait_until_gone(marker, 0) == {}
    with Client(shared, set_as_default=False) as client:
        assert client.submit(lambda: 2).result() == 2


def test_dashboard(marker: str) -> None:
    """The dashboard is where the link says, on the loopback interface alone, and there for whoever opens it at once."""
    pytest.importorskip("bokeh")
    with start(1, env={"M": marker}, dashboard_address=":0") as cluster:
        link = cluster.dashboard_link
        assert link.startswith("http://127.0.0.1:")
        assert link.endswith("/status")
        port = int(link.split(":")[2].split("/")[0])
        with (
            suppress(OSError),
            socket.create_connection((socket.gethostbyname(socket.gethostname()), port), 1) as other,
        ):
            assert other.getpeername()[0].startswith("127.")
        assert "Status" in str(_page(link))
        assert _page(link.replace("/status", "/no-such-page")) is None


# Workers come and go


def test_scaling_down_keeps_the_data(marker: str) -> None:
    """Data that was scattered to workers survives when these are scaled away, and up again goes, too."""
    with start(3, nodes=2, env={"M": marker}) as cluster, cluster.get_client() as client:
        data = client.scatter(list(range(30)), hash=False)
        assert len(set(client.who_has(data).values())) == 3
        cluster.scale(1)
        _until(lambda: len(cluster.workers) == 1 and len(cluster.scheduler_info["workers"]) == 1)
        assert len(dask_processes(marker)) == 2
        assert client.gather(data) == list(range(30))
        cluster.scale(3)
        client.wait_for_workers(3, timeout=30)
        assert sorted(cluster.workers) == [0, 3, 4]  # no name is used twice
        assert client.gather(data) == list(range(30))


def test_scaling_down_and_up_at_once(marker: str) -> None:
    """Changing one's mind before the first change is done ends in what was asked last."""
    with start(2, env={"M": marker}) as cluster, cluster.get_client() as client:
        (data,) = client.scatter([[1, 2, 3]])
        for n in (1, 3, 1, 2):
            cluster.scale(n)
        wanted = set(cluster.worker_spec)
        assert len(wanted) == 2
        _until(lambda: set(cluster.workers) == wanted == cluster.observed)
        assert len(dask_processes(marker)) == 3
        assert data.result() == [1, 2, 3]


def test_adapting(marker: str) -> None:
    """An adaptive cluster grows for work, and shrinks to its minimum afterwards."""
    recorder = Recorder()
    with start(0, env={"M": marker}, reporter=recorder) as cluster, cluster.get_client() as client:
        cluster.adapt(minimum=0, maximum=2, interval="100ms", wait_count=2)
        futures = client.map(lambda x: time.sleep(0.2) or x, range(8))
        assert client.gather(futures) == list(range(8))
        assert len(cluster.scheduler_info["workers"]) >= 1
        del futures
        _until(lambda: not cluster.scheduler_info["workers"] and not cluster.workers)
        assert not [e for e in recorder.events if isinstance(e, Notice)]  # nothing went wrong


def test_a_worker_of_the_same_name_is_refused(marker: str) -> None:
    """A stranger's worker, properly authenticated, that bears a name in use does not disturb the cluster."""
    with start(1, env={"M": marker}) as cluster, cluster.get_client() as client:
        twin = cluster._worker_process(0, cluster.scheduler_address)

        async def start_twin() -> list[str]:
            await twin
            await asyncio.wait_for(twin.exited.wait(), 30)
            await twin.close()
            return twin.output.lines()

        said = cluster.sync(start_twin)
        assert "name taken" in "\n".join(said)
        assert client.submit(lambda: 3).result() == 3


# Asynchronous use


def test_asynchronous(marker: str) -> None:
    """In an event loop the cluster is awaited; the loop stays free while it starts."""

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.02)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        async with start(2, asynchronous=True, env={"M": marker}) as cluster:
            assert ticks > 5
            async with Client(cluster, asynchronous=True) as client:
                assert await client.submit(lambda: 4) == 4
                (data,) = await client.scatter([[1]])
                await wait(data)
                cluster.scale(1)
                await cluster
                assert len(cluster.workers) == 1
                assert await data == [1]
        ticking.cancel()

    asyncio.run(main())
    assert wait_until_gone(marker, 0) == {}


@pytest.mark.parametrize("seconds", [0.05, 0.6])
def test_a_cancelled_start(marker: str, seconds: float) -> None:
    """A start that is cancelled at any moment leaves nothing."""

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_awaited(start(2, asynchronous=True, env={"M": marker})), seconds)

    asyncio.run(main())
    assert wait_until_gone(marker, 0) == {}


def test_a_failed_asynchronous_start(marker: str) -> None:
    """The error is the same as in synchronous use, and nothing is left."""

    async def main() -> None:
        with pytest.raises(ClusterError, match="No module named 'no'"):
            await start(1, asynchronous=True, env={"M": marker}, worker_options={"worker_class": "no.such.Worker"})

    asyncio.run(main())
    assert wait_until_gone(marker, 0) == {}


def _page(link: str) -> str | None:
    try:
        with urllib.request.urlopen(link, timeout=10) as answer:
            return str(answer.read())
    except urllib.error.HTTPError:
        return None


async def _awaited(cluster: Cluster) -> Cluster:
    return await cluster


def _until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
