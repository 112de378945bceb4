"""Distributions that only the cluster has: on simulated nodes, and on hosts that fetch them past the client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.indexes import IndexServer, offer, serve_index
from support.ssh_client import SHELL, SSHClient
from support.testbed import FakeHosts, fake_hosts
from support.users import make_user_venv, run_script

__all__ = ["fake_hosts"]

pytestmark = pytest.mark.registry

SCRIPT = """
import json, sys
from contextlib import closing
from pathlib import Path
import msgspec
from likewise import Cluster, LikewiseError
from likewise.sync import prepare

OPTIONS = dict(n_workers=1, threads_per_worker=1, node_cache=sys.argv[1], dashboard_address=None)

def there():
    import beside, beneath
    return beside.VERSION, beneath.VERSION

def main():
    seen = {}
    with closing(prepare(loose=True)) as plain:
        seen["plain"] = [list(plain.manifest.kit), plain.kit_id]
    with Cluster(**OPTIONS, package_sync_extras=["beside"]) as cluster, cluster.get_client() as client:
        seen["computed"] = client.submit(there).result()
        seen["kit"] = [list(cluster._prepared.manifest.kit), cluster._prepared.kit_id]
        seen["environment"] = cluster.environment.distributions
        seen["verified"] = msgspec.to_builtins(cluster.verify())
        seen["stages"] = {stage.name: stage.done for stage in cluster.report.stages}
        seen["drift"] = [str(one) for one in cluster.drift()]
        (Path(__file__).parent / "loose.py").write_text("VALUE = 2\\n")
        seen["synced"] = [change.name for change in cluster.sync().changed]
        seen["still"] = client.submit(there).result()
        seen["verified again"] = cluster.verify().ok
    try:
        import beside
    except ImportError as error:
        seen["here"] = str(error)
    try:
        Cluster(**OPTIONS, package_sync_extras=["nosuch"]).close()
    except LikewiseError as error:
        seen["refused"] = error.what
    print(json.dumps(seen))

if __name__ == "__main__":
    main()
"""


def offered(folder: Path, version: str) -> Path:
    """Two pure wheels, one of which requires the other and Dask, which is installed here."""
    offer(folder, "beside", version, requires=["beneath", "dask"])
    offer(folder, "beneath", version)
    return folder


def names(index: IndexServer) -> set[str]:
    """The wheels that were asked for, by the first word of their names."""
    return {one.path.rpartition("/")[2].split("-")[0] for one in index.asked if one.path.endswith(".whl")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's venv, and scripts beside a loose module."""
    folder = tmp_path_factory.mktemp("extras")
    make_user_venv(folder / "venv", "asyncssh")
    (folder / "work").mkdir()
    for name, text in {"loose.py": "VALUE = 1\n", "script.py": SCRIPT, "client.py": SHELL}.items():
        (folder / "work" / name).write_text(text)
    return folder


