"""What ``pip inspect`` writes: the metadata of every distribution, and the environment of the interpreter."""

from __future__ import annotations

import msgspec
from packaging.utils import canonicalize_name

from likewise.errors import UsageError
from likewise.formats.listing import Listing, Pin, fixed
from likewise.model.origins import DirectUrl, origin_of, redact_requirement
from likewise.model.snapshot import Problem, Severity
from likewise.model.target import Platform

_SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}
_ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}


class _Metadata(msgspec.Struct):
    """Core metadata as JSON (PEP 566); what does not matter here is ignored."""

    name: str = ""
    version: str = ""
    requires_dist: list[str] = []
    provides_extra: list[str] = []


class _Installed(msgspec.Struct):
    metadata: _Metadata
    metadata_location: str = ""
    direct_url: DirectUrl | None = None
    installer: str = ""
    requested: bool = False


class _Report(msgspec.Struct):
    version: str
    installed: list[_Installed]
    environment: dict[str, str] = {}


def read_inspect(text: str) -> Listing:
    """Read the report (pip's documentation, "pip inspect JSON output specification", version 1).

    Raises
    ------
    UsageError
        It is damaged, or of a version that is not known here.
    """
    try:
        report = msgspec.json.decode(text, type=_Report)
    except (msgspec.DecodeError, RecursionError) as error:  # the latter: nested too deeply
        raise UsageError(f"This report of `pip inspect` is damaged: {error}.", todo="Write it again.") from None
    if report.version.partition(".")[0] != "1":
        raise UsageError(
            f"This report of `pip inspect` has format {report.version}; known here is 1.",
            todo="Update likewise, or write it with an older pip.",
        )
    problems = tuple(
        Problem(
            code="nameless",
            subject=one.metadata_location or "?",
            message="Its metadata has no name or no version, so it is left out.",
            severity=Severity.ERROR,
        )
        for one in report.installed
        if not (one.metadata.name and one.metadata.version)
    )
    pins = tuple(_pin(one) for one in report.installed if one.metadata.name and one.metadata.version)
    return Listing(
        form="pip inspect",
        select=fixed(pins),
        offered=fixed(pins),
        python=report.environment.get("python_full_version", ""),
        implementation=report.environment.get("implementation_name") or "cpython",
        platform=_platform(report.environment),
        problems=problems,
    )


def _pin(one: _Installed) -> Pin:
    return Pin(
        name=canonicalize_name(one.metadata.name),
        version=one.metadata.version,
        origin=origin_of(one.direct_url, installer=one.installer),
        requires=tuple(map(redact_requirement, one.metadata.requires_dist)),
        provides_extras=tuple(one.metadata.provides_extra),
        requested=one.requested,
        installer=one.installer,
        metadata_path=one.metadata_location,
    )


def _platform(environment: dict[str, str]) -> Platform | None:
    system = _SYSTEMS.get(environment.get("sys_platform", ""))
    machine = environment.get("platform_machine", "").lower()
    return Platform(os=system, arch=_ARCHES.get(machine, machine)) if system and machine else None
