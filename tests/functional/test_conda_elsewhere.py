"""A Mac's conda prefix, planned for Linux and carried out: packages from a guarded channel become a node's prefix."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import dask
import msgspec
import pytest

from likewise import sync
from likewise.conda_elsewhere import fetch_packages
from likewise.conda_offers import candidates
from likewise.elsewhere import settle
from likewise.errors import FetchError, PlanError
from likewise.events import Silent
from likewise.model.layer import LayerKind
from likewise.model.plan import Action, Plan
from likewise.model.subdirs import subdir_of
from likewise.planner.targets import parse_target
from likewise.prepared import Prepared
from likewise.settings import resolve_settings
from likewise.stages import Stages
from likewise.sync import PlanOptions
from support.canaries import canary, words_beneath
from support.conda_channel import CondaChannel, install, install_pips
from support.conda_mac import mac_channel, mac_listing, twin_channel
from support.conda_python import LIBC
from support.conda_server import ChannelServer, serve_channel
from support.indexes import offer, serve_index
from support.masking import masked
from support.prefixes import clean_environ
from support.users import make_user_venv

pytest.importorskip("rattler")
pytestmark = pytest.mark.registry

SPECS = ("python", "numpy", "distributed", "r-base", "greeter", "oldform", "linky")


class Launched(msgspec.Struct, frozen=True):
    """A plan, and what was made of it on a node of this machine."""

    plan: Plan
    prepared: Prepared
    server: ChannelServer
    folder: Path

    @property
    def prefix(self) -> Path:
        """Where the node has it."""
        return self.folder / "node" / "prefixes" / self.prepared.manifest.id[:16]

    def argv(self, *argv: str) -> list[str]:
        """A command of the node that runs its Python."""
        return [*self.prepared.launch(self.folder / "node").argv(), *argv]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def server(conda_channel: CondaChannel, folder: Path) -> Iterator[ChannelServer]:
    """The channel, which wants a token."""
    with serve_channel(mac_channel(conda_channel, folder / "forge"), token=canary("elsewhere")) as server:
        yield server


@pytest.fixture(scope="module")
def launched(server: ChannelServer, folder: Path) -> Iterator[Launched]:
    """Planned, prepared by a client in a venv, and laid out."""
    own = [f"{name}=={version(name)}" for name in ("dask", "distributed")]
    python = str(make_user_venv(folder / "venv", *own))
    (folder / "home").mkdir()
    (folder / "work").mkdir()
    (folder / "home" / ".condarc").write_text(f"channels:\n  - {server.url}\n")
    pip = {"greeter": "2.0", **{name: version(name) for name in ("msgspec", "backports-zstd") if _has(name)}}
    (folder / "mac.json").write_text(mac_listing(server.folder, SPECS, url=server.plain_url, pip=pip))
    offer(folder / "wheels", "greeter", "2.0", files={"greeter.py": b"WORD = 'good evening'\n"})
    with (
        serve_index(folder / "wheels") as index,
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"likewise.streaming": False}),
    ):
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("UV_INDEX", f"own={index.url}")
        patch.setenv("LIKEWISE_CACHE", str(folder / "client"))
        patch.chdir(folder / "work")
        reading = sync.read_source(folder / "mac.json", client="osx-arm64")
        plan = sync.plan(reading, target=f"linux-64-glibc{LIBC}", conda_extras=["geodata"])
        prepared = sync.prepare(PlanOptions(), goal=plan, python=python)
        made = Launched(plan, prepared, server, folder)
        done = subprocess.run(made.argv("-c", ""), env=clean_environ(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield made
        prepared.close()


def _has(name: str) -> bool:
    return name != "backports-zstd" or sys.version_info < (3, 14)


def test_every_package_is_kept_in_its_version(launched: Launched) -> None:
    """What Linux alone needs comes along, and what is for the cluster alone; nothing moved."""
    assert not any(one.installed for one in launched.plan.conda)
    new = {one.name: one.reason for one in launched.plan.conda if one.new}
    assert new["geodata"] == "asked for on the cluster alone"
    assert new.keys() <= {"geodata", "geodata-base", "libgcc", "libstdcxx"}
    assert {one.subdir for one in launched.plan.conda if one.action is Action.FETCH} == {"linux-64", "noarch"}
    brought = {name for one in launched.plan.conda for name in one.distributions}
    assert {"numpy", "dask", "distributed", "msgpack"} <= brought


def test_it_runs_without_the_channel(launched: Launched) -> None:
    """Everything is imported from the node's prefix, programs know where they are, and pip's greeter is on top."""
    code = """
