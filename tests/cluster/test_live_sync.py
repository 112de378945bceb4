"""A cluster that is kept up to date while it runs: additions, changes, removals, edits. One client does it all."""

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
import importlib, json, os, signal, subprocess, sys, time, warnings
from pathlib import Path
import msgspec
import distributed
from distributed import wait
import changing, loose
from likewise import Cluster, LikewiseError

UV, WHEELS, MARKER, NODES = sys.argv[1:]
HERE = Path(__file__).parent
seen = {}

def uv(*argv):
    subprocess.run([UV, "pip", *argv[:1], "--quiet", "--python", sys.executable, *argv[1:]], check=True)

def install(name):
    uv("install", "--no-deps", "--no-index", f"{WHEELS}/{name}-py3-none-any.whl")
    importlib.invalidate_caches()

def value_of(name, attribute="VALUE"):
    import importlib
    return getattr(importlib.import_module(name), attribute)

def version_of(name):
    from importlib.metadata import version
    return version(name)

def pids(client):
    return sorted(client.run(os.getpid).values())

def synced(cluster):
    return msgspec.to_builtins(cluster.sync())

def problems(cluster):
    return msgspec.to_builtins(cluster.verify().differences)

def added(cluster, client):
    results = client.map(lambda x: x + 1, range(1000))
    wait(results)
    before = pids(client), cluster.environment.id
    install("plain-1.0")
    seen["drift"] = [d.subject for d in cluster.drift()]
    seen["added"] = synced(cluster)
    seen["added drift"] = [d.subject for d in cluster.drift()]
    started = time.perf_counter()
    cluster.drift()
    seen["quiet drift seconds"] = time.perf_counter() - started
    seen["same processes"] = before[0] == pids(client)
    seen["other id"] = before[1] != cluster.environment.id
    seen["imported"] = list(client.run(value_of, "plain").values())
    seen["versions"] = list(client.run(version_of, "plain").values())
    seen["on the scheduler"] = client.run_on_scheduler(value_of, "plain")
    import plain
    seen["by reference"] = client.submit(plain.double, 21).result()
    child = "plain-says; python -c 'import plain; print(plain.VALUE)'"
    seen["in a child"] = list(client.run(lambda: os.popen(child).read().split()).values())
    seen["results"] = sum(client.gather(results)) == sum(range(1, 1001))
    seen["added problems"] = problems(cluster)
    seen["again"] = synced(cluster)

def restarted(cluster, client):
    victim = pids(client)[0]
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while victim in (now := list(client.run(os.getpid, on_error="ignore").values())) or len(now) < 2:
        time.sleep(0.1)
        assert time.monotonic() < deadline
    seen["restarted"] = list(client.run(value_of, "plain").values())
    seen["restarted problems"] = problems(cluster)

def slow(seconds):
    import changing
    time.sleep(seconds)
    return changing.VALUE, os.getpid()

def changed(cluster, client):
    (data,) = client.scatter([list(range(100))])
    seen["loaded before"] = list(client.run(value_of, "changing").values())
    before, scheduler = pids(client), client.run_on_scheduler(os.getpid)
    running = client.submit(slow, 3, pure=False)
    waiting = client.map(slow, [0.1] * 8, pure=False)
    while not any(client.processing().values()):
        time.sleep(0.01)
    time.sleep(0.3)
    install("changing-2.0")
    (HERE / "loose.py").write_text("def double(x):\n    return 20 * x\ndef triple(x):\n    return 3 * x\n")
    seen["changed"] = synced(cluster)
    after = pids(client)
    seen["new processes"] = not set(before) & set(after) and len(after) == 2
    seen["ran on the old one"] = (running.result()[0], running.result()[1] in before)
    seen["waited"] = sorted({value for value, _ in client.gather(waiting)})
    seen["same scheduler"] = scheduler == client.run_on_scheduler(os.getpid)
    seen["loaded after"] = list(client.run(value_of, "changing").values())
    seen["scattered"] = data.result() == list(range(100))
    importlib.reload(loose)
    seen["loose"] = [client.submit(loose.double, 2).result(), client.submit(loose.triple, 2).result()]
    seen["changed problems"] = problems(cluster)

