"""SSHCluster on real machines without Python: three hosts, a whole environment, two starts, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.prefixes import UV, run
from support.ssh_client import SSHClient, make_client_prefix
from support.testbed import FakeHosts, Testbed, fake_hosts
from support.users import common_cache

__all__ = ["fake_hosts"]

pytestmark = [pytest.mark.root, pytest.mark.registry]

CANARY = "CANARY0x5eC4e7_config"
ASKED = "CANARY0x5eC4e7_asked_for"

START = """
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     env={{"TOKEN": {asked!r}}})
client = cluster.get_client()
"""

COMPUTE = """
def table(n):
    import numpy, pandas, shapes
    frame = pandas.DataFrame({"key": numpy.arange(n) % 3, "value": loose.double(numpy.arange(n))})
    return shapes.area(int(frame.groupby("key").value.sum().iloc[0]), 2)

futures = client.map(table, range(30, 60), pure=False)
answer = client.gather(futures), [table(n) for n in range(30, 60)]
"""

WHERE = """
def where():
    import os, socket, sys
    return {"host": socket.gethostname(), "executable": sys.executable, "token": os.environ.get("TOKEN")}

answer = [client.run_on_scheduler(where), *client.run(where).values()]
"""

KEYS = """
import dask.config
security = cluster.security
answer = [getattr(security, f"tls_{role}_key").splitlines()[2] for role in ("scheduler", "worker", "client")]
"""

REPORT = """
answer = {stage.name: stage.done for stage in cluster.report.stages}
"""

UPLOADED = """
from likewise.model.keys import layer_key
store = cluster._prepared.store
sent = cluster._shipment.uploaded
answer = [[size, store.path(layer_key(digest)).stat().st_size] for digest, size in sent.items()]
"""

VERIFY = """
report = cluster.verify()
answer = {"ok": report.ok, "nodes": [node.node for node in report.nodes], "differences": len(report.differences)}
"""

DASHBOARD = """
import urllib.request
link = cluster.dashboard_link.replace("/status", "/info/main/workers.html")
with urllib.request.urlopen(link, timeout=10) as page:
    answer = [link, page.read().decode()]
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_client_prefix(tmp_path_factory.mktemp("ssh"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return common_cache(tmp_path_factory)


def start(client: SSHClient, bed: Testbed, hosts: list[str]) -> None:
    client.do(START.format(hosts=hosts, config=str(bed.ssh_config), asked=ASKED))


@pytest.fixture(scope="module")
def hosts(fake_hosts: FakeHosts) -> Testbed:
    return fake_hosts(3, fresh=True)


@pytest.fixture(scope="module")
def first(hosts: Testbed, python: Path, cache: Path) -> Iterator[SimpleNamespace]:
    """The first start, on hosts that have nothing; one host that is named can't be reached."""
    client = SSHClient(python, cache=cache, DASK_SOMETHING__PASSWORD=CANARY)
    before = hosts.client_bytes()
    try:
        start(client, hosts, [*hosts.names, "nobody"])
        seen: dict[str, Any] = {name.lower(): client.do(code) for name, code in _QUESTIONS.items()}
        after = hosts.client_bytes()
        seen["processes"] = {host.name: host.processes() for host in hosts}
        seen["found"] = {host.name: _files_with(host, [CANARY, ASKED, *seen["keys"]]) for host in hosts}
        seen["warned"] = client.do("answer = warned")
        client.do("client.close(); cluster.close()")
        seen["left"] = {host.name: host.wait_idle(5) for host in hosts}
        seen["files"] = {host.name: host.run("ls -A /tmp /root").split() for host in hosts}
        seen["stderr"] = client.stderr.read_text()
        seen["sent"] = after.sent - before.sent
        yield SimpleNamespace(**seen)
    finally:
        client.end()


_QUESTIONS = {
    "COMPUTED": COMPUTE,
    "WHERE": WHERE,
    "KEYS": KEYS,
    "REPORT": REPORT,
    "UPLOADED": UPLOADED,
    "VERIFIED": VERIFY,
    "DASHBOARD": DASHBOARD,
}


def _files_with(host: Any, texts: list[str]) -> list[str]:
    """Files of the host, and lists of its processes, in which any of `texts` stands."""
    words = " ".join(f"-e '{text}'" for text in texts)
    return host.run(f"grep -rlsF {words} /tmp /root /var/log /run /etc", check=False).split()  # type: ignore[no-any-return]


def test_hosts_without_python_compute_in_the_whole_environment(first: SimpleNamespace) -> None:
    """Tasks use numpy, pandas, an editable package and a loose module, on workers on two hosts, as the client does."""
    there, here = first.computed
    assert there == here
    scheduler, *workers = first.where
    assert scheduler["host"] == "h1"
    assert sorted(worker["host"] for worker in workers) == ["h2", "h3"]
    assert all("/prefixes/" in place["executable"] for place in first.where)


def test_every_host_is_verified(first: SimpleNamespace) -> None:
    """verify() looks at all three hosts and finds no difference."""
    assert first.verified == {"ok": True, "nodes": ["h1", "h2", "h3"], "differences": 0}


def test_the_client_sends_each_layer_once(first: SimpleNamespace) -> None:
    """What is not in the kit leaves the client once; the hosts give it to each other."""
    assert first.uploaded
    assert all(sent == size for sent, size in first.uploaded)
    ship = first.report["ship"]
    assert ship["client"] == sum(size for _, size in first.uploaded)
    assert ship["peer"] >= ship["client"]
    assert first.sent < 1.1 * (ship["client"] + ship["kit"]) + 2e6


def test_a_host_that_cannot_be_reached_is_named_and_left_out(first: SimpleNamespace) -> None:
    """The cluster starts without it, and a warning says which host, and what is wrong."""
    (warning,) = first.warned
    assert "nobody" in warning
    assert "no host with the name" in warning


def test_nothing_secret_is_seen_on_the_hosts(first: SimpleNamespace) -> None:
    """Keys and tokens are in no command line, no file and no message; only a variable that was asked for is there."""
    assert {place["token"] for place in first.where} == {ASKED}
    for processes in first.processes.values():
        assert len(processes) > 1
        for process in processes:
            assert not [text for text in (CANARY, ASKED, *first.keys) if text in process.command]
            assert CANARY.encode() not in process.environ
            assert first.keys[2].encode() not in process.environ
    assert first.found == {"h1": [], "h2": [], "h3": []}
    assert not [text for text in (CANARY, ASKED, *first.keys) if text in first.stderr]


def test_after_close_only_the_node_cache_is_left(first: SimpleNamespace) -> None:
    """No process of the cluster is left on any host, and no file outside the cache."""
    assert first.left == {"h1": [], "h2": [], "h3": []}
    for files in first.files.values():
        assert [name for name in files if name.startswith("likewise-")]
        assert not [name for name in files if "dask" in name]


def test_the_dashboard_answers(first: SimpleNamespace) -> None:
    """cluster.dashboard_link leads to the scheduler's pages, which know the workers."""
    link, page = first.dashboard
    assert "127.0.0.1" not in link
    assert "worker" in page.lower()


@pytest.fixture(scope="module")
def second(first: SimpleNamespace, hosts: Testbed, python: Path, cache: Path) -> Iterator[SimpleNamespace]:
    """The second start, on the same hosts. It grows, loses a worker's process, and ends with kill -9 of the client."""
    client = SSHClient(python, cache=cache)
    try:
        start(client, hosts, hosts.names)
        seen = {"report": client.do(REPORT), "computed": client.do(COMPUTE)}
        client.do("cluster.scale(4); client.wait_for_workers(4, timeout=60)")
        seen["workers"] = client.do(WHERE)[1:]
        seen["restarted"] = client.do(RESTART)
        client.do("results = client.map(loose.double, range(100))")
        run(UV, "pip", "install", "--quiet", "--python", python, "iniconfig")
        seen["synced"] = client.do(SYNC)
        seen["before"] = {host.name: len(host.processes()) for host in hosts}
        client.kill()
        seen["left"] = {host.name: host.wait_idle(30) for host in hosts}
        yield SimpleNamespace(**seen)
    finally:
        client.end()


SYNC = """
import msgspec
before = client.run(os.getpid)
report = cluster.sync()

def there():
    import iniconfig
    return iniconfig.__file__

answer = [msgspec.to_builtins(report), list(client.run(there).values()), sum(client.gather(results)),
          before == client.run(os.getpid), sorted(cluster._shipment.uploaded.values())]
"""

RESTART = """
pids = client.run(os.getpid)
address, pid = sorted(pids.items())[0]
with __import__("contextlib").suppress(Exception):
    client.run(os._exit, 1, workers=[address])
while len(now := client.run(os.getpid)) < 4 or now.get(address) == pid:  # two hosts may have the same process id
    time.sleep(0.1)
answer = [where["executable"] for where in client.run(where).values()]
"""


def test_a_second_start_ships_nothing(second: SimpleNamespace) -> None:
    """Hosts that have it all get nothing from anybody, and compute."""
    assert not any(second.report["ship"].values())
    there, here = second.computed
    assert there == here


def test_more_workers_go_to_the_hosts_in_turn(second: SimpleNamespace) -> None:
    """scale(4) gives each of the two hosts two workers."""
    assert sorted(worker["host"] for worker in second.workers) == ["h2", "h2", "h3", "h3"]


def test_a_worker_that_dies_comes_back_in_the_replica(second: SimpleNamespace) -> None:
    """Its nanny starts it again, from the same prefix."""
    assert len(second.restarted) == 4
    assert len(set(second.restarted)) == 1


def test_one_more_package_comes_to_the_running_cluster(second: SimpleNamespace) -> None:
    """After pip install and sync() that layer and its bytecode travel, nothing else; workers and results stay."""
    report, where, total, same_workers, sent = second.synced
    assert report["layers"] == ["iniconfig"]
    assert len(sent) == 2
    assert report["shipped_bytes"] == sum(sent)
    assert len(where) == 4
    assert all("/deltas/" in file for file in where)
    assert total == sum(2 * n for n in range(100))
    assert same_workers


def test_nothing_outlives_a_killed_client(second: SimpleNamespace) -> None:
    """After kill -9 of the client every process on every host ends by itself, agents included."""
    assert all(second.before.values())
    assert second.left == {"h1": [], "h2": [], "h3": []}


HOLD = """
import threading
import shapes
from likewise.prepared import Prepared

let_go, give = threading.Event(), Prepared.open_layer

def late(self, digest):
    if any(ref.digest == digest and ref.name == "shapes" for ref in self.manifest.layers):
        let_go.wait()
    return give(self, digest)

Prepared.open_layer = late
"""

KEEP = """
addresses = {name: address for address, name in client.run(__import__("socket").gethostname).items()}
kept = client.submit(lambda: 43, workers=[addresses["h2"]], pure=False)
assert kept.result() == 43

def reading():
    return sum(thread.name == "likewise-reads" for thread in threading.enumerate())

def beats(number, workers):
    def last_seen(dask_scheduler):
        return {address: dask_scheduler.workers[address].last_seen for address in workers}
    seen = set()
    while any(len({dict(one)[address] for one in seen}) < number for address in workers):
        seen.add(tuple(client.run_on_scheduler(last_seen).items()))
        time.sleep(0.05)
    return True
"""

SCHEDULER_WAITS = """
future = client.submit(shapes.area, 6, 7, workers=[addresses["h2"]])
while not client.run_on_scheduler(reading):
    time.sleep(0.02)
answer = {"heartbeats": beats(3, list(addresses.values())), "status": future.status}
"""

WORKER_WAITS = """
let_go.set()
long = 0
while long < 5:  # other messages are read in a moment
    long = long + 1 if client.run(reading, workers=[addresses["h2"]])[addresses["h2"]] else 0
    time.sleep(0.02)
given = client.submit(lambda x: x + 1, kept, workers=[addresses["h3"]]).result(timeout=60)
answer = {"heartbeats": beats(3, [addresses["h2"]]), "given": given, "status": future.status}
"""


def test_who_waits_for_an_import_goes_on_serving(
    second: SimpleNamespace, hosts: Testbed, python: Path, cache: Path
) -> None:
    """A scheduler reads a graph, then a worker the task, before its module has come, by Dask's comms and no other way:
    heartbeats go on, a peer is given data, and when the layer has come the task is done.
    """
    tree = python.parents[2] / "shapes" / "shapes" / "__init__.py"
    tree.write_text(f"{tree.read_text()}SIDES = 4\n")  # no host has it yet
    client = SSHClient(python, cache=cache)
    try:
        client.do(HOLD)
        start(client, hosts, hosts.names)
        client.do(KEEP)
        assert client.do(SCHEDULER_WAITS) == {"heartbeats": True, "status": "pending"}
        agents = " ".join(str(each.pid) for each in hosts[1].processes() if "likewise.transport" in each.command)
        hosts[1].run(f"kill -STOP {agents}")
        assert client.do(WORKER_WAITS) == {"heartbeats": True, "given": 44, "status": "pending"}
        hosts[1].run(f"kill -CONT {agents}")
        assert client.do("answer = future.result(timeout=60), cluster.verify().ok") == [42, True]
        client.do("client.close(); cluster.close()")
    finally:
        client.end()
