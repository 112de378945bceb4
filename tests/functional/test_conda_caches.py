"""Packages for other platforms from the client's own package caches, which are read and never changed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.conda_elsewhere import fetch_packages
from likewise.elsewhere import Packages
from likewise.events import Silent
from likewise.indexes.conda_caches import archives_in, package_caches
from likewise.layers.conda import layer_of_archive
from likewise.model.plan import Action, CondaDecision, LockedFile, Plan
from likewise.model.report import Stage
from likewise.model.snapshot import Snapshot, described_interpreter
from likewise.planner.targets import parse_target
from likewise.settings import resolve_settings
from likewise.stages import Stages
from support.canaries import canary, words_beneath
from support.conda_channel import CondaChannel
from support.conda_package import SUBDIR, Package, write_package
from support.conda_server import ChannelServer, serve_channel

NAMES = ("python", "oldform", "geodata-base", "r-base")
"""Both forms of archives, for this platform and for any."""

TARGET = parse_target(SUBDIR, python=platform.python_version())


@pytest.fixture
def server(conda_channel: CondaChannel) -> Iterator[ChannelServer]:
    """The channel, which wants a token."""
    with serve_channel(conda_channel.folder, token=canary("caches")) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, server: ChannelServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's, who knows the channel and has conda's own cache."""
    home = tmp_path / "home"
    (home / ".conda" / "pkgs").mkdir(parents=True)
    (home / ".condarc").write_text(f"channels:\n  - {server.url}\n")
    for name in ("CONDA_PKGS_DIRS", "CONDA_EXE", "MAMBA_ROOT_PREFIX", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LIKEWISE_CACHE", str(tmp_path / "client"))
    return home


def decisions(server: ChannelServer) -> list[CondaDecision]:
    """What a plan says of `NAMES`."""
    found = []
    for subdir in (SUBDIR, "noarch"):
        page = json.loads((server.folder / subdir / "repodata.json").read_text())
        for filename, one in {**page["packages"], **page["packages.conda"]}.items():
            url = f"{server.plain_url}/{subdir}/{filename}"
            file = LockedFile(filename=filename, url=url, sha256=one["sha256"], size=one["size"])
            about = {"name": one["name"], "version": one["version"], "build": one["build"], "subdir": subdir}
            decision = CondaDecision(action=Action.FETCH, reason="", file=file, channel=server.plain_url, **about)
            found += [decision] if one["name"] in NAMES else []
    assert len(found) == len(NAMES)
    return found


def fetched(server: ChannelServer) -> tuple[Packages, Stage]:
    """What comes of that plan, and what is told of it."""
    plan = Plan(target=TARGET, decisions=(), kit=(), conda=tuple(decisions(server)), channels=(server.plain_url,))
    snapshot = Snapshot(interpreter=described_interpreter(TARGET), distributions=(), code=())
    stages = Stages(Silent())
    packages = fetch_packages(plan, snapshot, settings=resolve_settings(), stages=stages)
    return packages, stages.launch_report().stages[0]


def copy(archive: Path, folder: Path) -> Path:
    """The archive in that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / archive.name).write_bytes(archive.read_bytes())
    return folder / archive.name


def state(folder: Path) -> dict[Path, tuple[str, int, int]]:
    """All that can be seen of the files of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, path.stat().st_nlink)
        for path in files
    }


def test_what_is_in_a_cache_is_not_asked_for(server: ChannelServer, home: Path, conda_channel: CondaChannel) -> None:
    """The layers are the same, what was taken is counted, and the cache is as it was."""
    for name in NAMES:
        copy(conda_channel.archive(name), home / ".conda" / "pkgs")
    before = state(home)
    packages, stage = fetched(server)
    assert server.asked == []
    assert stage.done == {"fetched": 0, "cached": len(NAMES), "reused": 0, "bytes": 0}
    assert stage.summary.endswith(f"; {len(NAMES)} from a package cache")
    assert state(home) == before
    assert packages.base is not None
    made = {layer.name: layer.digest for layer in packages.others}
    assert packages.base.layer.digest == layer_of_archive(conda_channel.archive("python")).digest
    assert made["conda:oldform"] == layer_of_archive(conda_channel.archive("oldform")).digest


