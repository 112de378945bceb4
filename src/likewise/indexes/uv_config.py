"""What uv's configuration says about indexes: ``uv.toml``, ``[tool.uv]`` of a ``pyproject.toml``, and its variables.

The rules are uv's own (its documentation, "Configuration files" and "Package indexes"): the project's file, the first
one found from the working directory upward, then the user's, then the machine's; what is nearer wins, lists are joined
with the nearer ones first; variables come before all files; the default index is asked last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from packaging.utils import canonicalize_name

from likewise.indexes.pip_config import read_text
from likewise.indexes.secret import Secret
from likewise.indexes.stated import Configuration, Source, Stated, unreadable
from likewise.indexes.urls import as_url
from likewise.model.snapshot import Problem

STRATEGIES = ("first-index", "unsafe-first-match", "unsafe-best-match")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
_TRUE = {"1", "true", "yes", "on", "y", "t"}


@dataclass(frozen=True)
class _Table:
    """The settings of one file, and the folder its paths are relative to."""

    path: Path
    settings: Mapping[str, Any]
    sources: Mapping[str, Any]


def read_uv(*, environ: Mapping[str, str], home: Path, folder: Path, machine: Path, system: str) -> Configuration:
    """What uv would do. The parameters are those of `read_pip`."""
    problems: list[Problem] = []
    tables = list(_tables(environ, home, folder, machine, system, problems))
    stated = [*_from_variables(environ, folder), *(index for table in tables for index in _from_table(table))]
    return Configuration(
        indexes=_ordered(stated),
        find_links=tuple(_find_links(environ, folder, tables)),
        no_index=_first(tables, "no-index") is True or environ.get("UV_NO_INDEX", "").lower() in _TRUE,
        strategy=_strategy(environ, tables),
        keyring=(environ.get("UV_KEYRING_PROVIDER") or _first(tables, "keyring-provider")) != "disabled",
        unverified=(*environ.get("UV_INSECURE_HOST", "").split(), *_strings(tables, "allow-insecure-host")),
        sources=_sources(tables),
        problems=tuple(problems),
    )


def config_files(*, environ: Mapping[str, str], home: Path, machine: Path, system: str) -> tuple[Path, ...]:
    """The files that uv may read beside those of the project, those that count most first."""
    if system == "win32":
        user = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
        shared = [Path(environ.get("PROGRAMDATA", r"C:\ProgramData")) / "uv" / "uv.toml"]
    else:
        user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        dirs = environ.get("XDG_CONFIG_DIRS") or str(machine / "etc" / "xdg")
        shared = [*(Path(one) / "uv" / "uv.toml" for one in dirs.split(":") if one), machine / "etc" / "uv" / "uv.toml"]
    return (user / "uv" / "uv.toml", *shared)


def _tables(
    environ: Mapping[str, str], home: Path, folder: Path, machine: Path, system: str, problems: list[Problem]
) -> Iterator[_Table]:
    if environ.get("UV_NO_CONFIG", "").lower() in _TRUE:
        return
    if environ.get("UV_CONFIG_FILE"):
        path = folder / environ["UV_CONFIG_FILE"]
        yield _Table(path, _uv_toml(path, problems), {})
        return
    project = next(filter(None, (_project(one, problems) for one in (folder, *folder.parents))), None)
    if project:
        yield project
    user, *shared = config_files(environ=environ, home=home, machine=machine, system=system)
    yield _Table(user, _uv_toml(user, problems), {})
    found = next((path for path in shared if path.is_file()), None)  # uv reads the first of the machine's files alone
    if found:
        yield _Table(found, _uv_toml(found, problems), {})


def _project(folder: Path, problems: list[Problem]) -> _Table | None:
    """The project's settings when `folder` is the project's. ``uv.toml`` beats the table in ``pyproject.toml``."""
    own, project = folder / "uv.toml", folder / "pyproject.toml"
    table = _uv_part(_toml(project, problems)) if project.is_file() else None
    sources = _as_table((table or {}).get("sources"))
    if own.is_file():
        return _Table(own, _uv_toml(own, problems), sources)
    return None if table is None else _Table(project, _with_pip(table), sources)


def _uv_part(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    tool = _as_table(document.get("tool"))
    return _as_table(tool["uv"]) if "uv" in tool else None


def _uv_toml(path: Path, problems: list[Problem]) -> Mapping[str, Any]:
    return _with_pip(_toml(path, problems))


def _with_pip(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with those for ``uv pip`` alone, which win."""
    return {**table, **_as_table(table.get("pip"))}