def probed(cluster, client):
    def look():
        try:
            import sought
        except ImportError:
            return True
    seen["nobody has it"] = all(client.run(look).values())
    before = pids(client)
    uv("uninstall", "removed")
    install("sought-1.0")
    seen["probed"] = synced(cluster)
    seen["probed processes"] = not set(before) & set(pids(client))
    seen["sought"] = list(client.run(value_of, "sought").values())
    seen["gone"] = list(client.run(lambda: importlib.util.find_spec("removed") is None).values())

def failing(cluster, client):
    # The store loses what was just put into it: no node can get the layer.
    install("plain-2.0")
    import likewise.sync as stages
    publish = stages.publish
    def losing(*args, **kwargs):
        made = publish(*args, **kwargs)
        (ref,) = (ref for ref in made.manifest.layers if ref.name == "plain")
        made.store.loose.remove_layer(ref.digest)
        return made
    stages.publish = losing
    before, old = pids(client), cluster.environment.id
    try:
        cluster.sync()
    except LikewiseError as error:
        seen["failed"] = str(error)
    stages.publish = publish
    same = before == pids(client), cluster.environment.id == old
    seen["usable"] = [client.submit(value_of, "plain", pure=False).result(), *same]
    seen["after failing"] = synced(cluster)["changed"]
    seen["after failing value"] = list(client.run(value_of, "plain").values())

def automatic(cluster):
    client = cluster.get_client()
    seen["one client"] = client is cluster.get_client()
    before = pids(client)
    install("later-1.0")
    import later
    seen["automatic"] = client.submit(later.double, 4).result()
    seen["automatic same processes"] = before == pids(client)
    seen["automatic id"] = cluster.environment.distributions.get("later")

def main():
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    options = dict(threads_per_worker=1, nodes=2, node_cache=NODES, dashboard_address=None, env={"M": MARKER})
    with Cluster(2, auto_sync=True, **options) as cluster:
        client = distributed.Client(cluster)
        for part in (added, restarted, changed, probed, failing):
            part(cluster, client)
        client.close()
        automatic(cluster)
    print(json.dumps(seen))

if __name__ == "__main__":
    main()
"""
MARKER = "likewise-test-live-sync"


def wheels(folder: Path) -> None:
    """Small packages in several versions."""

    def wheel(name: str, version: str, value: int, **more: bytes) -> None:
        code = f"VALUE = {value}\ndef double(x):\n    return 2 * x\ndef says():\n    print('said')\n"
        write_wheel(folder, {f"{name}/__init__.py": code.encode(), **more}, name=name, version=version)

    wheel(
        "plain", "1.0", 1, **{"plain-1.0.dist-info/entry_points.txt": b"[console_scripts]\nplain-says = plain:says\n"}
    )
    wheel("plain", "2.0", 2)
    wheel("changing", "1.0", 10)
    wheel("changing", "2.0", 20)
    wheel("sought", "1.0", 3)
    wheel("removed", "1.0", 4)
    wheel("later", "1.0", 5)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client saw."""
    folder = tmp_path_factory.mktemp("live")
    wheels(folder / "wheels")
    first = [folder / "wheels" / f"{name}-1.0-py3-none-any.whl" for name in ("changing", "removed")]
    python = make_user_venv(folder / "venv", *first)
    (folder / "work").mkdir()
    (folder / "work" / "script.py").write_text(SCRIPT)
    (folder / "work" / "loose.py").write_text("def double(x):\n    return 2 * x\n")
    argv = [UV, str(folder / "wheels"), MARKER, str(folder / "nodes")]
    document = run_script(
        python, folder / "work" / "script.py", *argv, cache=common_cache(tmp_path_factory), timeout=500
    )
    assert wait_until_gone(MARKER, 0) == {}
    return document


def names(changes: list[dict[str, str]]) -> dict[str, tuple[str, str]]:
    """Old and new version by name."""
    return {change["name"]: (change["old"], change["new"]) for change in changes}


def test_only_what_was_added_travels(seen: dict[str, Any]) -> None:
    """After an installation, exactly that layer is shipped: less than two kilobytes, and nothing is restarted."""
    report = seen["added"]
    assert seen["drift"] == ["plain"]
    assert names(report["added"]) == {"plain": ("", "1.0")}
    assert report["changed"] == report["removed"] == report["workers_replaced"] == report["scheduler_stale"] == []
    assert report["layers"] == ["plain"]
    assert 0 < report["shipped_bytes"] < 2000
    assert seen["same processes"] and seen["other id"]


