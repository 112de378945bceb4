"""A cluster whose processes start before their environment has arrived. One client does it all.

One layer arrives when the test says so: it is promised until then.
"""

from __future__ import annotations

from typing import Any

import pytest

from support.processes import wait_until_gone
from support.users import common_cache, make_user_venv, run_script
from support.wheels import write_wheel

pytestmark = pytest.mark.registry

SCRIPT = """
import json, os, sys, time
from pathlib import Path
import dask
import msgspec
from likewise import Cluster
from likewise.events import StageFinished
from likewise.model.keys import loose_listing_key, promise_key
from likewise.sync import open_store, prepare

MARKER, NODES = sys.argv[1:]
OPTIONS = dict(threads_per_worker=1, node_cache=NODES, dashboard_address=None, env={"M": MARKER})
seen = {}

class Hold:
    # As soon as everything is in the store, this layer is promised and not there.
    def __init__(self, store, digest):
        self.listing, self.lease = store.path(loose_listing_key(digest)), store.lease([promise_key(digest)])
        self.kept = self.listing.with_name("kept")
    def report(self, event):
        if isinstance(event, StageFinished) and event.stage == "kit":
            self.listing.rename(self.kept)
    def release(self):
        self.kept.rename(self.listing)
        self.lease.release()

def with_numpy():
    import numpy
    return int(numpy.arange(4).sum())

def with_bulk():
    import bulk, bulk.inner, importlib.metadata
    return [bulk.VALUE, bulk.inner.VALUE, len(os.listdir(os.path.join(os.path.dirname(bulk.__file__), "data"))),
            importlib.metadata.version("bulk"), sys.prefix]

def look(prefix, digest):
    growing = prefix / "growing"
    return {"grows": growing.is_dir(), "launch": (prefix / "launch").exists(),
            "there": (growing / "there" / digest[:16]).exists(), "inner": any(prefix.rglob("inner.py")),
            "dist-info": any(prefix.rglob("bulk-1.0.dist-info/METADATA")),
            "waits": (growing / "map").read_text().split() if growing.is_dir() else [],
            "gate": any(prefix.rglob("000-likewise-gate.pth"))}

def streaming():
    Path(NODES).mkdir()
    with dask.config.set({"likewise.streaming": True}):
        prepared = prepare(loose=True)
        seen["guessed"] = prepared.first
        bulk = next(ref.digest for ref in prepared.manifest.layers if ref.name == "bulk")
        hold = Hold(prepared.store, bulk)
        with Cluster(1, reporter=hold, **OPTIONS) as cluster:
            prefix = Path(NODES, "node-0", "prefixes", cluster.environment.id[:16])
            client = cluster.get_client()
            seen["first"] = client.submit(with_numpy).result(timeout=120)
            seen["before"] = look(prefix, bulk)
            future = client.submit(with_bulk)
            time.sleep(0.5)
            seen["pending"] = not future.done()
            seen["beside"] = client.run_on_scheduler(lambda: sys.prefix)
            hold.release()
            seen["second"] = future.result(timeout=120)
            seen["verified"] = msgspec.to_builtins(cluster.verify())
            seen["after"] = look(prefix, bulk)
            seen["prefix"] = str(prefix)
            client.close()
        prepared.close()
        later = prepare(loose=True)
        seen["remembered"] = later.first
        later.close()

def plain():
    with dask.config.set({"likewise.streaming": False}), Cluster(1, **OPTIONS) as cluster:
        prefix = Path(NODES, "node-0", "prefixes", cluster.environment.id[:16])
        seen["off"] = look(prefix, "x")
        seen["off outline"] = cluster._prepared.manifest.outline
        client = cluster.get_client()
        seen["off result"] = client.submit(with_bulk).result(timeout=120)[:3]
        client.close()

if __name__ == "__main__":
    streaming()
    plain()
    print(json.dumps(seen))
"""
MARKER = "likewise-test-streaming-cluster"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client saw."""
    folder = tmp_path_factory.mktemp("streaming")
    files = {"bulk/__init__.py": b"VALUE = 7\n", "bulk/inner.py": b"VALUE = 8\n"}
    files |= {f"bulk/data/{n}.bin": b"%d" % n for n in range(300)}
    python = make_user_venv(folder / "venv", "numpy", write_wheel(folder, files, name="bulk"))
    (folder / "work").mkdir()
    (folder / "work" / "script.py").write_text(SCRIPT)
    nodes, cache = str(folder / "nodes"), common_cache(tmp_path_factory)
    document = run_script(python, folder / "work" / "script.py", MARKER, nodes, cache=cache, timeout=500)
    assert wait_until_gone(MARKER, 0) == {}
    return document


def test_the_first_task_does_not_wait_for_everything(seen: dict[str, Any]) -> None:
    """It is done while a layer that it does not need is on its way; of that one the metadata is there."""
    assert seen["first"] == 6
    before = seen["before"]
    assert before["launch"] and before["grows"] and before["gate"]
    assert "bulk" in before["waits"]
    assert not before["there"] and not before["inner"]
    assert before["dist-info"]


def test_an_import_waits_for_what_is_on_its_way(seen: dict[str, Any]) -> None:
    """It succeeds when the layer has come, with all of its files; the rest of the cluster answers meanwhile."""
    assert seen["pending"]
    assert seen["beside"] == seen["prefix"]
    assert seen["second"] == [7, 8, 300, "1.0", seen["prefix"]]


def test_in_the_end_it_is_a_prefix_like_any_other(seen: dict[str, Any]) -> None:
    """It is verified byte for byte, and nothing is left of the way that it came."""
    assert seen["verified"]["differences"] == []
    assert [node["node"] for node in seen["verified"]["nodes"]] == ["node-0"]
    assert seen["after"] == {
        "grows": False, "launch": True, "there": False, "inner": True, "dist-info": True, "waits": [], "gate": False,
    }  # fmt: skip


def test_what_a_worker_loaded_comes_first_the_next_time(seen: dict[str, Any]) -> None:
    """The first launch can only guess from the script; the next one knows."""
    assert sorted(seen["guessed"]) == ["bulk", "numpy"]
    assert seen["remembered"][:2] == ["numpy", "bulk"]


def test_switched_off_nothing_starts_early(seen: dict[str, Any]) -> None:
    """Everything is there before Python starts, and nothing is shipped for any other way."""
    assert seen["off outline"] is None
    assert seen["off"]["launch"] and seen["off"]["inner"]
    assert not seen["off"]["grows"] and not seen["off"]["gate"]
    assert seen["off result"] == [7, 8, 300]
