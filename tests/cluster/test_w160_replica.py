"""The 160-distribution workload, whole: replicated, verified, compared file by file, and started again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from likewise.node.generated import MISSED_PTH
from support.prefixes import UV, clean_environ, run
from support.users import make_user_venv, run_script
from support.w160 import REQUIREMENTS

pytestmark = [pytest.mark.w160, pytest.mark.registry]

SCRIPT = textwrap.dedent(
    """
    import json
    from likewise import Cluster

    def first_task():
        import sys
        import matplotlib, numpy, pandas, pyarrow, scipy.stats, sklearn.linear_model
        model = sklearn.linear_model.LinearRegression().fit(numpy.arange(8).reshape(-1, 1), numpy.arange(8) * 2.0)
        return {"prefix": sys.prefix, "executable": sys.executable, "coef": round(float(model.coef_[0]), 6),
                "pandas": pandas.__file__}

    if __name__ == "__main__":
        with Cluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
            task = cluster.get_client().submit(first_task).result()
            report = cluster.verify()
            stages = {s.name: s.done for s in cluster.report.stages}
            print(json.dumps({
                "task": task, "ok": report.ok, "differences": [str(d) for d in report.differences],
                "files": [n.files for n in report.nodes], "stages": stages,
                "distributions": dict(cluster.environment.distributions),
                "summaries": {s.name: s.summary for s in cluster.report.stages},
            }))
    """
)
GENERATED = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same script twice in one prefix with W160: the first start ever, and a warm one."""
    folder = tmp_path_factory.mktemp("w160")
    python = make_user_venv(folder / "venv", "-r", REQUIREMENTS)
    script = folder / "work" / "script.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    cache = folder / "cache"
    first = run_script(python, script, cache=cache)
    second = run_script(python, script, cache=cache)
    return {"python": python, "first": first, "second": second}


def test_first_task_runs_in_a_replica_and_verify_is_ok(launches: dict[str, Any]) -> None:
    """The first task of W160 runs in a prefix that is not the client's, and every node is what the manifest says."""
    first = launches["first"]
    client = str(launches["python"].parents[1])
    assert first["task"]["coef"] == 2.0
    assert not first["task"]["prefix"].startswith(client)
    assert first["task"]["pandas"].startswith(first["task"]["prefix"])
    assert first["ok"], first["differences"]
    assert first["files"][0] > 30_000


def test_the_nodes_have_exactly_what_pip_lists(launches: dict[str, Any]) -> None:
    """`cluster.environment.distributions` is what pip lists for the client's prefix."""
    listed = json.loads(run(UV, "pip", "list", "--python", launches["python"], "--format", "json"))
    assert launches["first"]["distributions"] == {d["name"].lower(): d["version"] for d in listed}


