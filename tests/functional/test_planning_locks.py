"""A project's lock beside the environment that it describes: its pins are what the nodes of another platform get."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from likewise.errors import PlanError
from likewise.formats.read import Reading, read
from likewise.model.plan import Action, Plan
from likewise.model.snapshot import Snapshot
from likewise.model.target import Platform, Target
from likewise.planner.options import PlanOptions
from likewise.planning import find_lock, plan_for, target_for
from likewise.settings import Settings
from likewise.sync import scan
from support.indexes import IndexServer, offer, serve_index
from support.prefixes import UV, run

PYTHON = platform.python_version()
TAG = "cp{}{}".format(*PYTHON.split("."))
ARM = Target(
    platform=Platform(os="linux", arch="aarch64", libc="glibc", libc_version="2.28"),
    python=PYTHON,
)
PROJECT = """
[project]
name = "project"
version = "0.1"
requires-python = ">=3.10"
dependencies = [
    "binary",
    "forked == 1.0 ; platform_machine != 'aarch64'",
    "forked == 2.0 ; platform_machine == 'aarch64'",
    "armonly ; platform_machine == 'aarch64'",
]
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexServer]:
    """An index with binary wheels for two architectures."""
    folder = tmp_path_factory.mktemp("index")
    for version in ("1.0", "2.0"):
        offer(folder, "armonly", version)
    for arch in ("x86_64", "aarch64"):
        offer(folder, "binary", "1.0", tag=f"{TAG}-{TAG}-manylinux_2_17_{arch}")
        for version in ("1.0", "2.0"):
            offer(folder, "forked", version, tag=f"{TAG}-{TAG}-manylinux_2_17_{arch}")
    with serve_index(folder) as server:
        yield server


