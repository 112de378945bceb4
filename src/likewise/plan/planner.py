"""Snapshot + Target -> Plan, for nodes of the client's own platform: everything is exact, so nothing is resolved."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

import msgspec
from packaging.utils import canonicalize_name

from likewise.errors import PlanError, UnsupportedError, UsageError
from likewise.model.plan import Action, Decision, Plan
from likewise.model.snapshot import CodeRoot, Distribution, OriginKind, Problem, Severity, Snapshot
from likewise.model.target import Target
from likewise.plan.requirements import RequirementGraph, requirement_graph

FAIL_ON = ("critical-only", "any")
"""What stops a launch: only critical conflicts, or any distribution that can't be replicated as it is."""


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for.

    Attributes
    ----------
    strict : bool
        Refuse everything that is not an exact copy.
    ignore : tuple of str
        Distributions and code roots to leave out. What they require stays; one that a shipped distribution
        requires is shipped all the same.
    only : tuple of str
        When not empty: ship these, what they require, and what is critical; nothing else.
    fail_on : str
        One of `FAIL_ON`. A critical conflict always stops the launch.
    """

    strict: bool = False
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    fail_on: str = "critical-only"


def make_plan(snapshot: Snapshot, target: Target | None = None, options: PlanOptions | None = None) -> Plan:
    """Decide what happens to each distribution and code root, and why.

    Parameters
    ----------
    snapshot : Snapshot
    target : Target, optional
        Default: the client's own platform and Python.
    options : PlanOptions, optional

    Raises
    ------
    PlanError
        A critical distribution is missing or can't be shipped, or `fail_on` or `strict` says stop.
    UnsupportedError
        The target is another platform or another Python than the client's.
    UsageError
        The options contradict each other or name something that is not there.
    """
    options = options or PlanOptions()
    here = Target(platform=snapshot.interpreter.platform, python=snapshot.interpreter.version)
    target = target or here
    _check_target(here, target)
    _check_options(snapshot, options)
    graph = requirement_graph(snapshot, target)
    critical = set(critical_distributions())
    kit = _kit(snapshot, graph)
    kept = _kept(snapshot, graph, options, critical | set(kit))
    broken = {p.subject for p in snapshot.problems if p.severity is Severity.ERROR}
    decisions = [_decide(d, graph, options, kept, critical, broken) for d in snapshot.distributions]
    decisions += _decide_code(snapshot, options)
    plan = Plan(
        target=target,
        decisions=tuple(decisions),
        kit=kit,
        problems=(*snapshot.problems, *_unknown_ignores(snapshot, options)),
    )
    _refuse(plan, options, critical | set(kit))
    return plan


@lru_cache(maxsize=1)
def critical_distributions() -> Mapping[str, str]:
    """Critical distribution -> reason, from ``critical.txt``."""
    table: dict[str, str] = {}
    for line in files("likewise.plan").joinpath("critical.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            names, _, reason = line.partition("  ")
            for name in names.split(" / "):
                table[name.strip()] = reason.strip()
    return table


def _check_target(here: Target, target: Target) -> None:
    same = (here.platform.os, here.platform.arch) == (target.platform.os, target.platform.arch)
    if not same or here.python != target.python:
        raise UnsupportedError(
            f"The nodes ({target.platform}, Python {target.python}) are not what this machine is "
            f"({here.platform}, Python {here.python}); only copies to the same platform are possible so far.",
            todo="Run the client on a machine of the nodes' platform.",
        )


def _check_options(snapshot: Snapshot, options: PlanOptions) -> None:
    if options.fail_on not in FAIL_ON:
        raise UsageError(
            f"{options.fail_on!r} is not a value of package_sync_fail_on.", todo=f"Use one of {', '.join(FAIL_ON)}."
        )
    both = sorted(_names(options.ignore) & _names(options.only))
    if both:
        raise UsageError(
            f"{', '.join(both)} can't be both ignored and asked for.",
            todo="Name it in package_sync_ignore or in package_sync_only, not in both.",
        )
    known = {d.name for d in snapshot.distributions} | {root.name for root in snapshot.code}
    unknown = sorted(_names(options.only) - known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        raise UsageError(
            f"package_sync_only names {', '.join(unknown)}, which is not installed here.",
            todo=f"Did you mean {close[0]}?" if close else "See `likewise scan` for what is.",
        )


def _names(names: tuple[str, ...]) -> set[str]:
    return {str(canonicalize_name(name)) for name in names}


def _unknown_ignores(snapshot: Snapshot, options: PlanOptions) -> list[Problem]:
    known = {d.name for d in snapshot.distributions} | {root.name for root in snapshot.code}
    return [
        Problem(
            code="ignored-unknown",
            subject=name,
            message=f"package_sync_ignore names {name}, which is not installed here; nothing to ignore.",
            severity=Severity.NOTE,
        )
        for name in sorted(_names(options.ignore) - known)
    ]


def _kit(snapshot: Snapshot, graph: RequirementGraph) -> tuple[str, ...]:
    """What a node needs to join: the closure of distributed, and likewise with what its node side imports."""
    installed = {d.name for d in snapshot.distributions}
    node_side = {"likewise", "msgspec"} | (graph.requires("likewise") & {"backports-zstd"})
    names = graph.closure(["distributed"]) | node_side
    missing = sorted(names - installed)
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


def _kept(snapshot: Snapshot, graph: RequirementGraph, options: PlanOptions, always: set[str]) -> set[str]:
    """Names that are shipped; `always` are the critical ones and the kit."""
    installed = {d.name for d in snapshot.distributions}
    wanted = installed & graph.closure(_names(options.only) | always) if options.only else installed
    ignored = (_names(options.ignore) & wanted) - always
    kept = wanted - ignored
    while back := {name for name in ignored - kept if graph.required_by(name, kept)}:
        kept |= back
    return kept


def _decide(
    d: Distribution,
    graph: RequirementGraph,
    options: PlanOptions,
    kept: set[str],
    critical: set[str],
    broken: set[str],
) -> Decision:
    ignored = d.name in _names(options.ignore)
    is_critical = d.name in critical
    if d.name not in kept:
        reason = "left out as asked" if ignored else "not among package_sync_only and not required by it"
        return Decision(name=d.name, version=d.version, action=Action.DROP, reason=reason)
    if d.content is None and (d.origin.kind is not OriginKind.EDITABLE or d.name in broken):
        return Decision(
            name=d.name,
            version=d.version,
            action=Action.DROP,
            reason="its files can't be shipped; see the problems",
            critical=is_critical,
        )
    if d.origin.kind is OriginKind.EDITABLE:
        action, reason = Action.BUILD, f"editable: a wheel is built from {d.origin.path}"
    else:
        action, reason = Action.COPY, _copy_reason(d)
    if ignored:
        who = "critical" if is_critical else _required_by_text(d.name, graph, kept)
        reason = f"not left out: {who}; {reason}"
    return Decision(name=d.name, version=d.version, action=action, reason=reason, critical=is_critical)


def _required_by_text(name: str, graph: RequirementGraph, kept: set[str]) -> str:
    requirers = graph.required_by(name, kept)
    return f"required by {', '.join(requirers)}" if requirers else "needed by every node to join"


def _copy_reason(d: Distribution) -> str:
    kind = d.origin.kind
    what = {
        OriginKind.VCS: f"installed from version control at {d.origin.commit[:12] or 'an unknown commit'}",
        OriginKind.ARCHIVE: "installed from an archive",
        OriginKind.DIRECTORY: "installed from a local directory",
        OriginKind.SYSTEM: f"installed by the system as {d.origin.path or d.name}",
        OriginKind.CONDA: "installed by conda",
    }.get(kind, "same platform")
    changed = [f"{len(d.modified)} file{'s' * (len(d.modified) != 1)} modified since"] if d.modified else []
    gone = [f"{len(d.missing)} missing"] if d.missing else []
    return ", ".join([f"exact copy; {what}", *changed, *gone])


def _decide_code(snapshot: Snapshot, options: PlanOptions) -> list[Decision]:
    ignored = _names(options.ignore)
    return [
        Decision(name=root.name, version="", action=Action.DROP, reason=f"left out as asked ({root.why}: {root.path})")
        if root.name in ignored
        else Decision(name=root.name, version="", action=Action.SHIP, reason=_code_reason(root))
        for root in snapshot.code
    ]


def _code_reason(root: CodeRoot) -> str:
    return f"loose code, {root.files} file{'s' * (root.files != 1)} ({root.why}: {root.path})"


def _refuse(plan: Plan, options: PlanOptions, critical: set[str]) -> None:
    """Raise when what is wrong stops the launch; all reasons in one error."""
    errors = [p for p in plan.problems if p.severity is Severity.ERROR]
    stops = [p for p in errors if p.subject in critical]
    if options.fail_on == "any" or options.strict:
        stops = errors
    if options.strict:
        stops = [p for p in plan.problems if p.severity is not Severity.NOTE]
    dropped = [d for d in plan.decisions if d.action is Action.DROP and d.name in critical]
    if not stops and not dropped:
        return
    listed = [f"{p.subject}: {p.message}" for p in stops]
    listed += [f"{d.name}: {d.reason}" for d in dropped if d.name not in {p.subject for p in stops}]
    raise PlanError(
        f"This environment can't be replicated: {' '.join(listed[:3])}"
        + (f" … and {len(listed) - 3} more." if len(listed) > 3 else ""),
        todo="Reinstall what is named"
        + ("." if dropped or not (options.strict or options.fail_on == "any") else ", or relax strict or fail_on."),
        details={"problems": [{"code": p.code, "subject": p.subject, "message": p.message} for p in stops]},
    )