import json, os, subprocess, sys
import distributed, greeter, numpy, sqlite3, ssl
said = [subprocess.run([f"{sys.prefix}/bin/{name}", *rest], capture_output=True, text=True, check=True).stdout.strip()
        for name, *rest in (["Rscript", "-c", "echo $R_HOME_DIR"], ["oldform"])]
places = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
print(json.dumps({"said": said, "prefix": sys.prefix, "base": sys.base_prefix, "places": places, "word": greeter.WORD,
    "variables": [os.environ.get(name) for name in ("R_HOME", "PROJ_DATA", "GEODATA_MODE", "CONDA_PREFIX")],
    "greet": os.path.exists(f"{sys.prefix}/bin/greet"), "loudly": os.path.exists(f"{sys.prefix}/bin/greet-loudly")}))
"""
    done = masked(launched.argv("-c", code), [launched.server.folder, launched.folder / "client" / "work"], check=True)
    seen = json.loads(done.stdout)
    prefix = str(launched.prefix)
    assert (seen["prefix"], seen["base"], seen["word"]) == (prefix, prefix, "good evening")
    assert seen["said"] == [f"{prefix}/lib/R", prefix]
    assert [place for place in seen["places"] if not place.startswith(prefix)] == []
    assert seen["variables"] == [f"{prefix}/lib/R", f"{prefix}/share/proj", "fast", prefix]
    assert (seen["greet"], seen["loudly"]) == (False, True)


def test_the_layers_are_those_of_the_archives(launched: Launched, conda_channel: CondaChannel) -> None:
    """One for each package with files, by its name or its distribution's; what pip replaced has what is no module."""
    from likewise.layers.conda import layer_of_archive

    refs = {ref.name: ref for ref in launched.prepared.manifest.layers}
    for name, layer in (("r-base", "conda:r-base"), ("oldform", "conda:oldform"), ("numpy", "numpy")):
        assert refs[layer].digest == layer_of_archive(conda_channel.archive(name)).digest
    assert refs["cpython"].kind is LayerKind.INTERPRETER
    assert launched.prepared.manifest.base == "data"
    assert refs["greeter"].version == "2.0"
    assert refs["conda:greeter"].files == 1  # greet-loudly
    described = {one.name: one for one in launched.prepared.replica.conda}
    assert (described["greeter"].replaced, described["numpy"].distributions) == ("pip", ("numpy",))


def test_the_kit_has_what_python_needs(launched: Launched) -> None:
    """Libraries that Python and distributed depend on, by conda's own word; nothing of R's."""
    kit = set(launched.prepared.manifest.kit)
    assert {"distributed", "likewise", "msgspec", "conda:openssl"} <= kit
    assert not kit & {"numpy", "conda:r-base", "conda:geodata"}


def test_the_node_has_records_of_what_was_planned(launched: Launched) -> None:
    """py-rattler reads them; they name the channel without its token."""
    import rattler

    found = [rattler.PrefixRecord.from_path(path) for path in (launched.prefix / "conda-meta").glob("*.json")]
    planned = {(one.name, one.version, one.build) for one in launched.plan.conda if one.file}
    assert {(one.name.normalized, str(one.version), str(one.build)) for one in found} == planned
    assert len(found) == len(planned)
    assert all(one.url.startswith(f"{launched.server.plain_url}/") for one in found)
    files = {path: one.name.normalized for one in found for path in map(str, one.files)}
    assert (files["bin/Rscript"], files["bin/greet-loudly"]) == ("r-base", "greeter")
    assert "bin/greet" not in files  # pip's
    assert [path for path in files if not os.path.lexists(launched.prefix / path)] == []


def test_a_link_script_is_named(launched: Launched) -> None:
    """Nobody runs it."""
    codes = {(one.code, one.subject) for one in launched.prepared.problems}
    assert ("conda-link-script", "linky") in codes


def test_what_nodes_could_fetch_by_themselves(launched: Launched) -> None:
    """Every package that is a layer and not in the kit, but for what pip replaced; none of a channel with a token."""
    prepared = launched.prepared
    client = msgspec.structs.replace(prepared.snapshot, conda=prepared.replica.conda)
    found = {one.name for one in candidates(prepared.manifest, client)}
    assert {"numpy", "r-base", "geodata", "oldform"} <= found
    assert not found & {"greeter", "openssl", "distributed"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(launched.folder / "home"))
        assert sync.find_packages(prepared) == ()


