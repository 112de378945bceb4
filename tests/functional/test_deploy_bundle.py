"""``likewise bundle`` from a user's real prefix, used by nodes that can't see that prefix."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.deploy import EXAMPLES, Deployers, deployers  # noqa: F401
from support.deploy_cloud import few_tools
from support.masking import masked
from support.processes import wait_until_gone

pytestmark = [pytest.mark.registry, pytest.mark.root]

ONLY = ("--only", "measurements")
SHOW = "import json, measurements, distributed, sys; print(json.dumps([*measurements.where(21), distributed.__file__]))"
TOOLS = ("sh", "tar", "gzip", "mkdir", "mv", "rm", "ls")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user of the machine can reach."""
    folder = Path(tempfile.mkdtemp(prefix="likewise-place-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def bundle(deployers: Deployers, folder: Path, *options: str | Path) -> dict[str, Any]:  # noqa: F811
    """The value of ``likewise bundle``."""
    (folder.parent / "work").mkdir(exist_ok=True)  # what lies in the working directory can be imported, and is shipped
    arguments = ("-m", "likewise", "bundle", folder, *ONLY, *options, "--json", "-q")
    shown = deployers.run(*arguments, cwd=folder.parent / "work")
    value: dict[str, Any] = json.loads(shown)
    return value


def on_node(deployers: Deployers, place: Path, command: list[str], **environ: str) -> list[Any]:  # noqa: F811
    """What the program shows on a node that has few tools, no Python, nothing of the user's prefix; it has ended."""
    tools = place / "tools"
    path = tools if tools.exists() else few_tools(tools, (*TOOLS, "setpriv"))
    hidden = [*deployers.origins, EXAMPLES.parent / "src"]
    variables = [f"{name}={value}" for name, value in {"PATH": path, **environ}.items()]
    done = masked(["/usr/bin/env", "-i", *variables, *command], hidden, cwd=place, check=True)
    assert not wait_until_gone(str(place), 60), "what the start left to the background goes on"
    seen: list[Any] = json.loads(done.stdout)
    return seen


def test_another_user_runs_a_shared_bundle(deployers: Deployers, place: Path) -> None:  # noqa: F811
    """Somebody else on the node starts the replica of a shared bundle in a cache of his own, which the node chose."""
    value = bundle(deployers, place / "made", "--shared")
    home = place / "nobody"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    seen = on_node(deployers, place, [*nobody, *value["prefix"], "-c", SHOW], TMPDIR=str(home))
    assert seen[:2] == [42, f"{home}/likewise-65534/prefixes/{value['manifest'][:16]}"]
    assert {path.stat().st_uid for path in home.rglob("*") if not path.is_symlink()} == {65534}


def test_moved_bundle_works_and_damage_is_repaired(deployers: Deployers, place: Path) -> None:  # noqa: F811
    """A bundle that lies elsewhere starts the replica there; a damaged layer is refused by name, and repaired alone."""
    cache = ("--cache", place / "node")
    value = bundle(deployers, place / "made", "--store", place / "moved", *cache)
    (place / "made").rename(place / "moved")
    described = json.loads((place / "moved" / "bundle.json").read_text())
    layers = [place / "moved" / name for name in described["files"] if name.startswith("layers/")]
    victim = min(layers, key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-8] + bytes(8))
    with pytest.raises(AssertionError, match="No source has a sound copy of the layer"):
        on_node(deployers, place, [*value["prefix"], "-c", SHOW])
    again = bundle(deployers, place / "moved", *cache)
    assert (again["written"], again["prefix"]) == (1, value["prefix"])
    seen = on_node(deployers, place, [*value["prefix"], "-c", SHOW])
    prefix = f"{place}/node/prefixes/{value['manifest'][:16]}"
    assert seen[:2] == [42, prefix]
    assert all(file.startswith(prefix) for file in seen[2:])