@pytest.fixture
def project(index: IndexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `PROJECT`, locked and installed by uv; afterwards the index is all that is configured."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    run(UV, "lock", "-q", "--no-config", "--default-index", index.url, "--directory", folder)
    run(UV, "sync", "-q", "--no-config", "--frozen", "--directory", folder)
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return folder


def installed(project: Path) -> Snapshot:
    """What is in the project's venv."""
    return scan(str(project / ".venv" / "bin" / "python"))


def planned(found: Snapshot | Reading, folder: Path, options: PlanOptions | None = None) -> Plan:
    """The plan for `ARM`, of somebody who has none of the files."""
    settings = Settings(cache=folder / "cache")
    reading = found if isinstance(found, Reading) else find_lock(folder, found)
    assert reading is not None
    away = Reading(reading.snapshot, here=False, listing=reading.listing)
    return plan_for(away, ARM, options or PlanOptions(), settings=settings, folder=folder)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the lock is forked for another machine than this one")
def test_forks_of_a_lock_reach_the_nodes(project: Path) -> None:
    """Where the lock has another version for the target, that one is planned, and the reason says so."""
    snapshot = installed(project)
    assert {d.name: d.version for d in snapshot.distributions} == {"binary": "1.0", "forked": "1.0"}
    plan = planned(snapshot, project)
    forked, binary = plan.get("forked"), plan.get("binary")
    assert forked is not None and binary is not None
    assert (forked.action, forked.version, forked.installed) == (Action.FETCH, "2.0", "1.0")
    assert "uv.lock has 2.0" in forked.reason
    assert (binary.version, binary.installed) == ("1.0", "")
    locked = (project / "uv.lock").read_text()
    for decision in (forked, binary):
        assert decision.file is not None and decision.file.filename.endswith("aarch64.whl")
        assert decision.file.url in locked and decision.file.sha256 in locked


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the lock is forked for another machine than this one")
@pytest.mark.parametrize(
    ("options", "version"),
    [
        (PlanOptions(strict=True), "1.0"),
        (PlanOptions(levels=(("forked", "exact"),)), "1.0"),
        (PlanOptions(levels=(("forked", "minor"),)), "1.0"),
        (PlanOptions(levels=(("forked", "any"),)), "2.0"),
    ],
)
def test_forks_of_a_lock_move_as_far_as_the_user_allows(project: Path, options: PlanOptions, version: str) -> None:
    """Who asked for exact versions gets what is installed, whatever the lock has for the target."""
    forked = planned(installed(project), project, options).get("forked")
    assert forked is not None and forked.file is not None
    assert (forked.version, forked.installed) == (version, "" if version == "1.0" else "1.0")
    assert forked.file.filename.startswith(f"forked-{version}-")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the lock is forked for another machine than this one")
def test_what_is_exact_is_refused_where_only_the_lock_has_another(project: Path, index: IndexServer) -> None:
    """The target lacks what is installed."""
    snapshot = installed(project)
    (wheel,) = index.manner.folder.glob("forked-1.0-*aarch64.whl")
    away = wheel.rename(wheel.with_suffix(".gone"))
    try:
        with pytest.raises(PlanError, match="forked"):
            planned(snapshot, project, PlanOptions(strict=True))
    finally:
        away.rename(wheel)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the lock is forked for another machine than this one")
def test_what_a_lock_has_for_the_nodes_alone(project: Path) -> None:
    """Read as a file, a lock also says what comes in on the target: in its version, though there is a newer one."""
    lock = project / "uv.lock"
    run(UV, "lock", "-q", "--no-config", "--upgrade-package", "armonly==1.0", "--directory", project)
    plan = planned(read(lock, machine=target_for(installed(project).interpreter)), project)
    armonly = plan.get("armonly")
    assert armonly is not None and armonly.new
    assert (armonly.version, armonly.reason) == ("1.0", "uv.lock has it for the nodes")


def test_the_hashes_of_a_lock_hold(project: Path, index: IndexServer) -> None:
    """The lock's file is taken as it is in the lock, even when the index has come to say something else."""
    snapshot = installed(project)
    lock = project / "uv.lock"
    before = planned(snapshot, project).get("binary")
    index.manner = replace(index.manner, fault="wrong-hash")
    try:
        after = planned(snapshot, project).get("binary")
    finally:
        index.manner = replace(index.manner, fault="")
    assert before is not None and after is not None
    assert after.file == before.file and after.file is not None
    assert after.file.sha256 in lock.read_text()


def test_a_lock_is_found_from_folders_below(project: Path) -> None:
    """As uv finds a project: upward from the working directory, the next one counts."""
    below = project / "src" / "package"
    below.mkdir(parents=True)
    found = find_lock(below, installed(project))
    assert found is not None and found.here and found.listing is not None
    assert found.listing.form == "uv.lock"


@pytest.mark.parametrize("what", ["another version", "truncated", "another Python", "nothing"])
def test_a_lock_that_does_not_describe_it_is_passed_over(project: Path, what: str) -> None:
    """One other version is enough; so is damage. Nobody asked for the lock, so it is no error."""
    snapshot, lock = installed(project), project / "uv.lock"
    text = lock.read_text()
    if what == "nothing":
        lock.unlink()
    else:
        changed = {
            "another version": re.sub(r'(name = "binary"\nversion = )"1.0"', r'\1"1.1"', text),
            "truncated": text[: len(text) // 2],
            "another Python": text.replace('">=3.10"', '"<3.0"'),
        }[what]
        assert changed != text
        lock.write_text(changed)
    assert find_lock(project, snapshot) is None


def test_a_saved_snapshot_can_be_planned_from(project: Path) -> None:
    """What ``scan --json`` wrote is a snapshot again; for somebody without its files all of it is fetched."""
    snapshot = installed(project)
    saved = project / "snapshot.json"
    saved.write_bytes(msgspec.json.encode(snapshot))
    own = Target(platform=snapshot.interpreter.platform, python=PYTHON)
    assert read(saved, machine=ARM) == Reading(snapshot, here=True, path=saved)
    assert target_for(snapshot.interpreter) == own
    away = Reading(snapshot)
    plan = plan_for(away, own, PlanOptions(), settings=Settings(cache=project / "cache"), folder=project / "none")
    files = {d.name: d.file.filename for d in plan.decisions if d.file}
    machine = snapshot.interpreter.platform.arch
    assert files == {name: f"{name}-1.0-{TAG}-{TAG}-manylinux_2_17_{machine}.whl" for name in ("binary", "forked")}
