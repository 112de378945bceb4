"""A cluster on this machine, of a conda prefix, with a conda package that only its nodes have."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from support.canaries import canary, words_beneath
from support.conda_channel import CondaChannel, install, install_pips
from support.conda_package import PLACEHOLDER, Package, write_channel
from support.conda_server import serve_channel
from support.prefixes import UV, run
from support.users import run_script

pytest.importorskip("rattler")
pytestmark = pytest.mark.registry

TOKEN = canary("of_extras")

SCRIPT = """
import json, sys
from pathlib import Path
import msgspec
from likewise import Cluster, LikewiseError

CHANNEL = sys.argv[2]
OPTIONS = dict(n_workers=1, threads_per_worker=1, node_cache=sys.argv[1], dashboard_address=None)

def there():
    import geargear, os, sys
    with open(f"{sys.prefix}/share/gear/teeth.txt") as file:
        return [geargear.VERSION, file.read().strip() == f"{sys.prefix}/share/gear", os.environ.get("GEAR_HOME")]

def main():
    seen = {}
    with Cluster(**OPTIONS, package_sync_conda_extras=[f"{CHANNEL}::gear"]) as cluster, cluster.get_client() as client:
        seen["computed"] = client.submit(there).result()
        seen["prefix"] = client.submit(lambda: __import__("sys").prefix).result()
        seen["verified"] = msgspec.to_builtins(cluster.verify())
        seen["stages"] = {stage.name: stage.done for stage in cluster.report.stages}
        seen["drift"] = [str(one) for one in cluster.drift()]
        (Path(__file__).parent / "loose.py").write_text("VALUE = 2\\n")
        seen["synced"] = [change.name for change in cluster.sync().changed]
        seen["still"] = client.submit(there).result()
        seen["again"] = msgspec.to_builtins(cluster.verify())["differences"]
    try:
        import geargear
    except ImportError as error:
        seen["here"] = str(error)
    try:
        Cluster(**OPTIONS, package_sync_conda_extras=["python=2.7"]).close()
    except LikewiseError as error:
        seen["refused"] = error.what
    print(json.dumps(seen))

if __name__ == "__main__":
    main()
"""


def packages() -> list[Package]:
    """``gear``, a distribution with another name for its module, and what it requires."""
    info = "site-packages/gear-1.0.dist-info"
    files = {
        "site-packages/geargear.py": "VERSION = '1.0'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: gear\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    library = {
        "share/gear/teeth.txt": f"{PLACEHOLDER}/share/gear\n",
        "etc/conda/activate.d/gearlib.sh": 'export GEAR_HOME="${CONDA_PREFIX}/share/gear"\n',
    }
    gear = Package("gear", "1.0", files, noarch="python", subdir="noarch", depends=("python", "gearlib >=2"))
    return [gear, Package("gearlib", "2.0", library)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extras-conda")


@pytest.fixture(scope="module")
def seen(folder: Path, conda_channel: CondaChannel) -> dict[str, Any]:
    """What a client with py-rattler in a conda prefix saw, the channel with the extra wanting a token."""
    prefix = install(
        folder / "conda", ["python", "distributed", "geodata"], [conda_channel.folder], folder / "packages"
    )
    install_pips(prefix, folder / "wheels")
    python = prefix / "bin" / "python"
    run(UV, "pip", "install", "--quiet", "--python", python, f"py-rattler=={version('py-rattler')}")
    for name, text in {"loose.py": "VALUE = 1\n", "script.py": SCRIPT}.items():
        (folder / "work").mkdir(exist_ok=True)
        (folder / "work" / name).write_text(text)
    with serve_channel(write_channel(folder / "more", packages()), token=TOKEN) as server:
        (folder / "home").mkdir()
        (folder / "home" / ".condarc").write_text(f"channels:\n  - {server.url}\n")
        arguments = (str(folder / "nodes"), server.plain_url)
        how = {"cache": folder / "cache", "HOME": str(folder / "home")}
        seen = run_script(python, folder / "work" / "script.py", *arguments, **how)  # type: ignore[arg-type]
        return {**seen, "archives": server.archives()}


def test_tasks_see_what_the_client_does_not_have(seen: dict[str, Any]) -> None:
    """The module, what its package requires, with the node's prefix in it, and what activation sets."""
    assert seen["computed"] == ["1.0", True, f"{seen['prefix']}/share/gear"]
    assert seen["here"] == "No module named 'geargear'"
    assert sorted(name.split("-")[0] for name in seen["archives"]) == ["gear", "gearlib"]
    assert seen["stages"]["conda"]["fetched"] == 2


def test_it_is_part_of_the_environment(seen: dict[str, Any]) -> None:
    """Checked on the nodes, and no difference to the client, whose own it is not."""
    assert seen["verified"]["differences"] == [] and seen["drift"] == []
    assert all(node["distributions"]["gear"] == "1.0" for node in seen["verified"]["nodes"])


def test_a_sync_leaves_it_alone(seen: dict[str, Any]) -> None:
    """What else changed is brought to the cluster; it stays, and is neither chosen nor fetched anew."""
    assert len(seen["synced"]) == 1 and seen["synced"][0].startswith("code-")
    assert seen["still"][:2] == ["1.0", True] and seen["again"] == []


def test_what_can_not_be_had_ends_the_launch(seen: dict[str, Any]) -> None:
    """Before anything is started."""
    assert "python=2.7 can't be had, since python 3" in seen["refused"]


def test_the_token_is_nowhere(seen: dict[str, Any], folder: Path) -> None:
    """In no layer, manifest, note or record of the client's or of a node."""
    assert TOKEN not in words_beneath(folder / "cache", folder / "nodes")
    assert TOKEN not in repr(seen)
