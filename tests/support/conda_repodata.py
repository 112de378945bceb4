"""Channels that have metadata alone: what a solver asks for, and no package. Made up, a few lines each.

::

    channel = write_channel(folder, {"linux-64": [package("numpy", "1.26.4", "python >=3.11,<3.12.0a0")]})
    channel.as_uri()
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SUBDIRS = ("linux-64", "linux-aarch64", "osx-arm64", "win-64", "noarch")

Record = dict[str, Any]


def package(
    name: str, version: str, *depends: str, build: str = "h0_0", constrains: Iterable[str] = (), **more: Any
) -> Record:
    """The record of a package."""
    return {
        "name": name,
        "version": version,
        "build": build,
        "build_number": int(build.rpartition("_")[2]),
        "depends": list(depends),
        "constrains": list(constrains),
        "size": 1000,
        **more,
    }


def write_channel(folder: Path, offered: Mapping[str, Iterable[Record]]) -> Path:
    """`folder` as a channel that offers these records, by subdir; every other subdir is empty."""
    for subdir in SUBDIRS:
        records = {}
        for record in offered.get(subdir, ()):
            filename = f"{record['name']}-{record['version']}-{record['build']}.conda"
            digest = hashlib.sha256(f"{subdir}/{filename}".encode()).hexdigest()
            noarch = {"noarch": "python"} if subdir == "noarch" else {}
            records[filename] = {"subdir": subdir, "sha256": digest, **noarch, **record}
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        text = json.dumps({"info": {"subdir": subdir}, "packages": {}, "packages.conda": records})
        (folder / subdir / "repodata.json").write_text(text)
    return folder
