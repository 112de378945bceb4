"""A plan carried out: a wheel of a guarded index and the Python that uv offers, on the nodes of a local cluster."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from likewise.model.digest import digest_bytes
from likewise.model.plan import LockedFile
from likewise.scanner.probe import probe_python
from support.canaries import CARGO, canary, credentials, words_beneath, words_in
from support.indexes import offer, serve_index
from support.standalone import own_tree, pack, serve_site
from support.users import make_user_venv, run_script

pytestmark = pytest.mark.registry

SCRIPT = """
import json, os, sys
from pathlib import Path

import msgspec
from likewise import Cluster
from likewise.model.plan import Action, Decision, LockedFile
from likewise.sync import plan, scan

def look():
    import guarded
    return guarded.WORD, sys.version, sys.executable, dict(os.environ), open("/proc/self/cmdline").read()

def planned(file):
    # All that is here, one distribution that is not, and a Python that nobody has.
    own = plan(scan())
    new = Decision(name="guarded", version="1.0", action=Action.FETCH, reason="", new=True, file=file)
    major, minor, _ = sys.version.split()[0].split(".")
    target = msgspec.structs.replace(own.target, python=f"{major}.{minor}.99")
    return msgspec.structs.replace(own, decisions=(*own.decisions, new), target=target)

if __name__ == "__main__":
    file = msgspec.json.decode(sys.argv[1], type=LockedFile)
    with Cluster(1, 1, package_sync_target=planned(file)) as cluster, cluster.get_client() as client:
        prepared = cluster._prepared
        seen = {
            "tasks": client.submit(look).result(),
            "problems": {problem.code: problem.message for problem in prepared.problems},
            "verified": repr(cluster.verify().differences),
            "drift": len(cluster.drift()),
            "changed": len(cluster.sync().layers),
            "bytecode": [bool(ref.bytecode) for ref in prepared.manifest.layers if ref.name in ("guarded", "cpython")],
            "python": [prepared.manifest.target.python, prepared.plan.target.python],
            "own": [prepared.snapshot.interpreter.executable, prepared.replica.interpreter.executable],
        }
        print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a user saw who ran it, and what was asked and written."""
    folder = tmp_path_factory.mktemp("elsewhere")
    python = make_user_venv(folder / "venv")
    (folder / "home").mkdir()
    (folder / "script.py").write_text(SCRIPT)
    (folder / "site").mkdir()
    wheel = offer(folder / "wheels", "guarded", "1.0", files={"guarded.py": f"WORD = '{CARGO}_guarded'\n".encode()})
    archive = pack(own_tree(probe_python(sys.executable).interpreter, folder / "standalone"))
    with (
        serve_index(folder / "wheels", user="me", password=canary("index")) as index,
        serve_site(folder / "site") as site,
    ):
        site.offer(platform.python_version(), platform.machine(), archive)
        settings = {**site.environ(), "HOME": str(folder / "home"), "PATH": "/usr/bin:/bin"}
        private = {
            "UV_INDEX": f"private={index.url}",
            "UV_INDEX_PRIVATE_USERNAME": "me",
            "UV_INDEX_PRIVATE_PASSWORD": canary("index"),
        }
        file = locked(wheel, index.files_url)
        seen = run_script(python, folder / "script.py", file, cache=folder / "cache", **settings, **private)
        seen["asked"] = [asked.authorization for asked in index.asked]
        seen["downloads"] = len([path for path in site.asked if path.endswith(".tar.gz")])
    seen["written"] = words_beneath(folder / "cache", folder / "home")
    return seen


def locked(wheel: Path, url: str) -> str:
    """What a plan says of the file, as JSON."""
    sha256 = digest_bytes(wheel.read_bytes())
    return msgspec.json.encode(
        LockedFile(filename=wheel.name, url=url + wheel.name, sha256=sha256, index="private")
    ).decode()


def test_a_fetched_wheel_is_there_on_the_nodes(run: dict[str, Any]) -> None:
    """A task imports what the client does not have; the index was asked with the credential it wanted."""
    assert run["tasks"][0] == f"{CARGO}_guarded"
    assert run["asked"][-1].startswith("Basic ")
    assert run["verified"] == "()"


def test_the_nodes_run_the_python_that_was_offered(run: dict[str, Any]) -> None:
    """It was downloaded once, another patch than the plan's is said with the reason, and the client compiles for it."""
    assert run["tasks"][1].startswith(platform.python_version())
    assert run["downloads"] == 1
    assert run["python"] == [platform.python_version()] * 2
    assert "is the nearest" in run["problems"]["python-moved"]
    assert run["own"][0] and not run["own"][1]
    assert run["bytecode"] == [True, True]


def test_what_was_planned_stays(run: dict[str, Any]) -> None:
    """As long as the client does not change, there is no drift, and nothing to bring to the cluster."""
    assert (run["drift"], run["changed"]) == (0, 0)


def test_the_credential_stays_with_the_client(run: dict[str, Any]) -> None:
    """It is in no file that was written and in no process of a node; the search sees what has travelled."""
    words = set(run["written"])
    assert f"{CARGO}_guarded" in words
    assert credentials(words) == set()
    environ, command = run["tasks"][3:]
    assert credentials(words_in(f"{environ}{command}".encode())) == set()
