"""The testbed's conda channel and prefix are what they should be: real, and whole without this machine's libraries."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.conda_channel import CondaChannel, CondaPrefix, install
from support.conda_package import PLACEHOLDER, SUBDIR, Package, write_channel
from support.conda_python import is_elf
from support.conda_server import serve_channel
from support.prefixes import run

pytestmark = pytest.mark.registry

LIBC = re.compile(r"(linux-vdso|ld-linux\S*|lib(c|m|dl|pthread|rt|util|resolv|anl)\.so)")


def records(prefix: Path) -> dict[str, dict[str, object]]:
    """What `conda-meta` says, by name."""
    found = [json.loads(path.read_text()) for path in (prefix / "conda-meta").glob("*.json")]
    return {record["name"]: record for record in found}


def loaded_from_outside(elves: Iterable[Path], prefix: Path) -> set[str]:
    """Libraries that `elves` would load from outside of the prefix, but for the C library; and what is missing."""
    listed = subprocess.run(["ldd", *elves], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\t(\S+) => (.+?)(?: \(0x\w+\))?$", listed, re.MULTILINE)
    return {f"{name} {place}" for name, place in found if not LIBC.match(name) and not place.startswith(f"{prefix}/")}


def test_the_prefix_works(conda_prefix: CondaPrefix) -> None:
    """Compiled and pure packages, conda's programs, and what pip put on top and over them."""
    code = "import numpy, distributed, sqlite3, ssl, sample, extra, likewise; print(numpy.arange(4).sum())"
    assert run(conda_prefix.python, "-c", code) == "6\n"
    assert run(conda_prefix.folder / "bin" / "greet") == "good evening pip\n"
    assert run(conda_prefix.folder / "bin" / "greet-loudly") == "good evening pip\n"
    assert run(conda_prefix.folder / "bin" / "Rscript", "-c", "echo $R_HOME_DIR") == f"{conda_prefix.folder}/lib/R\n"
    assert run(conda_prefix.folder / "bin" / "oldform") == f"{conda_prefix.folder}\n"


def test_what_conda_installed_loads_nothing_of_this_machine(conda_prefix: CondaPrefix) -> None:
    """Every ELF file of every package finds its libraries in the prefix."""
    prefix = conda_prefix.folder
    files = [prefix / file for record in records(prefix).values() for file in record["files"]]  # type: ignore[attr-defined]
    elves = [file for file in files if file.exists() and not file.is_symlink() and is_elf(file)]
    assert len(elves) > 80
    assert loaded_from_outside(elves, prefix) == set()


def test_packages_have_what_real_ones_have(conda_prefix: CondaPrefix) -> None:
    """Both archive forms, both kinds of placeholder, noarch, links, names that pip doesn't know, stale records."""
    found = records(conda_prefix.folder)
    assert {str(record["fn"]).rpartition("-")[2].partition(".")[2] for record in found.values()} == {"conda", "tar.bz2"}
    paths = [path for record in found.values() for path in record["paths_data"]["paths"]]  # type: ignore[index]
    assert {path.get("file_mode") for path in paths} == {None, "text", "binary"}
    assert {path["path_type"] for path in paths} == {"hardlink", "softlink", "unix_python_entry_point"}
    assert {record.get("noarch") for record in found.values()} == {None, "python", "generic"}
    assert {"dask-core", "msgpack-python", "libstdcxx", "openssl"} <= found.keys()
    assert (found["greeter"]["version"], found["numpy"]["requested_specs"]) == ("1.0", ["numpy"])
    assert [path.name for path in conda_prefix.folder.glob("lib/*/*/greeter-*")] == ["greeter-2.0.dist-info"]
    assert len(PLACEHOLDER) == 255


def test_packages_can_claim_what_is_not_true(tmp_path: Path) -> None:
    """A channel may say another hash of a file than it has: installers don't look."""
    package = Package("liar", "1.0", {"share/liar": "lies\n"}, sha256={"share/liar": "0" * 64})
    channel = write_channel(tmp_path / "channel", [package])
    prefix = install(tmp_path / "prefix", ["liar"], [channel], tmp_path / "cache")
    (path,) = records(prefix)["liar"]["paths_data"]["paths"]  # type: ignore[index]
    assert path["sha256"] == "0" * 64


@pytest.mark.parametrize("guard", [{}, {"token": "tk-1"}, {"user": "me", "password": "secret"}])
def test_channels_are_served(guard: dict[str, str], tmp_path: Path, conda_channel: CondaChannel) -> None:
    """py-rattler installs from an open channel, with a token in the path, and with a password."""
    with serve_channel(conda_channel.folder, **guard) as server:
        prefix = install(tmp_path / "prefix", ["geodata"], [server.url], tmp_path / "cache")
        assert sorted(server.archives()) == ["geodata-9.3-h0_0.tar.bz2", "geodata-base-9.3-h0_0.conda"]
    assert (prefix / "share/proj/empty").exists()
    assert str(records(prefix)["geodata"]["url"]).endswith(f"/{SUBDIR}/geodata-9.3-h0_0.tar.bz2")


@pytest.mark.parametrize("status", [401, 404, 500])
def test_channels_fail(status: int, tmp_path: Path, conda_channel: CondaChannel) -> None:
    """A channel may refuse, not have or not manage: nothing is installed."""
    with serve_channel(conda_channel.folder, status=status) as server, pytest.raises(Exception, match=str(status)):
        install(tmp_path / "prefix", ["geodata"], [server.url], tmp_path / "cache")
    assert not (tmp_path / "prefix" / "conda-meta").exists()
