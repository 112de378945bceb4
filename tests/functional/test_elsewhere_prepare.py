"""What a client has, made ready for nodes with another processor: nothing compiled for its own goes along."""

from __future__ import annotations

import json
import platform
import subprocess
from typing import Any

import pytest

from support.prefixes import clean_environ, run
from support.standalone import pack, serve_site, toy_tree
from support.users import make_user_venv, run_script

OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}

pytestmark = [
    pytest.mark.registry,
    pytest.mark.skipif(platform.machine() not in OTHER, reason="knows two processors"),
]

SCRIPT = """
import json, sys
from contextlib import closing

from likewise.errors import LikewiseError
from likewise.events import Silent
from likewise.layers.elf import read_elf
from likewise.stages import Stages
from likewise.sync import PlanOptions, prepare, target_named

def machines(layer):
    # The processors of the ELF files of a layer.
    found = set()
    for file in layer.files:
        if file.path and not file.entry.link:
            try:
                elf = read_elf(file.path)
            except LikewiseError:
                continue
            found |= {elf.machine} if elf else set()
    return found

class Counter:
    # What is told of fetching: how much there is, and how much has come.
    def __init__(self):
        self.total = self.come = 0
    def report(self, event):
        if getattr(event, "stage", "") == "fetch":
            self.total += getattr(event, "total", 0)
            self.come += getattr(event, "amount", 0)

target = target_named(sys.argv[1])
seen = {}
told = [Counter(), Counter()]
with closing(prepare(PlanOptions(), goal=target, reporter=told[0])) as prepared:
    plan, manifest = prepared.plan, prepared.manifest
    now = prepared.resolve_again(Stages(Silent()))
    seen["actions"] = {d.name: d.action.value for d in plan.decisions}
    seen["target"] = [manifest.target.platform.os, manifest.target.platform.arch, manifest.target.python]
    seen["machines"] = sorted({one for layer in now.layers for one in machines(layer)})
    seen["same"] = [layer.digest for layer in now.layers] == [ref.digest for ref in manifest.layers]
    seen["kinds"] = sorted({ref.kind.value for ref in manifest.layers})
    seen["bytecode"] = {ref.name: bool(ref.bytecode) for ref in manifest.layers}
    seen["tags"] = {one.name: one.tags for one in prepared.replica.distributions}
    seen["kit"] = [list(manifest.kit), prepared.form.kit_path(prepared.kit_id).exists()]
    seen["drift"] = len(prepared.drift())
with closing(prepare(PlanOptions(), goal=target, reporter=told[1])) as again:
    seen["again"] = [again.manifest.id == manifest.id, {stage.name: stage.done for stage in again.report.stages}]
seen["told"] = [[counter.total, counter.come] for counter in told]
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Prepared twice for the other processor, with a Python that uv offers for it."""
    folder = tmp_path_factory.mktemp("prepare")
    python = make_user_venv(folder / "venv", "numpy")
    (folder / "site").mkdir()
    (folder / "script.py").write_text(SCRIPT)
    arch, version = OTHER[platform.machine()], platform.python_version()
    with serve_site(folder / "site") as site:
        site.offer(version, arch, pack(toy_tree(folder / "toy", version, arch)))
        settings = {**site.environ(), "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}
        settings.pop("HOME")
        seen = run_script(python, folder / "script.py", f"linux-{arch}", cache=folder / "cache", **settings)
        bundle = [python, "-m", "likewise", "bundle", "--target", f"linux-{arch}", "--json", folder / "bundle"]
        run(*bundle, cwd=folder, LIKEWISE_CACHE=str(folder / "cache"), **settings)
    words = [str(python), "-m", "likewise", "run", "--target", f"linux-{arch}", "script.py"]
    refused = subprocess.run(
        words, cwd=folder, env=clean_environ(LIKEWISE_CACHE=str(folder / "cache")), capture_output=True, text=True
    )
    seen["refused"] = [refused.returncode, refused.stdout, refused.stderr]
    return {**seen, "bundle": json.loads((folder / "bundle" / "bundle.json").read_text())}


def test_pure_distributions_are_copied_and_compiled_ones_fetched(seen: dict[str, Any]) -> None:
    """What is the same everywhere is the client's own; what is not has a wheel for the nodes' processor."""
    arch = OTHER[platform.machine()]
    assert {seen["actions"][name] for name in ("dask", "distributed", "likewise", "cloudpickle")} == {"copied"}
    assert {seen["actions"][name] for name in ("numpy", "msgpack", "tornado", "msgspec")} == {"fetched"}
    assert seen["target"] == ["linux", arch, platform.python_version()]
    assert all(tag.endswith(f"_{arch}") for tag in seen["tags"]["numpy"])


def test_no_file_is_for_the_clients_processor(seen: dict[str, Any]) -> None:
    """Every ELF file of every layer is for the nodes; no library of the client's machine is among them."""
    assert seen["machines"] == [OTHER[platform.machine()]]
    assert seen["kinds"] == ["code", "distribution", "interpreter"]


def test_the_client_compiles_for_the_nodes(seen: dict[str, Any]) -> None:
    """Bytecode is the same for every processor, so nodes need not make it: neither of copies nor of wheels."""
    assert all(seen["bytecode"][name] for name in ("dask", "numpy", "msgpack", "cpython"))


def test_the_kit_is_made(seen: dict[str, Any]) -> None:
    """Nodes can join with it: what they need is in it and what they don't is not."""
    names, exists = seen["kit"]
    assert exists
    assert {"likewise", "distributed", "msgpack", "tornado"} <= set(names)
    assert "numpy" not in names


def test_a_second_launch_makes_the_same(seen: dict[str, Any]) -> None:
    """The same client has the same manifest for the same nodes; nothing is fetched, compiled or packed again."""
    same, stages = seen["again"]
    assert (same, seen["same"], seen["drift"]) == (True, True, 0)
    assert stages["fetch"]["fetched"] == 0
    assert stages["bytecode"]["compiled"] == 0
    assert stages["pack"]["packed"] == 0


def test_progress_is_told_in_bytes(seen: dict[str, Any]) -> None:
    """All bytes that were announced have come, those of kept wheels at once."""
    for total, come in seen["told"]:
        assert total == come > 1e6


def test_a_bundle_is_for_the_nodes_too(seen: dict[str, Any]) -> None:
    """What deployers get is for the target that was named, and says so."""
    assert seen["bundle"]["platform"] == f"linux-{OTHER[platform.machine()]}"
    assert seen["bundle"]["python"] == platform.python_version()


def test_nodes_on_this_computer_can_not_be_another(seen: dict[str, Any]) -> None:
    """``likewise run`` without hosts refuses a target that this computer is not, and says what to use."""
    code, said, error = seen["refused"]
    assert (code, said) == (2, "")
    assert f"linux-{platform.machine()} and not linux-{OTHER[platform.machine()]}" in error
    assert "SSHCluster" in error and "Traceback" not in error
