"""What lies in a conda prefix and belongs to nobody: R packages that R installed, what link scripts made, programs.

It is not shipped, because nothing says what of it belongs to the environment, or is a secret. It is told.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from likewise.model.conda_identity import site_folder
from likewise.model.snapshot import Problem, Severity

_PASSED = frozenset({"conda-meta", "pkgs", "envs", "condabin", "locks", "var", "tmp"})
"""Folders of the root that conda itself uses, or where nothing is installed."""

_BYTECODE = (".pyc", ".pyo")


def unowned_files(prefix: str, python: str, owned: Collection[str]) -> Iterator[str]:
    """Paths, relative to the prefix, of files outside the site directory that are not in `owned`; no bytecode.

    Files at the root of the prefix are passed over, as hidden folders there are.
    """
    site = site_folder(python).rstrip("/")
    pending = [name for name in _folders(prefix) if name not in _PASSED and not name.startswith(".")]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(f"{prefix}/{folder}"))
        except OSError:
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__" and path != site:
                    pending.append(path)
            elif path not in owned and not entry.name.endswith(_BYTECODE):
                yield path


def unowned_problem(prefix: str, found: Collection[str]) -> Iterator[Problem]:
    """What a person should know of them; nothing when there are none."""
    if not found:
        return
    places = sorted({"/".join(path.split("/")[:4]) for path in found})
    shown = ", ".join(places[:3]) + (", …" if len(places) > 3 else "")
    yield Problem(
        code="conda-unowned-files",
        subject=places[0],
        message=f"{len(found)} files in {prefix} belong to no conda package and no distribution ({shown}); they are "
        "not shipped. What the nodes need of them has to come with a package.",
        severity=Severity.WARNING,
    )


def _folders(prefix: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(prefix) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