def _toml(path: Path, problems: list[Problem]) -> Mapping[str, Any]:
    """The words of a parser's error are the file's, and so are not passed on."""
    try:
        return _as_table(msgspec.toml.decode(read_text(path, problems)))
    except (msgspec.DecodeError, ValueError, RecursionError):  # a huge number, lists that are too deep
        problems.append(unreadable(str(path), "is not TOML"))
        return {}


def _as_table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _from_variables(environ: Mapping[str, str], folder: Path) -> Iterator[Stated]:
    for variable in ("UV_INDEX", "UV_EXTRA_INDEX_URL"):
        for text in environ.get(variable, "").split():
            yield _from_text(text, folder, variable)
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if text := environ.get(variable, "").strip():
            yield replace(_from_text(text, folder, variable), default=True)


def _from_text(text: str, folder: Path, where: str) -> Stated:
    named = _NAMED.fullmatch(text)
    name, url = (named[1], named[2]) if named and "://" not in named[1] else ("", text)
    return Stated(Secret(as_url(url, folder)), where, name=name)


def _from_table(table: _Table) -> Iterator[Stated]:
    folder, where = table.path.parent, str(table.path)
    indexes = table.settings.get("index")
    for entry in map(_as_table, indexes if isinstance(indexes, list) else []):
        if isinstance(entry.get("url"), str) and entry.get("format", "simple") == "simple":
            yield Stated(
                Secret(as_url(entry["url"], folder)),
                where,
                name=str(entry.get("name", "")),
                default=entry.get("default") is True,
                explicit=entry.get("explicit") is True,
                anonymous=entry.get("authenticate") == "never",
            )
    for url in _list(table.settings, "extra-index-url"):
        yield Stated(Secret(as_url(url, folder)), where)
    if isinstance(default := table.settings.get("index-url"), str):
        yield Stated(Secret(as_url(default, folder)), where, default=True)


def _ordered(stated: list[Stated]) -> tuple[Stated, ...]:
    """Each name once, as stated first; one default, the first, which stands last."""
    names: set[str] = set()
    kept: list[Stated] = []
    for index in stated:
        if not index.name or index.name not in names:
            names.add(index.name)
            kept.append(index)
    defaults = [index for index in kept if index.default]
    return (*(index for index in kept if not index.default), *defaults[:1])


def _find_links(environ: Mapping[str, str], folder: Path, tables: list[_Table]) -> Iterator[Secret]:
    for one in environ.get("UV_FIND_LINKS", "").split(","):
        if one.strip():
            yield Secret(as_url(one.strip(), folder))
    for table in tables:
        yield from (Secret(as_url(one, table.path.parent)) for one in _list(table.settings, "find-links"))
        indexes = table.settings.get("index")
        for entry in map(_as_table, indexes if isinstance(indexes, list) else []):
            if entry.get("format") == "flat" and isinstance(entry.get("url"), str):
                yield Secret(as_url(entry["url"], table.path.parent))


def _strategy(environ: Mapping[str, str], tables: list[_Table]) -> str:
    wanted = environ.get("UV_INDEX_STRATEGY") or _first(tables, "index-strategy")
    return str(wanted) if wanted in STRATEGIES else ""


def _sources(tables: list[_Table]) -> dict[str, tuple[Source, ...]]:
    """``[tool.uv.sources]`` that name an index."""
    found: dict[str, tuple[Source, ...]] = {}
    for table in tables:
        for name, given in table.sources.items():
            entries = map(_as_table, given if isinstance(given, list) else [given])
            sources = tuple(_source(one) for one in entries if isinstance(one.get("index"), str))
            if sources:
                found.setdefault(canonicalize_name(name), sources)
    return found


def _source(entry: Mapping[str, Any]) -> Source:
    chosen = "extra" in entry or "group" in entry
    return Source(entry["index"], marker=str(entry.get("marker", "")), chosen=chosen)


def _first(tables: list[_Table], key: str) -> object:
    return next((table.settings[key] for table in tables if key in table.settings), None)


def _list(settings: Mapping[str, Any], key: str) -> list[str]:
    value = settings.get(key)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _strings(tables: list[_Table], key: str) -> list[str]:
    return [one for table in tables for one in _list(table.settings, key)]
