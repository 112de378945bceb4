"""Settings, resolved once at the edge. They live in Dask's own configuration under ``likewise:``.

=============================  ==========  ============================================================
name                           default     meaning
=============================  ==========  ============================================================
``likewise.cache``             user cache  folder of the store, the facts and the local nodes' caches
                                           (``LIKEWISE_CACHE`` comes first)
``likewise.store.max-age``     ``24h``     what was not used for so long may be removed
``likewise.store.max-size``    ``20GiB``   beyond it, the least recently used goes first
``likewise.code.max-bytes``    ``200MiB``  most loose code that one root may hold
``likewise.code.max-entries``  ``50000``   most files and folders looked at in one root
``likewise.pack.level``        ``1``       zstd level of layer archives (3: 12 % smaller, twice the time)
``likewise.streaming``         ``false``   whether processes start before all of the environment has arrived
=============================  ==========  ============================================================

Each can also be given as an environment variable: ``DASK_LIKEWISE__STORE__MAX_AGE=7d``.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import dask
import msgspec
import platformdirs
from dask.utils import parse_bytes, parse_timedelta

from likewise.errors import UsageError

_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings as values with units: sizes in bytes, ages as `timedelta`."""

    cache: Path
    max_age: timedelta = timedelta(hours=24)
    max_size: int = 20 * 2**30
    code_max_bytes: int = 200 * 2**20
    code_max_entries: int = 50_000
    pack_level: int = 1
    streaming: bool = False
    jobs: int = 1

    @property
    def store(self) -> Path:
        """Root of the local store."""
        return self.cache / "store"

    @property
    def facts(self) -> Path:
        """Where stat facts are kept."""
        return self.cache / "facts"

    @property
    def work(self) -> Path:
        """Derived files: relocated ELF files, built wheels, bytecode on its way into the store."""
        return self.cache / "work"

    @property
    def node(self) -> Path:
        """Where the nodes of local clusters keep their caches."""
        return self.cache / "node"


def resolve_settings() -> Settings:
    """Read the settings.

    Raises
    ------
    UsageError
        When one has a value that can't be understood.
    """
    cache = os.environ.get("LIKEWISE_CACHE") or _get("cache", None, str) or platformdirs.user_cache_dir("likewise")
    return Settings(
        cache=Path(cache).expanduser().absolute(),
        max_age=timedelta(seconds=_get("store.max-age", "24h", parse_timedelta)),
        max_size=_get("store.max-size", "20GiB", parse_bytes),
        code_max_bytes=_get("code.max-bytes", "200MiB", parse_bytes),
        code_max_entries=_get("code.max-entries", 50_000, int),
        pack_level=_get("pack.level", 1, int),
        streaming=_get("streaming", False, _switch),
        jobs=_cores(),
    )


def _get(name: str, default: Any, parse: Any) -> Any:
    value = dask.config.get(f"likewise.{name}", default)
    try:
        return None if value is None else parse(value)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"The setting likewise.{name} is {value!r}, which can't be understood ({error}).",
            todo=f"Set it to something like {default!r}.",
        ) from error


def _switch(value: Any) -> bool:
    """A switch as YAML, or an environment variable, may spell it."""
    text = str(value).lower()
    if text not in _SWITCH:
        raise ValueError("neither true nor false")
    return _SWITCH[text]


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))  # what a container or a batch job may really use
    except AttributeError:
        return os.cpu_count() or 1
