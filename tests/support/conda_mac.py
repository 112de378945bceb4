"""Conda packages for other platforms: a channel that offers for Macs, or for another processor, what it has for Linux.

::

    folder = mac_channel(conda_channel, tmp_path / "forge")
    (tmp_path / "mac.json").write_text(mac_listing(folder, SPECS, pip={"sample": "1.0"}))
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from support.conda_channel import CondaChannel
from support.conda_package import SUBDIR

MAC = "osx-arm64"
LINUX_ONLY = frozenset({"libgcc", "libstdcxx"})
"""What Macs have another library for."""


def mac_channel(channel: CondaChannel, folder: Path) -> Path:
    """`folder` as a channel with all that `channel` has (hard links), and for Macs the same versions as metadata."""
    shutil.copytree(channel.folder, folder, copy_function=os.link)
    packages = {}
    for record in _records(folder, SUBDIR):
        if record["name"] in LINUX_ONLY:
            continue
        depends = [one for one in record["depends"] if _name(one) not in {"__glibc", *LINUX_ONLY}]
        filename = f"{record['name']}-{record['version']}-mac_0.conda"
        packages[filename] = {**record, "build": "mac_0", "subdir": MAC, "depends": depends}
    (folder / MAC).mkdir()
    (folder / MAC / "repodata.json").write_text(json.dumps({"info": {"subdir": MAC}, "packages.conda": packages}))
    return folder


def twin_channel(channel: CondaChannel, folder: Path, subdir: str) -> Path:
    """`folder` as a channel with all that `channel` has, and the very same archives for `subdir`: they don't run there,
    and nothing else knows."""
    shutil.copytree(channel.folder, folder, copy_function=os.link)
    shutil.copytree(folder / SUBDIR, folder / subdir, copy_function=os.link)
    page = json.loads((folder / SUBDIR / "repodata.json").read_text())
    for packages in (page["packages"], page["packages.conda"]):
        for record in packages.values():
            record["subdir"] = subdir
    (folder / subdir / "repodata.json").unlink()
    (folder / subdir / "repodata.json").write_text(json.dumps({**page, "info": {"subdir": subdir}}))
    return folder


def mac_listing(folder: Path, specs: Iterable[str], *, url: str, pip: Mapping[str, str]) -> str:
    """What ``conda list --json`` says on a Mac that has `specs`, what they depend on, and `pip` on top."""
    offered = {record["name"]: record for subdir in ("noarch", MAC) for record in _records(folder, subdir)}
    found: dict[str, dict[str, Any]] = {}
    waiting = list(specs)
    while waiting:
        name = waiting.pop()
        if name in offered and name not in found:
            found[name] = offered[name]
            waiting += map(_name, offered[name]["depends"])
    rows = [
        {
            "base_url": url,
            "build_number": one["build_number"],
            "build_string": one["build"],
            "channel": "forge",
            "name": name,
            "platform": one["subdir"],
            "version": one["version"],
        }
        for name, one in sorted(found.items())
    ]
    rows += [
        {"build_string": "pypi_0", "channel": "pypi", "name": name, "platform": "pypi", "version": version}
        for name, version in pip.items()
    ]
    return json.dumps(rows)


def _records(folder: Path, subdir: str) -> list[dict[str, Any]]:
    page = json.loads((folder / subdir / "repodata.json").read_text())
    return [*page.get("packages", {}).values(), *page["packages.conda"].values()]


def _name(spec: str) -> str:
    return spec.partition(" ")[0]
