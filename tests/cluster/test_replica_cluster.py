"""A cluster in a replica: two simulated machines, verified, tampered with, verified again. One client does it all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from support.processes import wait_until_gone
from support.users import make_user_venv, run_script

pytestmark = pytest.mark.registry

SCRIPT = """
import asyncio, dataclasses, json, os, sys, time
from pathlib import Path
import msgspec
import loose
from likewise import Cluster, LikewiseError

MARKER, NODES = sys.argv[1:]
OPTIONS = dict(threads_per_worker=1, nodes=2, node_cache=NODES, dashboard_address=None, env={"M": MARKER})
seen, before = {}, {}

def where():
    modules = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
    return {"prefix": sys.prefix, "python": os.path.realpath(sys.executable), "path": sys.path, "modules": modules,
            "PATH": os.environ["PATH"]}

def verified(cluster):
    return msgspec.to_builtins(cluster.verify())

def edit(file, data):
    # What a program does that changes a file where it lies; undone later.
    os.chmod(file, 0o644)
    with open(file, "r+b") as f:
        before[file] = f.read(len(data))
        f.seek(0)
        f.write(data)

def join_stranger(cluster):
    # A worker with the cluster's credentials, but from the client's own prefix.
    stranger = cluster._worker_process(99, cluster.scheduler_address)
    argv = stranger.command.argv[stranger.command.argv.index("--") + 1:]
    stranger.command = dataclasses.replace(stranger.command, argv=(sys.executable, *argv))
    cluster.sync(stranger.start)
    return stranger

def main():
    started = time.perf_counter()
    with Cluster(2, **OPTIONS) as cluster:
        client = cluster.get_client()
        seen["computed"] = client.gather(client.map(loose.double, [1, 2, 3]))
        seen["first"] = {s.name: s.done for s in cluster.report.stages}
        seen["seconds"] = time.perf_counter() - started
        seen["environment"] = msgspec.to_builtins(cluster.environment)
        seen["scheduler"] = client.run_on_scheduler(where)
        seen["workers"] = list(client.run(where).values())
        seen["clean"] = verified(cluster)

        prefix = Path(NODES, "node-1", "prefixes", cluster.environment.id[:16])
        site = next(prefix.glob("lib/python3*/site-packages"))
        edit(site / "toolz" / "functoolz.py", b"# changed on the node")
        edit(next((site / "cloudpickle" / "__pycache__").glob("cloudpickle.*.pyc")), bytes(8) + b"tampered")
        (site / "toolz" / "new.py").write_text("")
        Path(loose.__file__).write_text("def double(x):\\n    return 3 * x\\n")
        stranger = join_stranger(cluster)
        client.wait_for_workers(3, timeout=30)
        try:
            cluster.verify(raise_on_difference=True)
        except LikewiseError as error:
            seen["raised"] = type(error).__name__
            seen["differences"] = error.details["differences"]
        cluster.sync(stranger.close)
        client.close()
    try:
        cluster.verify()
    except LikewiseError as error:
        seen["closed"] = type(error).__name__
    Path(loose.__file__).write_text("def double(x):\\n    return 2 * x\\n")
    for file, data in list(before.items()):
        edit(file, data)
        os.chmod(file, 0o444)

async def again():
    ticks = []
    async def tick():
        while True:
            await asyncio.sleep(0.05)
            ticks.append(1)
    ticking = asyncio.ensure_future(tick())
    started = time.perf_counter()
    async with Cluster(1, asynchronous=True, **{**OPTIONS, "nodes": 1}) as cluster:
        seen["second seconds"] = time.perf_counter() - started
        seen["second"] = {s.name: s.done for s in cluster.report.stages}
        seen["ticks"] = len(ticks)
        seen["second environment"] = cluster.environment.id
        report = await cluster.verify()
        seen["second ok"] = report.ok
    ticking.cancel()

if __name__ == "__main__":
    main()
    asyncio.run(again())
    print(json.dumps(seen))
"""
MARKER = "likewise-test-replica-cluster"


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with Dask and likewise, and the script beside a loose module."""
    folder = tmp_path_factory.mktemp("replica")
    python = make_user_venv(folder / "venv")
    (folder / "work").mkdir()
    (folder / "work" / "script.py").write_text(SCRIPT)
    (folder / "work" / "loose.py").write_text("def double(x):\n    return 2 * x\n")
    return python


