"""Who requires whom, for an explicit target. Nothing here asks the running interpreter."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from likewise.model.layer import LayerKind, LayerSource
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

    def mentions(self, name: str, among: Collection[str]) -> frozenset[str]:
        """Those of `among` that `name` requires on the target, all of its own extras counted."""
        found = [r for r in self._parsed.get(name, ()) if canonicalize_name(r.name) in among]
        extras = self._distributions[name].provides_extras if found else ()
        return frozenset(canonicalize_name(r.name) for r in found if self._applies(r, extras))

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


@lru_cache(maxsize=1)
def requirement_graph(snapshot: Snapshot, target: Target) -> RequirementGraph:
    """The graph of `snapshot`; one launch asks for it more than once, and parsing requirements takes long."""
    return RequirementGraph(snapshot, target)


def layer_requirements(snapshot: Snapshot, target: Target, layers: Sequence[LayerSource]) -> dict[str, tuple[str, ...]]:
    """Which of `layers` have to be there before modules of one of them may work, by name and directly.

    What a module imports it waits for by itself. This is about what is found in other ways: libraries of another
    distribution by their paths, and whatever else a distribution may expect of those that it requires. Extras that
    nobody asks for would make half of an environment wait for the other half, so they count only where the required
    distribution has no code of its own: nobody imports it, so it can only be found by its path (``nvidia-cublas-cu12``
    by tensorflow). The native layer is required by all: which of its libraries an object loads depends on others, too.

    Parameters
    ----------
    snapshot : Snapshot
        Its distributions say what they require.
    target : Target
    layers : sequence of LayerSource
        All layers of the environment.
    """
    graph = requirement_graph(snapshot, target)
    shipped = {layer.name for layer in layers if layer.kind is LayerKind.DISTRIBUTION}
    native = {layer.name for layer in layers if layer.kind is LayerKind.NATIVE}
    passive = {layer.name for layer in layers if layer.kind is LayerKind.DISTRIBUTION and not _has_code(layer)}
    found: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        needs = set(native)
        if layer.kind is LayerKind.DISTRIBUTION:
            needs |= (graph.requires(layer.name) & shipped) | graph.mentions(layer.name, passive)
        if layer.kind is not LayerKind.INTERPRETER:
            found[layer.name] = tuple(sorted(needs - {layer.name}))
    return found


def _has_code(layer: LayerSource) -> bool:
    """Whether importing anything of the layer would run a line of it."""
    return any(
        (path.endswith((".py", ".pyc")) and file.entry.size > 0) or path.endswith(".so")
        for file in layer.files
        if (path := file.entry.path).startswith("purelib/")
    )


def _parse(distribution: Distribution) -> Iterable[Requirement]:
    for text in distribution.requires:
        try:
            yield Requirement(text)
        except InvalidRequirement:  # legacy metadata; pip ignores it as well
            continue
