"""Who requires whom, for an explicit target. Nothing here asks the running interpreter."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from likewise.model.conda import spec_name
from likewise.model.layer import LayerKind, LayerSource
from likewise.model.markers import marker_environment
from likewise.model.snapshot import Snapshot
from likewise.model.target import Target

_EXTRA = re.compile(r"""\bextra\s*==\s*(["'])([A-Za-z0-9._-]+)\1""")  # a term of a marker, needed if all are
_EITHER = re.compile(r"\bor\b")
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\b")


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
        self._written = {d.name: tuple(map(_Written, d.requires)) for d in snapshot.distributions}
        self._extras: dict[str, set[str]] = {name: set() for name in self._distributions}
        self._edges = self._solve_extras()

    def requires(self, name: str) -> frozenset[str]:
        """Normalized names that `name` requires on the target, installed or not."""
        return self._edges.get(name, frozenset())

    def active(self, name: str) -> tuple[Requirement, ...]:
        """What `name` requires on the target, as it is written."""
        return tuple(self._active(self._written.get(name, ()), self._extras.get(name, ())))

    def extras(self, name: str) -> frozenset[str]:
        """The extras of `name`, normalized, that some distribution asks for."""
        return frozenset(map(canonicalize_name, self._extras.get(name, ())))

    def applicable(self, name: str, extras: Collection[str]) -> tuple[Requirement, ...]:
        """What `name` requires on some platform, when `extras` (normalized) are asked for."""
        return tuple(
            one.parsed
            for one in self._written.get(name, ())
            if (not one.extra or one.extra in extras) and one.parsed is not None
        )

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
        found = [one for one in self._written.get(name, ()) if one.name in among]
        extras = self._distributions[name].provides_extras if found else ()
        return frozenset(canonicalize_name(r.name) for r in self._active(found, extras))

    def _solve_extras(self) -> dict[str, frozenset[str]]:
        """Edges, found again until no further extra is asked for."""
        while True:
            edges: dict[str, frozenset[str]] = {}
            asked = {name: set(extras) for name, extras in self._extras.items()}
            for name in self._distributions:
                active = list(self._active(self._written[name], self._extras[name]))
                edges[name] = frozenset(canonicalize_name(r.name) for r in active)
                for requirement in active:
                    asked.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
            if asked == self._extras:
                return edges
            self._extras = asked

    def _active(self, written: Iterable[_Written], extras: Collection[str]) -> Iterator[Requirement]:
        """Those that apply when `extras` are asked for."""
        choices = ["", *extras]
        asked = {canonicalize_name(extra) for extra in extras}
        for one in written:
            if one.extra and one.extra not in asked:
                continue
            requirement = one.parsed
            if requirement is None:
                continue
            marker = requirement.marker
            try:
                if marker is None or any(marker.evaluate({**self._environment, "extra": extra}) for extra in choices):
                    yield requirement
            except (UndefinedComparison, UndefinedEnvironmentName):  # it means nothing, so it can't be understood
                continue


class _Written:
    """A requirement as it is written, parsed when it matters: most are for extras that nobody asks for.

    `extra` is the one (normalized) without which it can't apply, "" when that can't be told at a glance.
    """

    def __init__(self, text: str) -> None:
        what, _, marker = text.partition(";")
        doubtful = "@" in what or _EITHER.search(marker)  # a URL may have a semicolon of its own
        found = None if doubtful else _EXTRA.search(marker)
        self.text = text
        self.extra = canonicalize_name(found[2]) if found else ""

    @property
    def name(self) -> str:
        """What is required, "" when it can't be understood."""
        found = _NAME.match(self.text)
        return canonicalize_name(found[1]) if found else ""

    @cached_property
    def parsed(self) -> Requirement | None:
        """None when it can't be understood: legacy metadata, which pip ignores as well."""
        try:
            return Requirement(self.text)
        except InvalidRequirement:
            return None


def without_url(requirement: Requirement) -> str:
    """`requirement` as it is written, without the place that it may name: the version that is there counts."""
    if requirement.url is None:
        return str(requirement)
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}" + (f"; {requirement.marker}" if requirement.marker else "")


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
    packages = _conda_requirements(snapshot)
    for layer in layers:
        needs = native | packages.get(layer.name, frozenset())
        if layer.kind is LayerKind.DISTRIBUTION:
            needs |= (graph.requires(layer.name) & shipped) | graph.mentions(layer.name, passive)
        if layer.kind is not LayerKind.INTERPRETER:
            found[layer.name] = tuple(sorted(needs - {layer.name}))
    return found


def _conda_requirements(snapshot: Snapshot) -> dict[str, frozenset[str]]:
    """Layer of a conda package → layers of the packages without distributions that it depends on, directly."""
    layers = {one.name: one.layer for one in snapshot.conda if one.layer}
    found: dict[str, frozenset[str]] = {}
    for one in snapshot.conda:
        needs = frozenset(layers[name] for spec in one.requires if (name := spec_name(spec)) in layers)
        for owner in (layers.get(one.name, ""), *(() if one.replaced else one.distributions)):
            found[owner] = found.get(owner, frozenset()) | needs
    return found


def _has_code(layer: LayerSource) -> bool:
    """Whether importing anything of the layer would run a line of it."""
    return any(
        (path.endswith((".py", ".pyc")) and file.entry.size > 0) or path.endswith(".so")
        for file in layer.files
        if (path := file.entry.path).startswith("purelib/")
    )