def test_archives_are_fetched_once_with_the_token_and_it_is_nowhere(launched: Launched) -> None:
    """A second launch asks the channel for nothing; no file of ours and no value has the token."""
    archives = launched.server.archives()
    assert len(archives) == len(set(archives)) == len([one for one in launched.plan.conda if one.file])
    before = len(launched.server.asked)
    with pytest.MonkeyPatch.context() as patch, dask.config.set({"likewise.streaming": False}):
        patch.setenv("LIKEWISE_CACHE", str(launched.folder / "client"))
        patch.setenv("HOME", str(launched.folder / "home"))
        patch.chdir(launched.folder / "work")
        again = sync.prepare(PlanOptions(), goal=launched.plan, python=launched.prepared.python)
    again.close()
    assert again.manifest.id == launched.prepared.manifest.id
    assert len(launched.server.asked) == before
    secret = canary("elsewhere")
    assert secret not in words_beneath(launched.folder / "client", launched.folder / "node")
    assert secret not in repr((launched.plan, launched.prepared))


@pytest.mark.parametrize("kind", ["refused", "gone", "broken", "cut", "other"])
def test_what_can_not_be_had_is_named(launched: Launched, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A channel that refuses, has it no more, fails, stops, gives something else; never with the token."""
    monkeypatch.setenv("HOME", str(launched.folder / "home"))
    one = next(one for one in launched.plan.conda if one.name == "oldform")
    file = one.file
    assert file is not None
    if kind == "other":
        one = msgspec.structs.replace(one, file=msgspec.structs.replace(file, sha256="0" * 64))
    server, status = launched.server, {"refused": 403, "gone": 404, "broken": 500}.get(kind, 200)
    server.status, server.fails, server.cut = status, file.filename, file.filename if kind == "cut" else "\n"
    plan = msgspec.structs.replace(launched.plan, conda=(one,))
    try:
        with pytest.raises(FetchError) as caught:
            fetch_packages(plan, launched.prepared.snapshot, settings=resolve_settings(), stages=Stages(Silent()))
    finally:
        server.status, server.fails, server.cut = 200, "", "\n"
    assert file.filename in str(caught.value)
    assert {"cut": "", "other": "its sha256 is"}.get(kind, str(status)) in str(caught.value)
    assert caught.value.todo
    assert canary("elsewhere") not in f"{caught.value} {caught.value.details} {caught.value.__cause__!r}"


def test_a_plan_for_other_versions_is_refused(launched: Launched) -> None:
    """What is critical is the client's own version, also where it comes from conda."""
    other = tuple(
        msgspec.structs.replace(one, version="1999.1") if one.name == "distributed" else one
        for one in launched.plan.conda
    )
    with pytest.raises(PlanError, match=r"distributed 1999\.1"):
        settle(msgspec.structs.replace(launched.plan, conda=other), launched.prepared.snapshot)


OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}


@pytest.mark.skipif(platform.machine() not in OTHER, reason="knows two processors")
def test_a_prefix_for_another_processor(
    conda_channel: CondaChannel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conda prefix that is here: its packages come from its own channel, what pip put on top is copied or fetched."""
    target = parse_target(f"linux-{OTHER[platform.machine()]}-glibc{LIBC}", python=platform.python_version())
    channel = twin_channel(conda_channel, tmp_path / "forge", subdir_of(target.platform))
    prefix = install(tmp_path / "conda", SPECS, [channel], tmp_path / "packages")
    install_pips(prefix, tmp_path / "wheels")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    with closing(sync.prepare(PlanOptions(), goal=target, python=str(prefix / "bin" / "python"))) as prepared:
        plan, manifest = prepared.plan, prepared.manifest
        actions = {one.name: one.action for one in plan.decisions}
        assert [actions[name] for name in ("sample", "greeter", "likewise")] == [Action.COPY] * 3
        assert actions["msgspec"] is Action.FETCH
        assert "numpy" not in actions
        assert {one.subdir for one in plan.conda if one.action is Action.FETCH} == {
            subdir_of(target.platform),
            "noarch",
        }
        assert not any(one.installed for one in plan.conda)
        refs = {ref.name: ref for ref in manifest.layers}
        assert {"cpython", "numpy", "conda:r-base", "conda:greeter", "greeter", "sample", "likewise"} <= refs.keys()
        assert refs["greeter"].version == "2.0"
        assert all(refs[name].bytecode for name in ("cpython", "numpy", "sample"))
        assert manifest.variables["R_HOME"] == "@prefix@/lib/R"
        asked = {one.name for one in prepared.replica.conda if one.requested}
        assert {"numpy", "r-base"} <= asked <= set(SPECS)
        assert prepared.drift() == ()
