"""What is added to an environment lies beside the prefix of a running process, which imports it from then on."""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from likewise.errors import NodeError, UsageError
from likewise.model.layer import LayerKind
from likewise.node.adopt import read_manifests
from likewise.node.cache import NodeCache, host_name, open_cache, start_time
from likewise.node.delta import make_delta
from likewise.node.expiry import prune
from likewise.node.materialise import materialise
from likewise.node.sources import DirectoryStore
from likewise.node.verify import verify_prefix
from support.nodes import distribution, layer, manifest_of, put, put_manifest, real_kit, start

CLUSTER = "0123456789abcdef"
ONE = distribution("one", {"purelib/one.py": b"x = 1\n"})
ONE_CHANGED = distribution("one", {"purelib/one.py": b"x = 2\n"}, version="2.0")
TWO = distribution(
    "two",
    {"purelib/two/__init__.py": b"def main(): print('two says', __import__('one').x)\n"},
    entry_points="[console_scripts]\ntwo = two:main\n",
)
BYTECODE = layer("two", {"purelib/two/__pycache__/__init__.cpython-311.pyc": b"pyc"}, kind=LayerKind.BYTECODE)
CODE = layer("code-0", {"code/code-0/mine.py": b"y = 3\n"}, kind=LayerKind.CODE)
BASE = manifest_of(ONE)
MORE = manifest_of(ONE, TWO, CODE, bytecode={"two": BYTECODE}, after=("code-0",))


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return open_cache(str(tmp_path / "cache"))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    put(tmp_path / "store", ONE, TWO, CODE, BYTECODE, ONE_CHANGED)
    return DirectoryStore(str(tmp_path / "store"))


def test_only_what_is_new_is_laid_out(cache: NodeCache, store: DirectoryStore) -> None:
    """The delta has the added layers as a prefix would have them, with RECORD, scripts and bytecode, and no others."""
    folder = Path(make_delta(cache, CLUSTER, MORE, BASE, [store]))
    site = folder / "lib" / MORE.python / "site-packages"
    assert sorted(p.name for p in site.iterdir()) == ["two", "two-1.0.dist-info"]
    assert (site / "two/__pycache__/__init__.cpython-311.pyc").read_bytes() == b"pyc"
    assert (site / "two-1.0.dist-info/INSTALLER").read_text() == "likewise\n"
    assert "../../../bin/two,sha256=" in (site / "two-1.0.dist-info/RECORD").read_text()
    assert (folder / "code/code-0/mine.py").read_bytes() == b"y = 3\n"
    assert folder.parent.name == CLUSTER
    assert read_manifests(str(folder)) == (MORE, BASE)
    assert os.listdir(cache.place("tmp")) == []


def test_a_changed_layer_is_laid_out_too(cache: NodeCache, store: DirectoryStore) -> None:
    """For a scheduler, which can't be replaced, the delta has what changed as well."""
    folder = make_delta(cache, CLUSTER, manifest_of(ONE_CHANGED), BASE, [store])
    assert Path(folder, "lib", BASE.python, "site-packages/one.py").read_text() == "x = 2\n"


def test_it_is_made_once(cache: NodeCache, store: DirectoryStore) -> None:
    """Who comes later finds it there, even without any source; for another base there is another one."""
    folder = make_delta(cache, CLUSTER, MORE, BASE, [store])
    assert make_delta(cache, CLUSTER, MORE, BASE, []) == folder
    assert make_delta(cache, CLUSTER, MORE, manifest_of(ONE, CODE, after=("code-0",)), [store]) != folder


def test_a_layer_that_nobody_has(cache: NodeCache, tmp_path: Path) -> None:
    """The layer is named, nothing half-made is visible, and with a source it works."""
    empty = DirectoryStore(str(tmp_path / "empty"))
    with pytest.raises(NodeError, match="No source has a sound copy"):
        make_delta(cache, CLUSTER, MORE, BASE, [empty])
    assert os.listdir(cache.place("deltas")) == []
    assert os.listdir(cache.place("tmp")) == []
    put(tmp_path / "empty", TWO, CODE, BYTECODE)
    assert os.path.isdir(make_delta(cache, CLUSTER, MORE, BASE, [empty]))


def test_only_a_cluster_has_deltas(cache: NodeCache, store: DirectoryStore) -> None:
    """What is no id of a cluster leads nowhere."""
    with pytest.raises(UsageError):
        make_delta(cache, "../../x", MORE, BASE, [store])


def test_a_delta_lives_as_long_as_its_cluster(cache: NodeCache, store: DirectoryStore) -> None:
    """While a process of the cluster lives, delta and layers stay; afterwards they go, the layers by their age."""
    folder = make_delta(cache, CLUSTER, MORE, BASE, [store])
    lease = Path(cache.place("leases"), f"{host_name()}.{os.getpid()}")
    lease.write_text(f"{BASE.id} {start_time(str(os.getpid()))} {CLUSTER}\n")
    later = time.time() + timedelta(days=30).total_seconds()
    assert CLUSTER not in prune(cache, now=later).clusters
    assert os.path.exists(cache.listing(TWO.digest)) and os.path.isdir(folder)
    lease.unlink()
    assert CLUSTER in prune(cache, now=later).clusters
    assert not os.path.exists(folder)


