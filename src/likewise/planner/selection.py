"""Which distributions are shipped at all: what a node needs to join, what was asked for, what others require."""

from __future__ import annotations

from collections.abc import Collection

from likewise.errors import PlanError
from likewise.model.conda import RECORD_DAMAGED, record_name, spec_name
from likewise.model.conda_identity import PYTHON
from likewise.model.snapshot import Snapshot
from likewise.planner.options import PlanOptions
from likewise.planner.requirements import RequirementGraph


def kit_closure(graph: RequirementGraph) -> frozenset[str]:
    """What a node needs to join: the closure of distributed, and likewise with what its node side imports."""
    return graph.closure(["distributed"]) | {"likewise", "msgspec"} | (graph.requires("likewise") & {"backports-zstd"})


def kit_names(snapshot: Snapshot, graph: RequirementGraph, *, arriving: Collection[str] = ()) -> tuple[str, ...]:
    """`kit_closure`, sorted. `arriving` are distributions that are not installed and come to the nodes all the same.

    Raises
    ------
    PlanError
        When some of it is not installed. Its details have the names: ``missing``.
    """
    names = kit_closure(graph)
    installed = {d.name for d in snapshot.distributions}
    missing = sorted(names - installed - set(arriving))
    if missing:
        who = {name: graph.required_by(name, installed) for name in missing}
        listed = ", ".join(f"{name} (required by {who[name][0]})" if who[name] else name for name in missing)
        raise PlanError(
            f"The prefix lacks what every node needs to join a cluster: {listed}.",
            where=snapshot.interpreter.prefix,
            todo=f"Install it here: pip install {' '.join(missing)}",
            details={"missing": missing},
        )
    return tuple(sorted(names))


def conda_beneath(snapshot: Snapshot, names: Collection[str]) -> tuple[str, ...]:
    """Names of the layers of those conda packages that Python and the distributions `names` depend on, sorted."""
    needed = _needed(snapshot, names)
    return tuple(sorted(one.layer for one in snapshot.conda if one.name in needed and one.layer))


def conda_lost(snapshot: Snapshot, names: Collection[str]) -> tuple[str, ...]:
    """Subjects of the problems with conda's records of what Python and the distributions `names` depend on.

    The files of such a package are not known, so no node would have them.
    """
    damaged = [problem.subject for problem in snapshot.problems if problem.code == RECORD_DAMAGED]
    needed = _needed(snapshot, names) if damaged else set()
    return tuple(subject for subject in damaged if record_name(subject) in needed)


def _needed(snapshot: Snapshot, names: Collection[str]) -> set[str]:
    """The conda packages that Python and the distributions `names` depend on, with a record or without one."""
    by_name = {one.name: one for one in snapshot.conda}
    owners = (one for one in snapshot.conda if not one.replaced and set(one.distributions) & set(names))
    waiting = [PYTHON, *(one.name for one in owners)]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += map(spec_name, by_name[name].requires) if name in by_name else ()
    return found


def kept_names(snapshot: Snapshot, graph: RequirementGraph, options: PlanOptions, always: Collection[str]) -> set[str]:
    """Names that are shipped; `always` are the critical ones and the kit."""
    installed = {d.name for d in snapshot.distributions}
    wanted = installed & graph.closure(options.wanted | set(always)) if options.only else installed
    ignored = (options.ignored & wanted) - set(always)
    kept = wanted - ignored
    while back := {name for name in ignored - kept if graph.required_by(name, kept)}:
        kept |= back
    return kept
