"""Wheels made by hand, good and bad, the installers that install them, and the wheels of W160."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from likewise.scanner.files import DistFiles, Layout, dist_files, layout_for
from support.prefixes import UV, make_venv, run
from support.w160 import REQUIREMENTS

Install = Callable[..., Path]


class NoFacts:
    """A scan that has never been here before: every file is read. `read` names those that were."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def digest(self, path: str, stat: os.stat_result) -> None:
        """Nothing is known."""

    def remember(self, path: str, stat: os.stat_result, digest: str) -> None:
        """Note that `path` was read."""
        self.read.append(path)


def record_hash(data: bytes) -> str:
    """The hash field of `data` in a `RECORD`."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def write_wheel(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    name: str = "sample",
    version: str = "1.0",
    record: Mapping[str, str | None] | None = None,
    executable: tuple[str, ...] = (),
    requires: tuple[str, ...] = (),
) -> Path:
    """A wheel with `files`, METADATA and WHEEL.

    `record` has the `RECORD` line for some files (any text, for files that need not exist), None for those it leaves
    out; all others get a true line.
    """
    dist_info = f"{name.replace('-', '_')}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    content = {
        **files,
        f"{dist_info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode(),
        f"{dist_info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows: dict[str, str | None] = {path: f"{path},{record_hash(data)},{len(data)}" for path, data in content.items()}
    rows |= dict(record or {})
    content[f"{dist_info}/RECORD"] = "".join(
        f"{row}\n" for row in [*rows.values(), f"{dist_info}/RECORD,,"] if row is not None
    ).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{dist_info.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in content.items():
            info = zipfile.ZipInfo(path, date_time=(2024, 1, 1, 0, 0, 0))
            info.external_attr = (0o100755 if path in executable else 0o100644) << 16
            archive.writestr(info, data)
    return wheel


@pytest.fixture(scope="session")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A python whose pip installs into other prefixes."""
    venv = tmp_path_factory.mktemp("pip") / "venv"
    run(sys.executable, "-m", "venv", venv)
    return venv / "bin" / "python"


@pytest.fixture(params=["uv", "pip"])
def install(request: pytest.FixtureRequest, tmp_path: Path) -> Install:
    """Installs wheels into a new prefix, with uv and, in a second test, with pip; returns the site directory."""
    installer: str = request.param

    def install_with(*wheels: Path | str) -> Path:
        python = make_venv(tmp_path / "prefix")
        if installer == "uv":
            run(UV, "pip", "install", "-q", "--no-deps", "--no-index", "--python", python, *wheels)
        else:
            own: Path = request.getfixturevalue("pip")
            run(own, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", *wheels)
        return site_packages(python)

    return install_with


def site_packages(python: Path) -> Path:
    """The site directory of the venv with this python."""
    (site,) = python.parents[1].glob("lib/python3*/site-packages")
    return site


def layout_of(site: Path) -> Layout:
    """The layout of a venv's site directory."""
    return layout_for(str(site), python=site.parent.name)


def files_of(site: Path, name: str = "sample", facts: NoFacts | None = None) -> DistFiles:
    """What is shipped of the distribution `name`."""
    (dist_info,) = site.glob(f"{name.replace('-', '_')}-*.dist-info")
    return dist_files(dist_info, layout=layout_of(site), facts=facts or NoFacts())


def contents(files: DistFiles) -> dict[str, bytes]:
    """Layer path -> bytes that would be shipped; METADATA and WHEEL left out."""
    return {
        file.entry.path: Path(file.path).read_bytes() if file.data is None else file.data
        for file in files.files
        if not file.entry.path.endswith((".dist-info/METADATA", ".dist-info/WHEEL"))
    }


@pytest.fixture(scope="session")
def w160_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the 160 wheels of W160. ``LIKEWISE_TEST_WHEELS`` may name one that exists already."""
    existing = os.environ.get("LIKEWISE_TEST_WHEELS")
    if existing:
        return Path(existing)
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / "w160-wheels"
    with open(shared / "w160-wheels.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            python = shared / "w160-pip"
            run(sys.executable, "-m", "venv", python)
            run(python / "bin" / "python", "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
                "-d", folder, "-r", REQUIREMENTS)  # fmt: skip
            (folder / "complete").touch()
    return folder
