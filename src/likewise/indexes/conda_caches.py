"""Package caches: folders of this machine where conda, mamba and their like keep the archives that they have fetched.

They belong to others, who may change them at any time. Nothing here writes to them.

Source: conda's documentation ("Specify package directories"), mamba's ("Configuration"), rattler's (`rattler_cache`),
and what these programs do.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from likewise.indexes.conda_config import read_conda_config
from likewise.model.plan import LockedFile

_PACKAGES = "pkgs"
"""What such a folder is called beneath an installation's root, or another cache."""


def package_caches(environ: Mapping[str, str], home: Path, prefixes: Iterable[str] = ()) -> tuple[Path, ...]:
    """The package caches that are there; those that somebody has named come first.

    Parameters
    ----------
    environ : mapping
        Environment variables.
    home : Path
    prefixes : iterable of str
        Prefixes of conda's on this machine: what made them has its cache at their root, which may be two folders up.
    """
    variable = environ.get("CONDA_PKGS_DIRS", "").split(os.pathsep)
    named = [*variable, *read_conda_config(environ, home, []).pkgs_dirs]
    places = [_expanded(text, home) for text in named if text]
    places += [root / _PACKAGES for root in (*_roots(environ, home, prefixes), home / ".conda", home / ".mamba")]
    places += [cache / _PACKAGES for cache in _rattler(environ, home)]
    return tuple(place for place in dict.fromkeys(places) if place.is_absolute() and place.is_dir())


def archives_in(caches: Iterable[Path], file: LockedFile) -> Iterator[Path]:
    """Where a file with the name and the size of `file` lies. Whether it is the same one, only its sha256 can tell."""
    if os.path.basename(file.filename) != file.filename:
        return
    for folder in caches:
        place = folder / file.filename
        try:
            facts = place.stat()
        except (OSError, ValueError):  # ValueError: a NUL in the name
            continue
        if stat.S_ISREG(facts.st_mode) and file.size in (None, facts.st_size):
            yield place


def _expanded(text: str, home: Path) -> Path:
    return home / text[2:] if text.startswith("~/") else Path(text)


def _roots(environ: Mapping[str, str], home: Path, prefixes: Iterable[str]) -> Iterator[Path]:
    """Where conda, mamba or micromamba may have their root prefix."""
    for name in ("CONDA_ROOT", "MAMBA_ROOT_PREFIX"):
        if root := environ.get(name):
            yield _expanded(root, home)
    if program := environ.get("CONDA_EXE"):  # <root>/bin/conda
        yield Path(program).parent.parent
    for prefix in map(Path, prefixes):
        yield prefix
        if prefix.parent.name == "envs":
            yield prefix.parent.parent
    yield home / "micromamba"
    yield Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "mamba"


def _rattler(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Where rattler and pixi may have their caches. They unpack what they fetch, so archives are rare there."""
    for name in ("PIXI_CACHE_DIR", "RATTLER_CACHE_DIR"):
        if cache := environ.get(name):
            yield _expanded(cache, home)
    own = home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"
    cache_home = Path(environ.get("XDG_CACHE_HOME") or own)
    yield cache_home / "pixi"
    yield cache_home / "rattler" / "cache"