def test_every_file_is_identical(launches: dict[str, Any]) -> None:
    """Every file that no installer generated is the same in original and replica; the node adds exactly one."""
    original = launches["python"].parents[1]
    replica = Path(launches["first"]["task"]["prefix"])
    ours, theirs = _content(original), _content(replica)
    scripts = _entry_points(original)
    for path in scripts:
        ours.pop(path, None), theirs.pop(path, None)
    rewritten = {p for p in ours.keys() & theirs.keys() if p.startswith("bin/") and ours[p] != theirs[p]}
    for path in rewritten:  # only the first line, the interpreter's own path, may differ
        assert _after_first_line(original / path) == _after_first_line(replica / path), path
        del ours[path], theirs[path]
    assert len(ours) > 30_000
    assert {p for p in ours if p not in theirs} == set()
    generated = {f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages/{MISSED_PTH}"}
    assert {p for p in theirs if p not in ours} == generated
    assert {p for p in ours if ours[p] != theirs[p]} == set()


def test_second_start_does_nothing_and_says_so(launches: dict[str, Any]) -> None:
    """A second start of the unchanged prefix packs, copies, compiles and builds nothing, and its report says so."""
    done = [n for name, stage in launches["second"]["stages"].items() if name != "start" for n in stage.values()]
    assert done and not any(done), launches["second"]["stages"]
    assert any(n for stage in launches["first"]["stages"].values() for n in stage.values())
    assert launches["second"]["summaries"]["pack"] == "nothing to pack"
    assert launches["second"]["task"]["prefix"] == launches["first"]["task"]["prefix"]


def _content(prefix: Path) -> dict[str, str]:
    """Path -> sha256 of everything that a distribution put there, bytecode and installers' own files left out."""
    found = {}
    for top in ("lib", "bin", "share", "etc", "include"):
        for folder, dirs, names in os.walk(prefix / top):
            dirs[:] = [d for d in dirs if d != "__pycache__"]
            for name in names:
                path = Path(folder, name)
                relative = str(path.relative_to(prefix))
                in_dist_info = path.parent.name.endswith(".dist-info") and name in GENERATED
                made_by_venv = name.startswith(("activate", "deactivate", "python", "pydoc", "_virtualenv"))
                if in_dist_info or (made_by_venv and (top == "bin" or name.startswith("_virtualenv"))):
                    continue
                found[relative] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _entry_points(prefix: Path) -> set[str]:
    """Scripts that installers generate from entry points."""
    names = set()
    for file in prefix.glob("lib/python*/site-packages/*.dist-info/entry_points.txt"):
        section = ""
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[] ")
            elif "=" in line and section in ("console_scripts", "gui_scripts"):
                names.add("bin/" + line.split("=")[0].strip())
    return names


def _after_first_line(path: Path) -> bytes:
    return path.read_bytes().partition(b"\n")[2]


STRESS = """
import importlib, json, os, random, subprocess, sys, threading, time, warnings
from pathlib import Path
from likewise.model.keys import loose_listing_key, promise_key
from likewise.sync import prepare

def import_all(names, threads):
    warnings.simplefilter("ignore")
    out, sys.stdout = sys.stdout, sys.stderr
    failed = {}
    def work():
        while names:
            try:
                name = names.pop()
            except IndexError:
                return
            try:
                importlib.import_module(name)
            except BaseException as error:
                failed[name] = [type(error).__name__, str(error)]
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    json.dump(failed, out)
    out.flush()
    os._exit(0)

def start(argv, names, threads):
    # The filler keeps no pipe open: what is read to its end are files.
    environ = {**os.environ, "MPLBACKEND": "agg", "LIKEWISE_GATE_TIMEOUT": "120"}
    return subprocess.Popen([*argv, __file__, json.dumps(names), str(threads)], env=environ,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

def arrive(prepared, nodes, lost, choose):
    # A client that promises every layer, and puts them into the store slowly and in no order; some it can't make.
    random.seed(len(lost))
    manifest, store = prepared.manifest, prepared.store
    late = [ref for ref in manifest.layers if ref.kind.value == "distribution" and ref.name not in manifest.kit]
    digests = [digest for ref in late for digest in (ref.digest, ref.bytecode) if digest]
    places = {digest: store.root / loose_listing_key(digest) for digest in digests}
    promise = store.lease([promise_key(digest) for digest in digests])
    for path in places.values():
        path.rename(path.with_suffix(".late"))
    argv = prepared.launch(nodes).argv()
    subprocess.run([*argv, "-c", ""], check=True, stdout=subprocess.DEVNULL)
    text = (nodes / "prefixes" / manifest.id[:16] / "growing" / "map").read_text()
    needs = dict(line.split("\\t") for line in text.splitlines())
    names = choose(sorted(name for name in needs if name.isidentifier()))
    running = [start(argv, names[number::3], threads) for number, threads in enumerate((1, 1, 4))]
    keep = {ref.digest for ref in late if ref.name in lost}
    for digest in random.sample(digests, len(digests)):
        if digest not in keep:
            time.sleep(0.01)
            places[digest].with_suffix(".late").rename(places[digest])
    promise.release()
    outputs = [process.communicate(timeout=300)[0] for process in running]
    for digest in keep:
        places[digest].with_suffix(".late").rename(places[digest])
    mine = {digest[:16] for digest in keep}
    return {"failed": {name: why for out in outputs for name, why in json.loads(out).items()}, "tried": names,
            "needing": [name for name in names if mine & set(needs[name].split())]}

if __name__ == "__main__":
    if len(sys.argv) == 3:
        import_all(json.loads(sys.argv[1]), int(sys.argv[2]))
    nodes, lost = Path(sys.argv[1]), sys.argv[3:]
    prepared = prepare(loose=True)
    seen = arrive(prepared, nodes / "all", [], lambda names: random.sample(names, len(names)))
    some = arrive(prepared, nodes / "some", lost, lambda names: random.sample(names, 60))
    prepared.close()
    print(json.dumps({"all": seen, "some": some}))
"""
LOST = ("scipy", "botocore", "lxml", "sqlalchemy", "pyarrow")


@pytest.fixture(scope="module")
def stress(launches: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What imports came to in prefixes whose layers arrived slowly, in no order, and not all of them."""
    python = launches["python"]
    script = python.parents[2] / "work" / "stress.py"
    script.write_text(STRESS)
    nodes = str(python.parents[2] / "nodes")
    seen = run_script(python, script, nodes, "--", *LOST, cache=python.parents[2] / "cache", timeout=500)
    failed = {name for run in seen.values() for name in run["failed"]}
    return {**seen, "originally": {name for name in failed - set(seen["some"]["needing"]) if _fails(python, name)}}


def _fails(python: Path, name: str) -> bool:
    """Whether the import fails in the original, too."""
    environ = clean_environ(PYTHONDONTWRITEBYTECODE="1", MPLBACKEND="agg")
    argv = [python, "-W", "ignore", "-c", f"import {name}"]
    return subprocess.run(argv, env=environ, capture_output=True, timeout=120, check=False).returncode != 0


def test_all_modules_in_any_order(stress: dict[str, Any]) -> None:
    """Several processes import every top-level module while layers arrive slowly and out of order: no import fails that
    succeeds in the original, none waits for ever.
    """
    assert len(stress["all"]["tried"]) > 150
    assert stress["all"]["failed"].keys() <= stress["originally"], stress["all"]["failed"]


def test_layers_that_fail(stress: dict[str, Any]) -> None:
    """Imports that need a layer that can't be had are errors that name it; all others are as in the original."""
    failed, needing = stress["some"]["failed"], set(stress["some"]["needing"])
    named = {name for name, (_, text) in failed.items() if any(each in text for each in LOST)}
    assert needing and needing & failed.keys() <= named
    assert {name for name in failed if name not in named} <= stress["originally"], failed