def test_every_process_has_what_was_added(seen: dict[str, Any]) -> None:
    """Workers, scheduler and children import it, with its metadata; its scripts run, and its functions can be sent."""
    assert seen["imported"] == [1, 1] and seen["on the scheduler"] == 1
    assert seen["versions"] == ["1.0", "1.0"]
    assert seen["by reference"] == 42
    assert seen["in a child"] == [["said", "1"]] * 2


def test_results_stay(seen: dict[str, Any]) -> None:
    """A thousand results that were computed before are still there."""
    assert seen["results"]


def test_an_updated_cluster_is_verified(seen: dict[str, Any]) -> None:
    """A prefix with what was added beside it, and later the new workers, are byte for byte what they should be."""
    assert seen["added problems"] == seen["restarted problems"] == seen["changed problems"] == []


def test_an_unchanged_environment(seen: dict[str, Any]) -> None:
    """There is no drift after a sync, which is seen at a glance, and another sync does nothing."""
    assert seen["added drift"] == []
    assert seen["quiet drift seconds"] < seen["again"]["seconds"]
    assert not (seen["again"]["layers"] or seen["again"]["added"] or seen["again"]["workers_replaced"])
    assert seen["again"]["manifest"] == seen["added"]["manifest"]


def test_a_restarted_worker_has_it_too(seen: dict[str, Any]) -> None:
    """A worker that its nanny brought back after a kill imports what was added."""
    assert seen["restarted"] == [1, 1]


def test_changes_start_new_workers(seen: dict[str, Any]) -> None:
    """Another version of a loaded package, and an edited module, run on new workers; the scheduler stays."""
    assert seen["loaded before"] == [10, 10]
    report = seen["changed"]
    assert names(report["changed"]) == {"changing": ("1.0", "2.0"), "code-0": ("", "")}
    assert all(change["why_new_workers"] for change in report["changed"])
    assert len(report["workers_replaced"]) == 2 and report["layers"] == ["changing", "code-0"]
    assert seen["new processes"] and seen["same scheduler"]
    assert seen["loaded after"] == [20, 20]


def test_what_runs_ends_where_it_runs(seen: dict[str, Any]) -> None:
    """A task that runs during the sync ends on the old worker, none is begun anew, and data moves to the new ones."""
    assert seen["ran on the old one"] == [10, True]
    assert seen["changed"]["interrupted"] == []
    assert set(seen["waited"]) <= {10, 20}
    assert seen["scattered"]


def test_edited_modules(seen: dict[str, Any]) -> None:
    """New workers run the edited module, and functions that it did not have before can be sent to them."""
    assert seen["loose"] == [40, 6]
    assert seen["changed"]["scheduler_stale"] == []


def test_what_was_looked_for(seen: dict[str, Any]) -> None:
    """A package that a worker has looked for in vain is a change, like one that was removed."""
    assert seen["nobody has it"]
    report = seen["probed"]
    assert names(report["added"]) == {"sought": ("", "1.0")} and names(report["removed"]) == {"removed": ("1.0", "")}
    assert "looked for sought" in report["added"][0]["why_new_workers"]
    assert seen["probed processes"]
    assert seen["sought"] == [3, 3]
    assert seen["gone"] == [True, True]


def test_a_failed_sync_changes_nothing(seen: dict[str, Any]) -> None:
    """When no node can get a layer, the layer is named, the cluster works on as it was, and the next sync succeeds."""
    assert "plain" in seen["failed"]
    assert seen["usable"] == [1, True, True]
    assert names(seen["after failing"]) == {"plain": ("1.0", "2.0")}
    assert seen["after failing value"] == [2, 2]


def test_auto_sync(seen: dict[str, Any]) -> None:
    """With `auto_sync` an installation comes to the cluster before the next task, without being asked for."""
    assert seen["one client"]
    assert seen["automatic"] == 8
    assert seen["automatic same processes"]
    assert seen["automatic id"] == "1.0"
