"""What real tools write is read as what they mean, and what is written is what they install."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.formats.read import Reading, pins_for, read
from likewise.formats.write import write
from likewise.model.plan import Action, Decision, Plan
from likewise.model.target import Platform, Target
from likewise.planner.tags import target_tags
from likewise.scanner.probe import probe_here
from support.indexes import IndexServer, offer, serve_index
from support.prefixes import UV, make_venv, run

OWN = probe_here().interpreter
HERE = Target(platform=OWN.platform, python=OWN.version)
MAC = Platform(os="macos", arch="aarch64")
PROJECT = """
[project]
name = "project"
version = "0.1"
requires-python = ">=3.10"
dependencies = ["sample", "web[fast]", "maconly ; sys_platform == 'darwin'", "linuxonly ; sys_platform == 'linux'"]

[project.optional-dependencies]
more = ["extraonly"]

[dependency-groups]
dev = ["testing"]
docs = ["docsonly"]
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexServer]:
    """An index with what `PROJECT` needs, on Linux and macOS."""
    folder = tmp_path_factory.mktemp("index")
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    for platform in ("manylinux_2_17_x86_64", "manylinux_2_17_aarch64", "macosx_11_0_arm64"):
        offer(folder, "sample", "1.2.3", tag=f"{python}-{python}-{platform}", requires=["base>=1"])
    offer(
        folder, "web", "2.0", requires=["speedy ; extra == 'fast'", "slowly ; extra == 'slow'"], extras=["fast", "slow"]
    )
    for name in ("base", "speedy", "slowly", "maconly", "linuxonly", "extraonly", "testing", "docsonly"):
        offer(folder, name, "1.0")
    with serve_index(folder) as server:
        yield server


@pytest.fixture(scope="module")
def project(index: IndexServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `PROJECT`, locked and installed by uv."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").write_text(PROJECT)
    run(UV, "lock", "-q", "--no-config", "--default-index", index.url, "--directory", folder)
    run(UV, "sync", "-q", "--no-config", "--frozen", "--python", sys.executable, "--directory", folder)
    return folder


def versions(reading: Reading) -> dict[str, str]:
    """Name → version."""
    return {d.name: d.version for d in reading.snapshot.distributions}


def listed(python: Path) -> dict[str, str]:
    """What is installed there, as uv says."""
    found = json.loads(run(UV, "pip", "list", "-q", "--format", "json", "--python", python))
    return {one["name"]: one["version"] for one in found}


def python_of(project: Path) -> Path:
    """The interpreter of the project's venv."""
    return project / ".venv" / "bin" / "python"


def test_uv_lock_is_what_uv_syncs(project: Path) -> None:
    """Groups, extras and markers count exactly as for ``uv sync``."""
    found = versions(read(project / "uv.lock", machine=HERE))
    assert found == listed(python_of(project))
    assert {"testing", "linuxonly", "speedy"} <= set(found)
    assert not {"docsonly", "extraonly", "slowly", "maconly"} & set(found)


def test_uv_lock_for_another_client(project: Path) -> None:
    """Read for a Mac it has what a Mac gets, and pins for this machine's kind the file that uv installs here."""
    reading = read(project / "uv.lock", client=MAC, machine=HERE)
    assert "maconly" in versions(reading) and "linuxonly" not in versions(reading)
    pins = pins_for(reading.listing, reading.snapshot, HERE, target_tags(HERE))
    assert pins.extras == ("linuxonly==1.0",)
    assert pins.files["sample"].filename.endswith(f"manylinux_2_17_{OWN.platform.arch}.whl")


def test_pylock_is_what_uv_exports(project: Path) -> None:
    """The same environment in the format of PEP 751."""
    text = run(UV, "export", "-q", "--frozen", "--format", "pylock.toml", "--no-emit-project", "--directory", project)
    path = project / "pylock.exported.toml"
    path.write_text(text)
    reading = read(path, machine=HERE)
    assert versions(reading) == listed(python_of(project))
    locked = read(project / "uv.lock", machine=HERE)
    ours, theirs = (
        pins_for(one.listing, one.snapshot, HERE, target_tags(HERE)).files["sample"] for one in (reading, locked)
    )
    assert (ours.url, ours.sha256) == (theirs.url, theirs.sha256)


