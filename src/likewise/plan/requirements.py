"""Who requires whom, for an explicit target. Nothing here asks the running interpreter."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from likewise.model.snapshot import Distribution, Snapshot
from likewise.model.target import Target

_SYS_PLATFORM = {"linux": "linux", "macos": "darwin", "windows": "win32"}
_PLATFORM_SYSTEM = {"linux": "Linux", "macos": "Darwin", "windows": "Windows"}
_OS_NAME = {"linux": "posix", "macos": "posix", "windows": "nt"}


def marker_environment(target: Target) -> dict[str, str]:
    """Every marker variable of PEP 508 for `target`.

    `packaging` fills in whatever is left out from the running interpreter, so nothing may be left out.
    """
    system, arch = target.platform.os, target.platform.arch
    machine = {"macos": {"aarch64": "arm64"}, "windows": {"x86_64": "AMD64", "aarch64": "ARM64"}}
    return {
        "implementation_name": "cpython",
        "implementation_version": target.python,
        "os_name": _OS_NAME[system],
        "platform_machine": machine.get(system, {}).get(arch, arch),
        "platform_release": "",
        "platform_system": _PLATFORM_SYSTEM[system],
        "platform_version": "",
        "platform_python_implementation": "CPython",
        "python_full_version": target.python,
        "python_version": ".".join(target.python.split(".")[:2]),
        "sys_platform": _SYS_PLATFORM[system],
        "extra": "",
    }


class RequirementGraph:
    """The requirements among the distributions of one snapshot, as they apply to one target.

    An extra counts when some distribution asks for it (``dask[array]``). Extras that the user once asked for on a
    command line are recorded nowhere, so their requirements are ordinary distributions here.

    Parameters
    ----------
    snapshot : Snapshot
    target : Target
    """

    def __init__(self, snapshot: Snapshot, target: Target) -> None:
        self._environment = marker_environment(target)
        self._distributions = {d.name: d for d in snapshot.distributions}
        self._parsed = {d.name: tuple(_parse(d)) for d in snapshot.distributions}
        self._extras: dict[str, set[str]] = {name: set() for name in self._distributions}
        self._edges = self._solve_extras()

    def requires(self, name: str) -> frozenset[str]:
        """Normalized names that `name` requires on the target, installed or not."""
        return self._edges.get(name, frozenset())

    def required_by(self, name: str, among: Collection[str]) -> tuple[str, ...]:
        """Those of `among` that require `name`, sorted."""
        return tuple(sorted(other for other in among if other != name and name in self.requires(other)))

    def closure(self, names: Iterable[str]) -> frozenset[str]:
        """`names` and all they require, directly or not, whether installed or not."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self.requires(name))
        return frozenset(found)

    def _solve_extras(self) -> dict[str, frozenset[str]]:
        """Edges, found again until no further extra is asked for."""
        while True:
            edges: dict[str, frozenset[str]] = {}
            asked = {name: set(extras) for name, extras in self._extras.items()}
            for name in self._distributions:
                active = [r for r in self._parsed[name] if self._applies(r, self._extras[name])]
                edges[name] = frozenset(canonicalize_name(r.name) for r in active)
                for requirement in active:
                    asked.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
            if asked == self._extras:
                return edges
            self._extras = asked

    def _applies(self, requirement: Requirement, extras: Collection[str]) -> bool:
        if requirement.marker is None:
            return True
        choices = ["", *extras]
        return any(requirement.marker.evaluate({**self._environment, "extra": extra}) for extra in choices)


def _parse(distribution: Distribution) -> Iterable[Requirement]:
    for text in distribution.requires:
        try:
            yield Requirement(text)
        except InvalidRequirement:  # legacy metadata; pip ignores it as well
            continue