def test_what_was_damaged_or_is_another_one_is_passed_over(
    server: ChannelServer, home: Path, conda_channel: CondaChannel, tmp_path: Path
) -> None:
    """Of the same size or not, in a cache that counts more: another cache's, or the channel's is taken."""
    cache, root = home / ".conda" / "pkgs", home / "micromamba" / "pkgs"
    archive = copy(conda_channel.archive("oldform"), root)  # root counts more than ~/.conda
    archive.write_bytes(bytes([archive.read_bytes()[0] ^ 1]) + archive.read_bytes()[1:])
    copy(conda_channel.archive("oldform"), cache)
    archive = copy(conda_channel.archive("r-base"), cache)
    archive.write_bytes(archive.read_bytes()[:-1] + bytes([archive.read_bytes()[-1] ^ 1]))
    other = Package("geodata-base", "9.3", {"bin/evil": "another one"}, noarch="generic", subdir="noarch")
    write_package(other, cache)
    before = state(home)
    packages, stage = fetched(server)
    assert sorted(server.archives()) == sorted(
        conda_channel.archive(name).name for name in ("python", "r-base", "geodata-base")
    )
    assert (stage.done["fetched"], stage.done["cached"]) == (3, 1)
    assert state(home) == before
    made = {layer.name: layer.digest for layer in packages.others}
    for name in ("oldform", "r-base", "geodata-base"):
        assert made[f"conda:{name}"] == layer_of_archive(conda_channel.archive(name)).digest
    assert canary("caches") not in words_beneath(tmp_path / "client")


def test_only_files_count(tmp_path: Path) -> None:
    """No folder of that name, nothing outside, no name that is none; one whose size nobody knows may be it."""
    (tmp_path / "pkgs" / "folder-1-0.conda").mkdir(parents=True)
    (tmp_path / "outside-1-0.conda").write_bytes(b"12")
    (tmp_path / "pkgs" / "a-1-0.conda").write_bytes(b"12")

    def found(name: str, size: int | None) -> list[Path]:
        file = LockedFile(filename=name, url="https://host/x", sha256="0" * 64, size=size)
        return list(archives_in([tmp_path / "gone", tmp_path / "pkgs"], file))

    assert [found(name, None) for name in ("folder-1-0.conda", "../outside-1-0.conda", "a\0", "")] == [[]] * 4
    assert found("a-1-0.conda", None) == found("a-1-0.conda", 2) == [tmp_path / "pkgs" / "a-1-0.conda"]
    assert found("a-1-0.conda", 3) == []


@pytest.mark.parametrize(
    ("named", "variables", "prefix"),
    [
        ("root/pkgs", {}, "root/envs/mine"),
        ("root/pkgs", {}, "root"),
        ("root/pkgs", {"CONDA_EXE": "{home}/root/bin/conda"}, ""),
        ("root/pkgs", {"MAMBA_ROOT_PREFIX": "{home}/root"}, ""),
        ("micromamba/pkgs", {}, ""),
        (".local/share/mamba/pkgs", {}, ""),
        ("data/mamba/pkgs", {"XDG_DATA_HOME": "{home}/data"}, ""),
        (".conda/pkgs", {}, ""),
        (".mamba/pkgs", {}, ""),
        ("one", {"CONDA_PKGS_DIRS": f"{{home}}/none{os.pathsep}~/one"}, ""),
        ("stated", {}, ""),
        ("by variable", {"BIG": "{home}/by variable"}, ""),
        ("rattler/pkgs", {"RATTLER_CACHE_DIR": "{home}/rattler"}, ""),
        ("pixi/pkgs", {"PIXI_CACHE_DIR": "{home}/pixi"}, ""),
        ("cache/rattler/cache/pkgs", {"XDG_CACHE_HOME": "{home}/cache"}, ""),
        (
            "Library/Caches/rattler/cache/pkgs" if sys.platform == "darwin" else ".cache/rattler/cache/pkgs",
            {},
            "",
        ),
    ],
)
def test_where_caches_are_looked_for(tmp_path: Path, named: str, variables: dict[str, str], prefix: str) -> None:
    """Wherever conda, mamba, micromamba, rattler and pixi have them, by default or by somebody's word."""
    (tmp_path / ".condarc").write_text("pkgs_dirs:\n  - ~/stated\n  - ${BIG}\n  - relative\n")
    environ = {name: text.format(home=tmp_path) for name, text in variables.items()}
    prefixes = [str(tmp_path / prefix)] if prefix else []
    assert package_caches(environ, tmp_path, prefixes) == ()
    (tmp_path / named).mkdir(parents=True)
    assert package_caches(environ, tmp_path, prefixes) == (tmp_path / named,)


def test_what_somebody_named_comes_first(tmp_path: Path) -> None:
    """The variable, then the files, the last one first; then what is there by default."""
    for name in ("v", "near", "far", ".conda/pkgs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".condarc").write_text("pkgs_dirs: [~/far]\n")
    (tmp_path / "rc").write_text("pkgs_dirs: [~/near, ~/v]\n")
    environ = {"CONDARC": str(tmp_path / "rc"), "CONDA_PKGS_DIRS": str(tmp_path / "v")}
    found = [place.relative_to(tmp_path).as_posix() for place in package_caches(environ, tmp_path)]
    assert found == ["v", "near", "far", ".conda/pkgs"]