def test_prefix_and_delta_are_verified_together(cache: NodeCache, store: DirectoryStore) -> None:
    """A prefix with its delta amounts to the new manifest; a changed or an extra file in the delta is named."""
    prefix = materialise(cache, BASE, [store])
    folder = make_delta(cache, CLUSTER, MORE, BASE, [store])

    def found() -> list[tuple[str, str, str]]:
        report = verify_prefix(prefix, deltas=[folder])
        assert report.manifest == MORE.id
        assert report.distributions == {"one": "1.0", "two": "1.0"}
        return [(d.kind.value, d.layer, d.subject) for d in report.differences if d.subject != "python"]

    assert found() == []
    victim = Path(folder, "lib", MORE.python, "site-packages/two/__init__.py")
    victim.unlink()
    victim.write_text("evil = True\n")
    victim.with_name("extra.py").write_text("")
    assert set(found()) == {
        ("changed", "two", f"lib/{MORE.python}/site-packages/two/__init__.py"),
        ("extra", "two", f"lib/{MORE.python}/site-packages/two/extra.py"),
    }


def test_a_delta_for_another_base_does_not_count(cache: NodeCache, store: DirectoryStore) -> None:
    """A delta makes the new manifest of its own base only; a manifest that was exchanged is refused."""
    prefix = materialise(cache, BASE, [store])
    other = manifest_of(ONE, CODE, after=("code-0",))
    folder = make_delta(cache, CLUSTER, MORE, other, [store])
    assert verify_prefix(prefix, deltas=[folder]).manifest == BASE.id
    file = Path(folder, "base.json")
    file.unlink()
    file.write_bytes(BASE.encode())
    with pytest.raises(NodeError, match="base is not the one"):
        verify_prefix(prefix, deltas=[folder])


RUN = """
import importlib.metadata, importlib.util, json, os, subprocess, sys
seen = {}
def command(base, new):
    cache = os.path.dirname(os.path.dirname(sys.prefix))
    argv = [sys.executable, "-I", "-B", "-m", "likewise.node", "delta", "--cache", cache, "--store", sys.argv[1],
            "--cluster", sys.argv[2], "--manifest", new, "--base", base]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

from likewise.node.adopt import adopt, adopted, effective, hold
from likewise.node.missed import missed
base, new, newer = sys.argv[3:6]
hold(sys.argv[2])
try:
    import absent
except ImportError:
    pass
importlib.util.find_spec("sought")
try:
    importlib.metadata.version("unknown-one")
except importlib.metadata.PackageNotFoundError:
    pass
seen["missed"] = missed()
folder = command(base, new)
import one
seen["before"] = importlib.util.find_spec("two") is None
for _ in range(2):
    adopt(folder)
import two, mine
seen["adopted"] = [mine.y, importlib.metadata.version("two"), effective() == new[:16], len(adopted())]
child = "import two, mine, json, os; print(json.dumps([mine.y, two.__file__, os.environ['LIKEWISE_DELTAS']]))"
seen["child"] = json.loads(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
seen["script"] = subprocess.run(["two"], capture_output=True, text=True).stdout
seen["folder"] = folder
seen["files"] = sys.path.count(folder + "/lib/" + f"python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
old = one
adopt(command(new, newer), instead=["one"])
import one
seen["instead"] = [old.x, one.x, importlib.metadata.version("one"), effective() == newer[:16]]
from likewise.node.verify import verify_prefix
report = verify_prefix(sys.prefix, deltas=adopted())
seen["verified"] = [report.manifest == newer, len(report.differences)]
print(json.dumps(seen))
"""


def test_a_running_process_adopts_a_delta(tmp_path: Path) -> None:
    """Modules, metadata, scripts and children see what was added; with `instead`, what was changed; all of it verified.

    The process also knows what it looked for before in vain.
    """
    kit = real_kit()
    base = kit.with_layers(ONE)
    new = put_manifest(kit.store, manifest_of(*kit.layers, ONE, TWO, CODE, after=("code-0",)))
    newer = put_manifest(kit.store, manifest_of(*kit.layers, ONE_CHANGED, TWO, CODE, after=("code-0",)))
    put(kit.store, TWO, CODE, ONE_CHANGED)
    argv = ["-c", RUN, str(kit.store), CLUSTER, base.id, new.id, newer.id]
    done = start(kit.launch(tmp_path / "cache", base), *argv)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    modules, distributions = seen["missed"]
    assert {"absent", "sought"} <= set(modules)
    assert "unknown-one" in distributions and "msgspec" not in distributions
    assert seen["before"]
    assert seen["adopted"] == [3, "1.0", True, 1]
    assert seen["child"][0] == 3 and seen["child"][1].startswith(seen["folder"]) and seen["child"][2] == seen["folder"]
    assert seen["script"] == "two says 1\n"
    assert seen["files"] == 1
    assert seen["instead"] == [1, 2, "2.0", True]
    assert seen["verified"] == [True, 0]


def test_many_at_once(tmp_path: Path) -> None:
    """Several workers of one node ask at the same moment: one makes it, all find the same, nothing is left over."""
    kit = real_kit()
    base = kit.with_layers(ONE)
    new = kit.with_layers(ONE, TWO)
    cache = tmp_path / "cache"
    prefix = start(kit.launch(cache, base), "-c", "import sys; print(sys.prefix)").stdout.strip()
    argv = [f"{prefix}/bin/python", "-I", "-B", "-m", "likewise.node", "delta", "--cache", str(cache), "--store"]
    argv += [str(kit.store), "--cluster", CLUSTER, "--manifest", new.id, "--base", base.id]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    folders = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(folders) == 1
    assert os.listdir(cache / "tmp") == []