@pytest.fixture(scope="module")
def seen(venv: Path) -> dict[str, Any]:
    """What the client saw."""
    folder = venv.parents[2]
    document = run_script(
        venv, folder / "work" / "script.py", MARKER, str(folder / "nodes"), cache=folder / "cache", timeout=500
    )
    assert wait_until_gone(MARKER, 0) == {}
    return document


def differences(seen: dict[str, Any], *nodes: str) -> set[tuple[str, str, str]]:
    """Kind, node and subject's file name of each difference, but for those of the other nodes."""
    found = {(d["kind"], d["node"], Path(d["subject"]).name) for d in seen["differences"]}
    return {(kind, node, name) for kind, node, name in found if node in nodes}


def test_it_computes_with_loose_code(seen: dict[str, Any]) -> None:
    """Tasks import the user's loose module on the nodes."""
    assert seen["computed"] == [2, 4, 6]


def test_all_processes_run_in_replicas(seen: dict[str, Any], venv: Path) -> None:
    """Scheduler and workers run interpreters and prefixes of their nodes' own, and load nothing of the client's."""
    folder = venv.parents[2]
    client = (str(folder / "venv"), str(folder / "work"), sys.base_prefix)
    processes = [seen["scheduler"], *seen["workers"]]
    assert seen["scheduler"]["prefix"].startswith(str(folder / "nodes" / "node-0"))
    assert len({p["prefix"] for p in processes}) == 2
    for process in processes:
        assert process["python"].startswith(process["prefix"])
        assert not [p for p in [*process["modules"], *process["path"]] if p.startswith(client)]
        assert str(venv.parent) not in process["PATH"].split(":")
        assert process["PATH"].startswith(process["prefix"])


def test_the_environment_is_named(seen: dict[str, Any]) -> None:
    """`cluster.environment` has the manifest's id, the interpreter and the distributions."""
    environment = seen["environment"]
    assert environment["id"] == seen["clean"]["manifest"]
    assert environment["python"] == "{}.{}.{}".format(*sys.version_info)
    assert {"dask", "distributed", "likewise"} <= environment["distributions"].keys()


def test_a_sound_cluster_is_verified(seen: dict[str, Any]) -> None:
    """Both nodes report every file, and nothing differs; the processes of each are named."""
    clean = seen["clean"]
    assert clean["differences"] == []
    assert [n["node"] for n in clean["nodes"]] == ["node-0", "node-1"]
    assert [len(n["processes"]) for n in clean["nodes"]] == [2, 1]
    assert clean["nodes"][0]["processes"][0] == "scheduler"
    assert clean["nodes"][0]["distributions"] == seen["environment"]["distributions"]


def test_tampering_is_found(seen: dict[str, Any]) -> None:
    """A changed file, a changed `.pyc` and an added file are named, with their node.

    Nodes on one machine share the files of the store: the change shows on both, what was added on one.
    """
    found = differences(seen, "node-0", "node-1")
    tag = f"cpython-{sys.version_info[0]}{sys.version_info[1]}"
    assert found == {
        *(("changed", node, "functoolz.py") for node in ("node-0", "node-1")),
        *(("changed", node, f"cloudpickle.{tag}.pyc") for node in ("node-0", "node-1")),
        ("extra", "node-1", "new.py"),
    }


def test_a_changed_client_is_found(seen: dict[str, Any]) -> None:
    """A module that was edited since the start is a difference of the client, and the only one."""
    ((kind, _, root),) = differences(seen, "client")
    assert kind == "client"
    assert root.startswith("code-")


def test_a_stranger_is_found(seen: dict[str, Any]) -> None:
    """A worker that joined from another prefix is no part of the replica, and is named."""
    (found,) = (d for d in seen["differences"] if d["node"] not in ("client", "node-0", "node-1"))
    assert found["kind"] == "unreachable"
    assert found["subject"].endswith("/venv")
    assert "no prefix of likewise" in found["actual"]


def test_differences_can_be_errors(seen: dict[str, Any]) -> None:
    """On request a difference raises; a closed cluster can't be verified."""
    assert seen["raised"] == "VerifyError"
    assert seen["closed"] == "ClusterError"


def test_the_second_start_does_nothing_again(seen: dict[str, Any]) -> None:
    """An unchanged environment starts without packing, building or compiling; the event loop is free meanwhile."""
    assert seen["second environment"] == seen["environment"]["id"]
    work = {name: {k: n for k, n in done.items() if k != "reused"} for name, done in seen["second"].items()}
    assert work.pop("start") == {"processes": 2}
    assert not any(n for done in work.values() for n in done.values())
    assert seen["ticks"] > 5
    assert seen["second ok"]
