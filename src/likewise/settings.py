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
``likewise.streaming``         ``true``    whether processes start before all of the environment has arrived
``likewise.source``            ``auto``    who gives nodes what an index offers, too: ``client``, ``index`` (where
                                           it is asked first), ``auto`` (whoever is quicker)
``likewise.plan.strict``       ``false``   refuse what is not exact
``likewise.plan.ignore``       ``[]``      distributions and code roots to leave out
``likewise.plan.only``         ``[]``      ship these and what they require, nothing else
``likewise.plan.level``        ``{}``      distribution: how far its version may move (exact, minor, any)
``likewise.plan.extras``       ``[]``      requirements for the cluster alone
``likewise.plan.conda-extras`` ``[]``      match specs of conda packages for the cluster alone
``likewise.plan.remember``     ``24h``     for how long an index is not asked the same again (0: never; what was not
                                           used for ``store.max-age`` is forgotten before)
``likewise.plan.fail-on``                  what stops a launch: ``critical-only`` (default) or ``any``
=============================  ==========  ============================================================

Each can also be given as an environment variable: ``DASK_LIKEWISE__STORE__MAX_AGE=7d``. What a call or a command says
(``package_sync_ignore=[…]``, ``--ignore``) takes the place of the setting.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import dask
import msgspec
import platformdirs
from dask.utils import parse_bytes, parse_timedelta

from likewise.errors import UsageError
from likewise.model.report import SOURCES

_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


class PlanSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan may do where nobody says otherwise; see `likewise.planner.options.PlanOptions`."""

    strict: bool = False
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    levels: tuple[tuple[str, str], ...] = ()
    extras: tuple[str, ...] = ()
    conda_extras: tuple[str, ...] = ()
    fail_on: str = "critical-only"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings as values with units: sizes in bytes, ages as `timedelta`."""

    cache: Path
    max_age: timedelta = timedelta(hours=24)
    max_size: int = 20 * 2**30
    code_max_bytes: int = 200 * 2**20
    code_max_entries: int = 50_000
    pack_level: int = 1
    streaming: bool = True
    source: str = "auto"
    remember: timedelta = timedelta(hours=24)
    jobs: int = 1
    plan: PlanSettings = PlanSettings()

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
        streaming=_get("streaming", True, _switch),
        source=_get("source", "auto", _source),
        remember=timedelta(seconds=_get("plan.remember", "24h", parse_timedelta)),
        jobs=_cores(),
        plan=PlanSettings(
            strict=_get("plan.strict", False, _switch),
            ignore=_get("plan.ignore", [], _texts),
            only=_get("plan.only", [], _texts),
            levels=_get("plan.level", {}, _pairs),
            extras=_get("plan.extras", [], _texts),
            conda_extras=_get("plan.conda-extras", [], _texts),
            fail_on=_get("plan.fail-on", "critical-only", str),
        ),
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


def _source(value: Any) -> str:
    """One of `SOURCES`."""
    if value not in SOURCES:
        raise ValueError(f"none of {', '.join(SOURCES)}")
    return str(value)


def _texts(value: Any) -> tuple[str, ...]:
    """A list of texts; a single one, as an environment variable may have it, is a list of one."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Mapping) or not all(isinstance(item, str) for item in value):
        raise TypeError("no list of texts")
    return tuple(value)


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    """A mapping of texts to texts."""
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
        raise TypeError("no mapping of texts")
    return tuple((str(name), item) for name, item in value.items())


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))  # what a container or a batch job may really use
    except AttributeError:
        return os.cpu_count() or 1
