"""Snapshot + Target -> Plan, for nodes of the client's own platform: everything is exact, so nothing is resolved but
what the cluster alone is to have."""

from __future__ import annotations

from collections.abc import Mapping

from likewise.errors import UnsupportedError
from likewise.model.plan import Action, Decision, Plan
from likewise.model.snapshot import Distribution, OriginKind, Severity, Snapshot
from likewise.model.target import Target
from likewise.planner.additions import add_extras
from likewise.planner.decisions import copy_reason, decide_code, refuse, required_by_text
from likewise.planner.options import FAIL_ON, PlanOptions, check_options
from likewise.planner.requirements import RequirementGraph, requirement_graph
from likewise.planner.resolver import Resolver
from likewise.planner.selection import conda_beneath, conda_lost, kept_names, kit_names
from likewise.planner.tables import critical_distributions

__all__ = ["FAIL_ON", "PlanOptions", "critical_distributions", "make_plan"]


def make_plan(
    snapshot: Snapshot,
    target: Target | None = None,
    options: PlanOptions | None = None,
    resolver: Resolver | None = None,
    *,
    needed: Mapping[str, tuple[str, ...]] | None = None,
) -> Plan:
    """Decide what happens to each distribution and code root, and why.

    Parameters
    ----------
    snapshot : Snapshot
    target : Target, optional
        Default: the client's own platform and Python.
    options : PlanOptions, optional
    resolver : Resolver, optional
        Asked about those of ``options.extras`` that are not installed (`likewise.planner.additions`), and about nothing
        else.
    needed : mapping, optional
        Distributions that have to be shipped, to what requires them besides: conda packages that the cluster alone has.

    Raises
    ------
    PlanError
        A critical distribution is missing or can't be shipped, an extra can't be had or does not go with what is
        installed, or `fail_on` or `strict` says stop.
    UnsupportedError
        The target is another platform or another Python than the client's, or there is an extra and no resolver.
    UsageError
        The options contradict each other or name something that is not there.
    """
    options = options or PlanOptions()
    here = Target(platform=snapshot.interpreter.platform, python=snapshot.interpreter.version)
    target = target or here
    _check_target(here, target)
    notes = check_options(snapshot, options)
    _check_conda_extras(options)
    graph = requirement_graph(snapshot, target)
    critical = set(critical_distributions())
    kit = kit_names(snapshot, graph)
    beneath = conda_beneath(snapshot, kit)
    added = add_extras(snapshot, target, options, graph, resolver)
    needed = {**(needed or {}), **added.needed}
    kept = kept_names(snapshot, graph, options, critical | {*kit, *needed})
    broken = {p.subject for p in snapshot.problems if p.severity is Severity.ERROR}
    decisions = [_decide(d, graph, options, kept, needed, broken) for d in snapshot.distributions]
    decisions += [*added.decisions, *decide_code(snapshot, options)]
    plan = Plan(
        target=target,
        decisions=tuple(decisions),
        kit=(*kit, *beneath),
        problems=(*snapshot.problems, *notes),
    )
    refuse(plan, options, critical | {*kit, *conda_lost(snapshot, kit)})
    return plan


def _check_target(here: Target, target: Target) -> None:
    same = (here.platform.os, here.platform.arch) == (target.platform.os, target.platform.arch)
    if not same or here.python != target.python:
        raise UnsupportedError(
            f"The nodes ({target.platform}, Python {target.python}) are not what this machine is "
            f"({here.platform}, Python {here.python}); only copies to the same platform are possible so far.",
            todo="Run the client on a machine of the nodes' platform.",
        )


def _check_conda_extras(options: PlanOptions) -> None:
    if options.conda_extras:
        raise UnsupportedError(
            f"package_sync_conda_extras ({', '.join(options.conda_extras)}) can't be had without asking a channel.",
            todo="Install it here, or leave it out.",
        )


def _decide(
    d: Distribution,
    graph: RequirementGraph,
    options: PlanOptions,
    kept: set[str],
    needed: Mapping[str, tuple[str, ...]],
    broken: set[str],
) -> Decision:
    ignored = d.name in options.ignored
    is_critical = d.name in critical_distributions()
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
        action, reason = Action.COPY, copy_reason(d)
    if ignored:
        who = "critical" if is_critical else required_by_text(d.name, graph, kept, needed.get(d.name, ()))
        reason = f"not left out: {who}; {reason}"
    return Decision(name=d.name, version=d.version, action=action, reason=reason, critical=is_critical)
