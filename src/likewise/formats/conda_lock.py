"""``conda-lock.yml``, the lock of all platforms in one file, as every version of conda-lock has written it; the locks
of pixi up to its version 3 are the same with lists for mappings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from likewise.errors import UsageError
from likewise.formats.conda_lists import one_each, pip_pin
from likewise.formats.conda_values import (
    CondaListing,
    Contents,
    archive_of,
    clean_channel,
    hexadecimal,
    is_virtual,
    secret_channels,
)
from likewise.formats.documents import convert
from likewise.model.conda import CondaPackage
from likewise.model.origins import redact_spec
from likewise.model.snapshot import Problem, Severity

FORM = "conda-lock.yml"

INSTALLED = frozenset({"main", "dev"})
"""The categories that ``conda-lock install`` installs when it is not told otherwise."""


class _Entry(msgspec.Struct):
    name: str
    version: str
    platform: str
    url: str
    manager: str = "conda"
    dependencies: dict[str, Any] | list[str] = {}
    constrains: list[str] = []
    hash: dict[str, str] = {}
    build: str = ""
    category: str = "main"
    categories: list[str] = []
    requires_dist: list[str] = []


class _Channel(msgspec.Struct, frozen=True):
    url: str


class _Metadata(msgspec.Struct, frozen=True):
    channels: list[_Channel | str] = []


class _File(msgspec.Struct):
    package: list[_Entry]
    metadata: _Metadata = _Metadata()


def read_conda_lock(document: Any, *, form: str = FORM) -> CondaListing:
    """Read it, of all platforms that it locks.

    Raises
    ------
    UsageError
        It is damaged, or locks two versions of one package for one platform.
    """
    found = convert(document, _File, form)
    texts = tuple(one if isinstance(one, str) else one.url for one in found.metadata.channels)
    channels = tuple(filter(None, map(clean_channel, texts)))
    entries = [one for one in found.package if INSTALLED.intersection(one.categories or [one.category])]
    if not entries:
        raise UsageError(f"There is no package in this {form}.", todo="Write it again.")
    problems: dict[str, Problem] = {}
    contents = {}
    for platform in dict.fromkeys(one.platform for one in entries):
        own = [one for one in entries if one.platform == platform]
        packages = one_each(
            _packages((one for one in own if one.manager == "conda" and not is_virtual(one.name)), problems)
        )
        pins = tuple(
            pip_pin(
                one.name,
                one.version,
                url=one.url,
                sha256=hexadecimal(one.hash.get("sha256", ""), 64),
                requires=_requires(one),
            )
            for one in own
            if one.manager == "pip"
        )
        contents["", platform] = Contents(packages=packages, pins=pins, channels=channels)
    secrets = secret_channels((*texts, *(one.url.rsplit("/", 2)[0] for one in entries if one.manager == "conda")))
    return CondaListing(form=form, contents=contents, problems=tuple(problems.values()), secrets=secrets)


def _packages(entries: Iterable[_Entry], problems: dict[str, Problem]) -> Iterable[CondaPackage]:
    for one in entries:
        known = archive_of(one.url)
        if known is None:
            problems[one.name] = Problem(
                code="not-understood",
                subject=one.name,
                message="Its URL is none of a conda package; it is known by name and version alone.",
                severity=Severity.NOTE,
            )
            known = CondaPackage(name=one.name.lower(), version=one.version, build=one.build)
        yield msgspec.structs.replace(
            known,
            name=one.name.lower(),
            version=one.version,
            sha256=hexadecimal(one.hash.get("sha256", ""), 64),
            md5=hexadecimal(one.hash.get("md5", ""), 32),
            requires=_requires(one),
            constrains=tuple(map(redact_spec, one.constrains)),
        )


def _requires(one: _Entry) -> tuple[str, ...]:
    """What it depends on: match specs, or of what pip installed requirements (PEP 508)."""
    if one.manager == "pip":
        if one.requires_dist or isinstance(one.dependencies, list):
            return tuple(one.requires_dist)
        return tuple(name if spec in ("*", "") else f"{name}{_joined(spec)}" for name, spec in one.dependencies.items())
    if isinstance(one.dependencies, list):
        return tuple(map(redact_spec, one.dependencies))
    return tuple(redact_spec(f"{name} {_joined(spec)}".strip()) for name, spec in one.dependencies.items())


def _joined(spec: Any) -> str:
    """Several specs of one name, as some versions of conda-lock write them, are all meant."""
    return ",".join(map(str, spec)) if isinstance(spec, list) else str(spec)