def test_hashed_requirements_are_what_uv_exports(project: Path) -> None:
    """All of its hashes count, so that the wheel for any platform is among them."""
    text = run(UV, "export", "-q", "--frozen", "--no-emit-project", "--directory", project)
    path = project / "requirements.txt"
    path.write_text(text)
    reading = read(path, machine=HERE)
    assert versions(reading) == listed(python_of(project))
    locked = read(project / "uv.lock", machine=HERE)
    hashes = [pins_for(one.listing, one.snapshot, HERE, ()).hashes["sample"] for one in (reading, locked)]
    assert hashes[0] == hashes[1] and len(hashes[0][1]) == 3


def test_pip_freeze_and_pip_inspect(tmp_path: Path, index: IndexServer) -> None:
    """What pip says of a venv with releases, a wheel's file, a folder, and an editable: the versions as installed."""
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    for name in ("folder", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "0.{len(name)}"\n')
    wheel = offer(tmp_path / "wheels", "byfile", "3.1")
    run(UV, "pip", "install", "-q", "--python", python, "--default-index", index.url, "sample", "web[fast]", wheel)
    for options in (["./folder"], ["-e", "./mine"]):
        run(UV, "pip", "install", "-q", "--no-deps", "--python", python, *options, cwd=tmp_path)
    installed = {name: version for name, version in listed(python).items() if name not in ("pip", "setuptools")}
    freeze, inspect = tmp_path / "freeze.txt", tmp_path / "inspect.json"
    freeze.write_text(run(python, "-m", "pip", "freeze"))
    inspect.write_text(run(python, "-m", "pip", "inspect", "--local"))
    reading = read(inspect, machine=Target(platform=MAC, python="3.8.0"))
    found = {name: version for name, version in versions(reading).items() if name not in ("pip", "setuptools")}
    assert found == installed
    assert (reading.snapshot.interpreter.platform.os, reading.snapshot.interpreter.version) == ("linux", OWN.version)
    frozen = read(freeze, machine=HERE)
    known = {name: version for name, version in versions(frozen).items() if name not in ("folder",)}
    assert known == {name: version for name, version in installed.items() if name not in ("folder",)}
    for one in (reading, frozen):
        kinds = {d.name: d.origin.kind.value for d in one.snapshot.distributions}
        assert (kinds["byfile"], kinds["folder"], kinds["mine"]) == ("archive", "directory", "editable")


def test_others_install_what_is_written(tmp_path: Path, project: Path, index: IndexServer) -> None:
    """uv installs the written lock, pip the written requirements with all hashes checked: the versions of the plan."""
    reading = read(project / "uv.lock", machine=HERE)
    files = pins_for(reading.listing, reading.snapshot, HERE, target_tags(HERE)).files
    plan = Plan(
        target=HERE,
        decisions=tuple(
            Decision(name=d.name, version=d.version, action=Action.FETCH, reason="exact", file=files[d.name])
            for d in reading.snapshot.distributions
        ),
        kit=(),
    )
    lock, requirements = tmp_path / "pylock.toml", tmp_path / "requirements.txt"
    lock.write_text(write(plan, "pylock"))
    requirements.write_text(write(plan, "requirements"))
    by_uv = make_venv(tmp_path / "by-uv")
    run(UV, "pip", "install", "-q", "--no-config", "--python", by_uv, "-r", lock)
    assert listed(by_uv) == versions(reading)
    run(sys.executable, "-m", "venv", tmp_path / "by-pip")
    by_pip = tmp_path / "by-pip" / "bin" / "python"
    run(
        by_pip,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--require-hashes",
        "--index-url",
        index.url,
        "-r",
        requirements,
    )
    assert versions(reading).items() <= listed(by_pip).items()
