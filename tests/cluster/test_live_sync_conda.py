"""Conda packages that come to a running cluster, and their records: these alone start no worker anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.conda_channel import CondaChannel, install
from support.conda_package import Package, script, write_channel
from support.prefixes import UV, run
from support.ssh_client import SHELL, SSHClient
from support.users import likewise_wheel

pytestmark = pytest.mark.registry

SPECS = ("python", "distributed")
MODULE = Package(
    "added",
    "1.0",
    {
        "site-packages/added.py": "VALUE = 7\n",
        "site-packages/added-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: added\nVersion: 1.0\n",
        "site-packages/added-1.0.dist-info/RECORD": "added.py,,\nadded-1.0.dist-info/METADATA,,\n",
    },
    noarch="python",
    subdir="noarch",
    depends=("python",),
)
PROGRAM = Package("program", "1.0", {"bin/program": script("#!/bin/sh\necho here\n")})

START = """
import msgspec
from likewise import Cluster

def there(*names):
    import importlib, os, sys
    values = [importlib.import_module(name).VALUE for name in names]
    records = sorted(name for name in os.listdir(sys.prefix + "/conda-meta") if name.endswith(".json"))
    return {{"pid": os.getpid(), "values": values, "records": records}}

def seen(*names):
    return {{
        "differences": [str(one) for one in cluster.verify().differences],
        "there": client.submit(there, *names, pure=False).result(),
    }}

cluster = Cluster(n_workers=1, threads_per_worker=1, node_cache={cache!r}, dashboard_address=None)
client = cluster.get_client()
answer = seen()
"""
SYNC = """
report = msgspec.to_builtins(cluster.sync())
answer = {"report": report, **seen("added")}
"""


@pytest.fixture(scope="module")
def synced(conda_channel: CondaChannel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A cluster of a conda prefix, which gets a distribution of conda's, and then a package that is none."""
    folder = tmp_path_factory.mktemp("sync-conda")
    channels = [conda_channel.folder, write_channel(folder / "more", [MODULE, PROGRAM])]
    prefix = install(folder / "conda", SPECS, channels, folder / "packages")
    python = prefix / "bin" / "python"
    run(UV, "pip", "install", "--quiet", "--python", python, likewise_wheel())
    (folder / "work").mkdir()
    (folder / "work" / "loose.py").write_text("")
    (folder / "work" / "client.py").write_text(SHELL)
    client = SSHClient(python, cache=folder / "cache", HOME=str(folder))
    try:
        started = client.do(START.format(cache=str(folder / "nodes")))
        install(prefix, [*SPECS, "added"], channels, folder / "packages")
        adopted = client.do(SYNC)
        install(prefix, [*SPECS, "added", "program"], channels, folder / "packages")
        replaced = client.do(SYNC)
        client.do("client.close(); cluster.close()")
        yield SimpleNamespace(started=started, adopted=adopted, replaced=replaced, own=records(prefix))
    finally:
        client.end()


def records(prefix: Path) -> list[str]:
    """Names of the records of a prefix."""
    return sorted(path.name for path in (prefix / "conda-meta").glob("*.json"))


def names(changes: list[dict[str, Any]]) -> list[str]:
    """What has changed."""
    return [one["name"] for one in changes]


def test_records_stand_in_no_ones_way(synced: SimpleNamespace) -> None:
    """A distribution that conda has installed is adopted: the prefix keeps its records, and is what it should be."""
    report, before = synced.adopted["report"], synced.started["there"]
    assert (names(report["added"]), report["changed"], report["removed"]) == (["added"], [], [])
    assert (report["layers"], report["workers_replaced"]) == (["added"], [])
    assert synced.adopted["there"] == {**before, "values": [7]}
    assert synced.started["differences"] == synced.adopted["differences"] == []


def test_new_workers_have_all_records(synced: SimpleNamespace) -> None:
    """A package that has to be in the prefix itself starts new workers; only what is new was shipped."""
    report = synced.replaced["report"]
    assert (names(report["added"]), report["changed"], report["removed"]) == (["conda:program"], [], [])
    assert set(report["layers"]) == {"conda:program", "conda:(records)"}
    assert len(report["workers_replaced"]) == 1
    assert synced.replaced["there"]["pid"] != synced.started["there"]["pid"]
    assert synced.replaced["there"]["records"] == synced.own
    assert synced.replaced["differences"] == []
    assert {"added-1.0-h0_0.json", "program-1.0-h0_0.json"} <= set(synced.own)
