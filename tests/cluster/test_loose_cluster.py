"""Nodes that share the client's file system link to what lies unpacked in its store. One client does it all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import wait_until_gone
from support.users import make_user_venv, run_script
from support.wheels import write_wheel

pytestmark = pytest.mark.registry

SCRIPT = """
import hashlib, json, os, subprocess, sys
from pathlib import Path
import dask
import msgspec
from likewise import Cluster
from likewise.model.keys import layer_key, loose_key
from likewise.sync import open_store, prepare

MARKER, NODES, ELSEWHERE = sys.argv[1:]
OPTIONS = dict(n_workers=1, threads_per_worker=1, dashboard_address=None, env={"M": MARKER})
seen = {}

def bulk():
    import bulk
    return [bulk.VALUE, bulk.__file__, bulk.__cached__]

def kinds():
    return {kind: found.items for kind, found in open_store().info().by_kind.items()}

def launch(folder):
    with Cluster(node_cache=folder, **OPTIONS) as cluster:
        client = cluster.get_client()
        value, file, cached = client.submit(bulk).result(timeout=120)
        report = msgspec.to_builtins(cluster.verify())
        links = [os.stat(file).st_nlink, os.stat(cached).st_nlink]
        client.close()
        return {"value": value, "links": links, "verified": report, "id": cluster.environment.id}

def tree(prepared, form):
    # Both at the same place: its path is in some of the files.
    argv = prepared.launch(Path(NODES, "same")).argv("materialise")
    prefix = Path(subprocess.run(argv, capture_output=True, check=True, text=True).stdout.strip())
    found = {}
    for path in sorted(prefix.rglob("*")):
        name = str(path.relative_to(prefix))
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file():
            found[name] = f"{path.stat().st_mode:o} " + hashlib.sha256(path.read_bytes()).hexdigest()
    Path(NODES, "same").rename(Path(NODES, form))
    return found

def packed():
    prepared, loose = prepare(), prepare(loose=True)
    done = {stage.name: stage.done for stage in prepared.report.stages}
    store, same = prepared.store, prepared.manifest.id == loose.manifest.id
    trees = [tree(loose, "loose"), tree(prepared, "packed")]
    digests = prepared.manifest.digests()
    both = all(store.has(layer_key(d)) and store.loose.layer(d) for d in digests)
    prepared.close(), loose.close()
    return {"compiled": done["bytecode"]["compiled"], "packed": done["pack"]["packed"], "count": len(digests),
            "same": same, "both": both, "id": prepared.manifest.id, "files": len(trees[0]),
            "differ": sorted(set(trees[0].items()) ^ set(trees[1].items()))}

if __name__ == "__main__":
    seen["streaming"] = launch(NODES)
    seen["kinds"] = kinds()
    with dask.config.set({"likewise.streaming": False}):
        seen["at once"] = launch(f"{NODES}/more")
    seen["kinds then"] = kinds()
    seen["packed"] = packed()
    if ELSEWHERE:
        seen["elsewhere"] = launch(ELSEWHERE)
    print(json.dumps(seen))
"""
MARKER = f"loose-{os.getpid()}"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder on another file system, "" where there is none."""
    folder = Path(f"/dev/shm/likewise-test-{os.getpid()}")
    if folder.parent.is_dir() and folder.parent.stat().st_dev != tmp_path_factory.getbasetemp().stat().st_dev:
        yield str(folder)
        shutil.rmtree(folder, ignore_errors=True)
    else:
        yield ""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, elsewhere: str) -> dict[str, Any]:
    """What the script saw, with a cache of its own."""
    folder = tmp_path_factory.mktemp("loose")
    files = {"bulk/__init__.py": b"VALUE = 7\n", "bulk/data.bin": bytes(50_000)}
    python = make_user_venv(folder / "venv", write_wheel(folder, files, name="bulk"))
    (folder / "work").mkdir()
    (folder / "work" / "script.py").write_text(SCRIPT)
    document = run_script(
        python, folder / "work" / "script.py", MARKER, str(folder / "nodes"), elsewhere,
        cache=folder / "cache", DASK_LIKEWISE__STREAMING="true",
    )  # fmt: skip
    assert wait_until_gone(MARKER, 0) == {}
    return document


@pytest.mark.parametrize("launch", ["streaming", "at once"])
def test_nodes_on_the_same_file_system_need_no_archive(seen: dict[str, Any], launch: str) -> None:
    """Every layer and the kit lie in the store unpacked and in no other form; the node's files are the store's,
    bytecode included, and nothing differs from the manifest."""
    assert seen[launch]["value"] == 7 and seen[launch]["verified"]["differences"] == []
    assert min(seen[launch]["links"]) >= 2
    assert seen["kinds"].keys() == seen["kinds then"].keys() == {"loose", "loose-kits", "manifests", "notes", "scripts"}


def test_archives_are_made_when_they_are_needed(seen: dict[str, Any]) -> None:
    """A later preparation that needs archives compiles nothing, packs every layer, the bytecode that only the store has
    included, and comes to the same environment."""
    packed = seen["packed"]
    assert packed["compiled"] == 0 and packed["packed"] == packed["count"]
    assert packed["same"] and packed["both"] and packed["id"] == seen["streaming"]["id"]


def test_both_forms_make_the_same_prefix(seen: dict[str, Any]) -> None:
    """A prefix that is linked to loose layers has file for file the contents and modes of one that is unpacked."""
    assert seen["packed"]["differ"] == []
    assert seen["packed"]["files"] > 1000


def test_a_cache_elsewhere_gets_archives(seen: dict[str, Any]) -> None:
    """Where files can't be linked to, nodes unpack archives as on any other machine."""
    if "elsewhere" not in seen:
        pytest.skip("/dev/shm is no other file system here")
    assert seen["elsewhere"]["value"] == 7 and seen["elsewhere"]["verified"]["differences"] == []