def settings(folder: Path, index: IndexServer) -> dict[str, str]:
    """The environment of a user who has one index and nothing else."""
    found = {"HOME": str(folder), "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "UV_HTTP_RETRIES": "0"}
    return {**found, "UV_DEFAULT_INDEX": index.url}


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict[str, Any]:
    """What a client with one index saw."""
    python, script = folder / "venv" / "bin" / "python", folder / "work" / "script.py"
    with serve_index(offered(folder / "wheels", "2.1")) as index:
        environ = settings(folder, index)
        seen = run_script(python, script, str(folder / "nodes"), cache=folder / "cache", **environ)
        return {**seen, "asked": sorted(names(index))}


def test_tasks_import_what_the_client_does_not_have(seen: dict[str, Any]) -> None:
    """With what it requires; the client itself still has neither."""
    assert seen["computed"] == ["2.1", "2.1"]
    assert seen["here"] == "No module named 'beside'"
    assert seen["asked"] == ["beneath", "beside"]


def test_it_is_part_of_the_environment(seen: dict[str, Any]) -> None:
    """Named, checked on the nodes, and no difference to the client, whose own it is not."""
    assert seen["environment"]["beside"] == seen["environment"]["beneath"] == "2.1"
    assert seen["verified"]["differences"] == [] and seen["drift"] == []
    assert all(node["distributions"]["beside"] == "2.1" for node in seen["verified"]["nodes"])
    assert seen["stages"]["fetch"]["fetched"] == 2


def test_the_kit_is_the_same(seen: dict[str, Any]) -> None:
    """Nodes join as they do without it."""
    assert seen["kit"] == seen["plain"]


def test_a_sync_leaves_it_alone(seen: dict[str, Any]) -> None:
    """What else changed is brought to the cluster, and it stays."""
    assert len(seen["synced"]) == 1 and seen["synced"][0].startswith("code-")
    assert seen["still"] == ["2.1", "2.1"] and seen["verified again"]


def test_what_can_not_be_had_ends_the_launch(seen: dict[str, Any]) -> None:
    """Before anything is started."""
    assert "nosuch can't be had for linux" in seen["refused"]


START = """
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     package_sync_extras=["beside"])
client = cluster.get_client()
"""

SEEN = """
def there():
    import beside, beneath
    return beside.VERSION, beneath.VERSION

computed = client.submit(there).result()
while [one for one in cluster.report.layers if not one.source and one.kind.value != "bytecode"]:
    time.sleep(0.2)
report = cluster.verify()
answer = {
    "computed": computed,
    "ok": report.ok,
    "differences": [str(one) for one in report.differences],
    "sources": {one.name: one.source for one in cluster.report.layers if one.kind.value == "distribution"},
    "fetch": next(stage.done for stage in cluster.report.stages if stage.name == "fetch"),
}
client.close(); cluster.close()
"""


@pytest.fixture(scope="module")
def on_hosts(fake_hosts: FakeHosts, folder: Path) -> Iterator[SimpleNamespace]:
    """A host without Python, which reaches the index; and the same launch again when the index is gone."""
    hosts = fake_hosts(1, fresh=True)
    with serve_index(offered(folder / "newer", "3.0"), host=hosts.client_address) as index:
        environ = settings(folder, index)
        client = SSHClient(folder / "venv" / "bin" / "python", cache=folder / "cache", **environ)
        try:
            start = START.format(hosts=[hosts[0].name, hosts[0].name], config=str(hosts.ssh_config))
            client.do(start)
            first = client.do(SEEN)
            asked = list(index.asked)
            index.stop()
            client.do(start)
            yield SimpleNamespace(hosts=hosts, first=first, asked=asked, second=client.do(SEEN))
        finally:
            client.end()


@pytest.mark.root
def test_hosts_fetch_it_by_themselves(on_hosts: SimpleNamespace) -> None:
    """The client reads enough of the wheels to know their layers, and leaves them to the host."""
    seen, hosts = on_hosts.first, on_hosts.hosts
    assert seen["computed"] == ["3.0", "3.0"]
    assert (seen["ok"], seen["differences"]) == (True, [])
    assert {seen["sources"][name] for name in ("beside", "beneath")} == {"index"}
    assert seen["fetch"] == {**seen["fetch"], "left": 2, "fetched": 0}
    wheels = [one for one in on_hosts.asked if one.path.endswith(".whl")]
    assert all("range" in one.headers for one in wheels if one.address == hosts.client_address)
    whole = [one for one in wheels if one.address == hosts[0].address]
    assert len(whole) == 2


@pytest.mark.root
def test_a_second_launch_needs_no_index(on_hosts: SimpleNamespace) -> None:
    """The plan is remembered, what was read of the wheels is kept, and the host still has the layers."""
    assert on_hosts.second["computed"] == ["3.0", "3.0"]
    assert on_hosts.second["ok"]
