"""A conda prefix's replica is, byte for byte, what conda's installer makes at that place; with the original masked."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dask
import msgspec
import pytest

from likewise import sync
from likewise.model.conda import CondaPackage
from likewise.prepared import Prepared
from likewise.sync import PlanOptions
from support.conda_channel import CondaChannel, CondaPrefix
from support.indexes import offer, serve_index
from support.masking import masked
from support.prefixes import clean_environ

pytestmark = pytest.mark.registry

# What installers note, what pip has put over conda's, and the links to the program that a node makes itself.
NOT_COMPARED = ("CACHEDIR.TAG", "bin/greet", "bin/python", "bin/python3")
NOT_LOOKED_INTO = ("conda-meta/", "lib/python3.{}/site-packages/greeter")


class Replica(msgspec.Struct, frozen=True):
    """A conda prefix and what a node made of it."""

    user: CondaPrefix
    prepared: Prepared
    cache: Path
    client: Path  # likewise's cache folder there

    @property
    def prefix(self) -> Path:
        """Where the node has it."""
        return self.cache / "prefixes" / self.prepared.manifest.id[:16]

    def argv(self, *argv: str) -> list[str]:
        """A command of the node that runs its Python."""
        return [*self.prepared.launch(self.cache).argv(), *argv]


@pytest.fixture(scope="module", params=["near", "far"])
def replica(
    request: pytest.FixtureRequest, conda_prefix: CondaPrefix, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    """Laid out whole: at a short path, and at one that is longer than a first line of a script may be."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "work").mkdir()
    cache = folder / "cache" / ("far-" * 20 if request.param == "far" else "") / "node"
    with pytest.MonkeyPatch.context() as patch, dask.config.set({"likewise.streaming": False}):
        patch.setenv("LIKEWISE_CACHE", str(folder / "client"))
        patch.chdir(folder / "work")
        prepared = sync.prepare(python=str(conda_prefix.python))
        made = Replica(conda_prefix, prepared, cache, folder / "client")
        cache.parent.mkdir(parents=True)
        done = subprocess.run(made.argv("-c", ""), env=clean_environ(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield made
        prepared.close()


@pytest.fixture(scope="module")
def truth(replica: Replica, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What py-rattler installs of the same packages, written as if it lay where the replica is."""
    folder = tmp_path_factory.mktemp("truth") / "prefix"
    asyncio.run(install_as_if_at(folder, replica.prefix, replica.user))
    return folder


async def install_as_if_at(folder: Path, place: Path, user: CondaPrefix) -> None:
    """Install into `folder` what `user` has, so that its files name `place`."""
    import rattler

    metas = (user.folder / "conda-meta").glob("*.json")
    records: list[rattler.RepoDataRecord] = [rattler.PrefixRecord.from_path(path) for path in metas]
    await rattler.install(
        records, folder, cache_dir=user.cache / "pkgs", show_progress=False, alternative_target_prefix=place
    )


def look(path: Path) -> tuple[str, object, bool]:
    """What a file is: a link's target or content, and whether it can be run."""
    if path.is_symlink():
        return "link", os.readlink(path), False
    return "file", path.read_bytes(), os.access(path, os.X_OK)


def test_every_file_is_what_the_installer_makes_there(replica: Replica, truth: Path) -> None:
    """Placeholders in texts and binaries, first lines, links, modes: nothing differs."""
    minor = replica.prepared.manifest.python.removeprefix("python3.")
    apart = tuple(start.format(minor) for start in NOT_LOOKED_INTO)
    paths = [path for path in sorted(truth.rglob("*")) if path.is_symlink() or path.is_file()]
    every = (str(path.relative_to(truth)) for path in paths)
    names = [name for name in every if name not in NOT_COMPARED and not name.startswith(apart)]
    assert len(names) > 2000 and {"bin/dask", "bin/greet-loudly"} <= set(names)
    lost = [name for name in names if not os.path.lexists(replica.prefix / name)]
    assert [name for name in lost if not written_by_installers(name)] == []
    differing = [name for name in names if name not in lost and look(truth / name) != look(replica.prefix / name)]
    assert [name for name in differing if not written_by_installers(name)] == []


def written_by_installers(name: str) -> bool:
    """What no layer has, since installers write it: records of an installation."""
    return ".dist-info/" in name and name.rpartition("/")[2] in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


@pytest.mark.root
def test_it_works_without_the_original(replica: Replica) -> None:
    """With the prefix, the package cache and the channel masked everything is imported, run, and found."""
    code = """
import json, os, subprocess, sys
import distributed, extra, greeter, numpy, sample, sqlite3, ssl
said = [subprocess.run([f"{sys.prefix}/bin/{name}", *rest], capture_output=True, text=True, check=True).stdout.strip()
        for name, *rest in (["greet"], ["greet-loudly"], ["Rscript", "-c", "echo $R_HOME_DIR"], ["oldform"])]
places = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
print(json.dumps({"said": said, "prefix": sys.prefix, "places": places, "R_HOME": os.environ.get("R_HOME")}))
"""
    user = replica.user
    hide = [user.folder, user.cache, user.channel.folder]
    done = masked(replica.argv("-c", code), hide, check=True)
    seen = json.loads(done.stdout)
    prefix = str(replica.prefix)
    assert seen["prefix"] == prefix
    assert seen["said"] == ["good evening pip", "good evening pip", f"{prefix}/lib/R", prefix]
    assert [place for place in seen["places"] if not place.startswith(prefix)] == []
    assert seen["R_HOME"] == f"{prefix}/lib/R"


def test_nothing_names_the_original(replica: Replica) -> None:
    """No file of the replica has the client's prefix, its package cache or a placeholder in it.

    Records name placeholders: whoever moves the prefix has to know them.
    """
    for words in (str(replica.user.folder), str(replica.user.cache), "/opt/testbed_build_prefix"):
        records = ["--exclude-dir=conda-meta"] if words.startswith("/opt") else []
        command = ["grep", "-rlsF", *records, words, replica.prefix]
        assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""


def test_it_has_records_of_the_same_packages(replica: Replica) -> None:
    """py-rattler reads the list there that it reads on the client, and every file that a record names is there."""
    import rattler

    def records(prefix: Path) -> dict[tuple[str, str, str], rattler.PrefixRecord]:
        found = [rattler.PrefixRecord.from_path(path) for path in (prefix / "conda-meta").glob("*.json")]
        return {(one.name.normalized, str(one.version), str(one.build)): one for one in found}

    own, there = records(replica.user.folder), records(replica.prefix)
    assert sorted(there) == sorted(own)
    for name, one in there.items():
        named = {str(path) for path in one.files}
        assert [path for path in named if not os.path.lexists(replica.prefix / path)] == []
        assert {path for path in map(str, own[name].files) if path not in named and is_shipped(path)} == set()
        assert (one.sha256, one.md5, one.subdir) == (own[name].sha256, own[name].md5, own[name].subdir)


def is_shipped(path: str) -> bool:
    """Whether an installer's file is one of a layer of conda's; pip has replaced greeter."""
    pips = path == "bin/greet" or "/greeter" in path
    return not written_by_installers(path) and not path.endswith(".pyc") and not pips


def test_likewise_sees_the_same_packages_on_the_node(replica: Replica, tmp_path: Path) -> None:
    """A client there would ship the very same layers."""
    environ = clean_environ(LIKEWISE_CACHE=str(tmp_path / "cache"), HOME=str(tmp_path))
    argv = replica.argv("-m", "likewise", "scan", "--json")
    done = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["interpreter"]["kind"], seen["interpreter"]["prefix"]) == ("conda", str(replica.prefix))
    there = {one["name"]: one for one in seen["conda"]}
    assert list(there) == [one.name for one in replica.prepared.snapshot.conda]
    for one in replica.prepared.snapshot.conda:
        now = msgspec.convert(there[one.name], CondaPackage)
        assert (now.modified, now.missing) == ((), ()), one.name
        for what in ("version", "build", "subdir", "sha256", "requested", "requires", "content"):
            assert getattr(now, what) == getattr(one, what), (one.name, what)


def test_a_second_launch_is_of_the_same_environment(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged prefix has the same id, which placeholders make independent of any place."""
    monkeypatch.setenv("LIKEWISE_CACHE", str(replica.client))
    with dask.config.set({"likewise.streaming": False}):
        again = sync.prepare(python=str(replica.user.python))
    try:
        assert again.manifest.id == replica.prepared.manifest.id
    finally:
        again.close()


def test_the_channels_archives_give_the_same_layers(replica: Replica, conda_channel: CondaChannel) -> None:
    """Each package's identity, as scanned in the prefix, is that of its original archive, whatever its form."""
    from likewise.layers.conda import layer_of_archive

    packages = [each for each in replica.prepared.snapshot.conda if each.content and not each.replaced]
    assert len(packages) > 20
    for package in packages:
        assert layer_of_archive(conda_channel.archive(package.name)).digest == package.content, package.name


def test_what_is_for_the_cluster_alone_takes_nothing_away(
    conda_prefix: CondaPrefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a wheel that only nodes get, they have all of conda's packages and know who waits for which of them."""
    offer(tmp_path / "wheels", "beside", "1.0", files={"beside.py": b""})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("LIKEWISE_CACHE", str(tmp_path / "client"))
    with serve_index(tmp_path / "wheels") as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        with closing(sync.prepare(PlanOptions(extras=("beside",)), python=str(conda_prefix.python))) as prepared:
            assert prepared.replica.conda == prepared.snapshot.conda
            refs = {ref.name: ref for ref in prepared.manifest.layers}
            assert {"beside", "conda:r-base", "conda:(records)"} <= refs.keys()
            assert refs["conda:(records)"].files == len(prepared.snapshot.conda) + 1
