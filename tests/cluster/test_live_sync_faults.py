"""What goes wrong while a running cluster is brought up to date. One client does it all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.prefixes import UV
from support.processes import wait_until_gone
from support.users import common_cache, make_user_venv, run_script
from support.wheels import write_wheel

pytestmark = pytest.mark.registry

SCRIPT = r"""
import asyncio, dataclasses, gc, importlib, json, os, signal, subprocess, sys, threading, time, warnings
from pathlib import Path
import msgspec
import toolz, tornado.util
from distributed import Client
from likewise import Cluster, LikewiseError

UV, WHEELS, MARKER, NODES = sys.argv[1:]
OPTIONS = dict(threads_per_worker=1, node_cache=NODES, dashboard_address=None, env={"M": MARKER})
seen = {}

def install(name):
    argv = [UV, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--no-index"]
    subprocess.run([*argv, f"{WHEELS}/{name}-py3-none-any.whl"], check=True)
    importlib.invalidate_caches()

def value_of(name):
    import importlib
    return importlib.import_module(name).VALUE

def where():
    return [os.path.basename(sys.prefix), os.getpid()]

def problems(cluster):
    return [[d.kind.value, d.layer, d.subject] for d in cluster.verify().differences]

def error_of(function):
    try:
        function()
    except LikewiseError as error:
        return [type(error).__name__, str(error)]

class Edited:
    # A file of the environment with another content for a while.
    def __init__(self, file):
        self.file, self.before = Path(file), Path(file).read_bytes()
    def __enter__(self):
        self.write(self.before + b"\n# edited\n")
    def __exit__(self, *error):
        self.write(self.before)
    def write(self, content):
        self.file.unlink()  # installers hard-link files of one cache into every prefix: an edit in place edits them all
        self.file.write_bytes(content)

def one_node_cannot(cluster, client):
    Path(NODES, "node-1", "deltas", cluster._cluster_id).write_text("in the way")
    before = client.run(where)
    install("first-1.0")
    report = cluster.sync()
    after = client.run(where)
    seen["fallback"] = {
        "replaced": list(report.workers_replaced),
        "stayed": len(set(before) & set(after)),
        "values": list(client.run(value_of, "first").values()),
        "id": cluster.environment.id[:16],
        "new prefixes": [prefix for address, (prefix, _) in after.items() if address not in before],
        "problems": problems(cluster),
    }
    Path(NODES, "node-1", "deltas", cluster._cluster_id).unlink()

def joins_later(cluster, client):
    cluster.scale(3)
    client.wait_for_workers(3, timeout=60)
    seen["later"] = sorted(client.run(value_of, "first").values())
    cluster.scale(2)
    deadline = time.monotonic() + 60
    while len(client.run(os.getpid, on_error="ignore")) != 2:
        time.sleep(0.1)
        assert time.monotonic() < deadline

def what_it_runs_on(cluster, client):
    before = client.run(where)
    with Edited(tornado.util.__file__):
        seen["critical"] = error_of(cluster.sync)
    seen["critical changed nothing"] = client.run(where) == before and problems(cluster) == []
    with Edited(toolz.__file__), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = cluster.sync()
        seen["stale"] = [change.name for change in report.scheduler_stale]
        seen["warned"] = [str(w.message) for w in caught if "toolz" in str(w.message)]
        seen["stale problems"] = problems(cluster)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster.sync()
    seen["stale again"] = problems(cluster)

class Counter:
    n = 0

def holding_actors(cluster, client):
    actor = client.submit(Counter, actor=True).result()
    before = client.run(where)
    install("first-2.0")
    seen["actors"] = error_of(cluster.sync)
    seen["actors kept"] = actor.n.result() if hasattr(actor.n, "result") else actor.n
    seen["actors changed nothing"] = client.run(where) == before
    del actor
    gc.collect()
    deadline = time.monotonic() + 60
    while client.run_on_scheduler(lambda dask_scheduler: any(w.actors for w in dask_scheduler.workers.values())):
        time.sleep(0.1)
        assert time.monotonic() < deadline

def new_workers_fail(cluster, client):
    before, old, make = client.run(where), cluster.environment.id, cluster._worker_process
    def broken(name, scheduler):
        process = make(name, scheduler)
        process.command = dataclasses.replace(process.command, argv=("sh", "-c", "echo no way >&2; exit 3"))
        return process
    cluster._worker_process = broken
    seen["broken"] = error_of(cluster.sync)
    cluster._worker_process = make
    seen["broken changed nothing"] = client.run(where) == before and cluster.environment.id == old
    seen["usable"] = client.submit(value_of, "first", pure=False).result()

def slow_at_first(note):
    # Ends soon only when it is run again.
    if not os.path.exists(note):
        Path(note).touch()
        time.sleep(300)
    return os.getpid()

def worker_dies(cluster, client):
    # A worker that is being emptied is killed together with its nanny, with a task that runs there.
    address, (_, pid) = sorted(client.run(where).items())[0]
    note = Path(NODES, "note")
    running = client.submit(slow_at_first, str(note), workers=[address], allow_other_workers=True)
    while not note.exists():
        time.sleep(0.05)
    (process,) = [p for p in cluster.workers.values() if p.name == client.scheduler_info()["workers"][address]["name"]]
    def kill():
        deadline = time.monotonic() + 100
        while len(cluster.scheduler_info["workers"]) < 3 and time.monotonic() < deadline:  # a new one has joined
            time.sleep(0.05)
        time.sleep(1)
        os.kill(process.pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    killer = threading.Thread(target=kill)
    killer.start()
    seen["death"] = error_of(cluster.sync)
    killer.join()
    seen["second"] = error_of(cluster.sync)
    seen["redone"] = running.result() != pid
    seen["after death"] = list(client.run(value_of, "first").values())
    seen["after death problems"] = problems(cluster)

def worker_died_just_before(cluster, client):
    # Its nanny starts it again while the others have everything already.
    pid = client.run(os.getpid).popitem()[1]
    install("third-1.0")
    os.kill(pid, signal.SIGKILL)
    report = cluster.sync()
    client.wait_for_workers(2, timeout=60)
    pids = client.run(os.getpid).values()
    seen["came back"] = {
        "restarted": len(pids) == 2 and pid not in pids,
        "replaced": list(report.workers_replaced),
        "values": list(client.run(value_of, "third").values()),
        "problems": problems(cluster),
    }

async def asynchronously():
    async with Cluster(1, asynchronous=True, nanny=False, **OPTIONS) as cluster:
        async with Client(cluster, asynchronous=True) as client:
            install("second-1.0")
            drift = await cluster.drift()
            report = await cluster.sync()
            seen["async"] = [
                [d.subject for d in drift], [c.name for c in report.added], list(report.workers_replaced),
                list((await client.run(value_of, "second")).values()), (await cluster.verify()).ok,
            ]
    seen["closed"] = error_of(cluster.drift)

def main():
    with Cluster(2, nodes=2, **OPTIONS) as cluster:
        client = cluster.get_client()
        for part in (one_node_cannot, joins_later, what_it_runs_on, holding_actors, new_workers_fail, worker_dies,
                     worker_died_just_before):
            part(cluster, client)
            print(part.__name__, file=sys.stderr, flush=True)
        client.close()
    asyncio.run(asynchronously())
    with Cluster(0, package_sync=False, dashboard_address=None) as plain:
        seen["plain"] = error_of(plain.sync)
    print(json.dumps(seen))

if __name__ == "__main__":
    main()
"""
MARKER = "likewise-test-live-faults"


def wheels(folder: Path) -> None:
    """Small packages."""
    for name, version in (("first", 1), ("first", 2), ("second", 1), ("third", 1)):
        write_wheel(folder, {f"{name}.py": f"VALUE = {version}\n".encode()}, name=name, version=f"{version}.0")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client saw."""
    folder = tmp_path_factory.mktemp("faults")
    wheels(folder / "wheels")
    python = make_user_venv(folder / "venv")
    (folder / "work").mkdir()
    (folder / "work" / "script.py").write_text(SCRIPT)
    argv = [UV, str(folder / "wheels"), MARKER, str(folder / "nodes")]
    document = run_script(
        python, folder / "work" / "script.py", *argv, cache=common_cache(tmp_path_factory), timeout=500
    )
    assert wait_until_gone(MARKER, 0) == {}
    return document


def test_a_node_that_can_not(seen: dict[str, Any]) -> None:
    """Where an addition can't be laid beside the prefix, the node's workers are replaced; the others stay."""
    found = seen["fallback"]
    assert found["replaced"] == ["1"] and found["stayed"] == 1
    assert found["new prefixes"] == [found["id"]]
    assert found["values"] == [1, 1]
    assert found["problems"] == []


def test_workers_that_join_later(seen: dict[str, Any]) -> None:
    """A worker that is started after a sync runs what the others run."""
    assert seen["later"] == [1, 1, 1]


def test_what_the_cluster_runs_on(seen: dict[str, Any]) -> None:
    """A change of what client, scheduler and workers themselves run on is refused, with what to do."""
    kind, text = seen["critical"]
    assert kind == "ClusterError"
    assert "tornado" in text and "Start the cluster again" in text
    assert seen["critical changed nothing"]


def test_a_scheduler_that_is_stale(seen: dict[str, Any]) -> None:
    """What the scheduler has loaded and can't exchange is named by report, warning and verify, until it is back."""
    assert seen["stale"] == ["toolz"]
    assert seen["warned"]
    assert ["version", "toolz", "scheduler"] in seen["stale problems"]
    assert seen["stale again"] == []


def test_actors(seen: dict[str, Any]) -> None:
    """Workers that hold actors are not replaced: the sync says so, and the actors live on."""
    kind, text = seen["actors"]
    assert kind == "ClusterError" and "actors" in text
    assert seen["actors kept"] == 0 and seen["actors changed nothing"]


def test_new_workers_that_fail(seen: dict[str, Any]) -> None:
    """When new workers don't start, their last words are the error, and the old ones go on in the old environment."""
    kind, text = seen["broken"]
    assert kind == "ClusterError" and "no way" in text
    assert seen["broken changed nothing"] and seen["usable"] == 1


def test_a_worker_that_dies(seen: dict[str, Any]) -> None:
    """A worker that is killed while it is emptied takes nothing along: its task runs again, all is as it should be."""
    assert seen["death"] is None and seen["second"] is None
    assert seen["redone"]
    assert seen["after death"] == [2, 2]
    assert seen["after death problems"] == []


def test_a_worker_that_died_just_before(seen: dict[str, Any]) -> None:
    """A worker that its nanny is starting again when the sync begins is waited for, and gets what the others got."""
    assert seen["came back"] == {"restarted": True, "replaced": [], "values": [1, 1], "problems": []}


def test_asynchronous_clusters(seen: dict[str, Any]) -> None:
    """sync() and drift() are awaitable; workers without a nanny take on an addition as well."""
    assert seen["async"] == [["second"], ["second"], [], [1], True]


def test_nothing_to_sync(seen: dict[str, Any]) -> None:
    """A closed cluster, and one without a replica, say what they are."""
    assert seen["closed"][0] == "ClusterError"
    assert seen["plain"][0] == "UsageError"
