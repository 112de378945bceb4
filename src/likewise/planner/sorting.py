"""What happens to each distribution on another platform as far as that is known before an index is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from likewise.model.accelerators import unlabelled
from likewise.model.markers import marker_environment
from likewise.model.plan import Action, Decision
from likewise.model.snapshot import Distribution, Origin, OriginKind, Problem, Severity, Snapshot
from likewise.model.target import Target
from likewise.planner.decisions import copy_reason, required_by_text
from likewise.planner.explain import capital, foreign_reason, is_askable, platform_name
from likewise.planner.levels import local_for, platform_only, rule_for
from likewise.planner.moves import Pin
from likewise.planner.options import PlanOptions, extras_on, parse_extra
from likewise.planner.requirements import RequirementGraph, requirement_graph, without_url
from likewise.planner.resolver import Question, Standing
from likewise.planner.selection import kept_names, kit_closure
from likewise.planner.tables import critical_distributions
from likewise.planner.tags import is_pure

OWN = "likewise"
"""Both ends run the very same one: it always comes from the client."""


NOT_ASKED = "not-asked"
"""The code of the problem that something can't be had because no index may be asked about it."""


class Sorting(NamedTuple):
    """What happens to each distribution as far as that is known without asking."""

    target: Target
    graph: RequirementGraph
    kept: Collection[str]
    decided: Mapping[str, Decision]  # all but those that are asked for
    pins: tuple[Pin, ...]
    standing: tuple[Standing, ...]
    overridden: tuple[str, ...]
    withheld: Collection[str]
    problems: tuple[Problem, ...]

    def question(self, options: PlanOptions) -> Question:
        """What is asked, but for the pins."""
        dropped = (n for n, decision in self.decided.items() if decision.action is Action.DROP and is_askable(n))
        return Question(
            target=self.target,
            wanted=(),
            standing=self.standing,
            further=tuple(map(str, extras_on(self.target, options))),
            overridden=self.overridden,
            excluded=tuple(dict.fromkeys((*dropped, *self.withheld))),
        )


def on_top(snapshot: Snapshot, provided: Mapping[str, str] | None) -> tuple[Distribution, ...]:
    """The distributions that are planned one by one: all, or where conda's packages are planned, those of others."""
    if provided is None:
        return snapshot.distributions
    return tuple(d for d in snapshot.distributions if d.origin.kind is not OriginKind.CONDA)


def sort(
    snapshot: Snapshot,
    target: Target,
    options: PlanOptions,
    *,
    here: bool,
    provided: Mapping[str, str] | None = None,
    withheld: Mapping[str, str] | None = None,
) -> Sorting:
    """What is left out, what the client ships, and what has to be asked for.

    `provided` are distributions that conda's packages bring on the target, and their versions: they stay as they are.
    `withheld` are names about which no index is asked, and why.
    """
    own = on_top(snapshot, provided)
    graph = requirement_graph(snapshot, target)
    critical = set(critical_distributions())
    kept = kept_names(snapshot, graph, options, critical | kit_closure(graph))
    sorter = _Sorter(snapshot, target, options, graph, kept, here, withheld or {})
    decided = {d.name: decision for d in own if (decision := sorter.decision(d))}
    staying = {d.name: d for d in own if d.name not in decided or _shipped(decided[d.name])}
    beneath = _beneath(snapshot, provided or {}, staying)
    wished = {str(canonicalize_name(one.name)): frozenset(one.extras) for one in map(parse_extra, options.extras)}
    violated = list(_violated({**beneath, **staying}, staying, graph, snapshot))
    sorter.problems += [_violation(*one) for one in violated]
    return Sorting(
        target=target,
        graph=graph,
        kept=kept,
        decided=decided,
        pins=tuple(pin_of(d, target, options) for d in staying.values() if d.name not in decided),
        standing=tuple(
            _standing(d, graph, wished.get(d.name, frozenset()), {str(r) for holder, r, _ in violated if holder is d})
            for d in staying.values()
            if d.name in decided and is_askable(d.name)
        )
        + tuple(Standing(name=d.name, version=d.version, requires=()) for d in beneath.values()),
        overridden=tuple(sorted({other.name for holder, _, other in violated if holder.name not in decided})),
        withheld=tuple(name for name in withheld or () if name not in staying),
        problems=tuple(sorter.problems),
    )


def _beneath(snapshot: Snapshot, provided: Mapping[str, str], above: Collection[str]) -> dict[str, Distribution]:
    """What conda's packages bring, but for what others have put over it."""
    origin = Origin(kind=OriginKind.CONDA)
    return {
        name: Distribution(name=name, version=version, origin=origin)
        for name, version in sorted(provided.items())
        if name not in above and is_askable(name)
    }


def _shipped(decision: Decision) -> bool:
    return decision.action is not Action.DROP


class _Sorter:
    """Decides about what needs no question."""

    def __init__(
        self,
        snapshot: Snapshot,
        target: Target,
        options: PlanOptions,
        graph: RequirementGraph,
        kept: Collection[str],
        here: bool,
        withheld: Mapping[str, str],
    ) -> None:
        self._withheld = withheld
        self._client, self._target = snapshot.interpreter.platform, target
        self._options, self._graph, self._kept, self._here = options, graph, kept, here
        self._broken = {p.subject for p in snapshot.problems if p.severity is Severity.ERROR}
        self.problems: list[Problem] = []

    def decision(self, d: Distribution) -> Decision | None:
        """None for what has to be asked for."""
        if d.name not in self._kept:
            ignored = d.name in self._options.ignored
            return dropped(d, "left out as asked" if ignored else "not among package_sync_only and not required by it")
        if reason := platform_only(d.name, self._client, self._target.platform):
            return dropped(d, reason)
        if self._here or d.name == OWN:
            return self._local(d)
        return self._foreign(d)

    def _local(self, d: Distribution) -> Decision | None:
        if d.origin.kind is OriginKind.EDITABLE and (not d.tags or is_pure(d.tags)) and d.name not in self._broken:
            return self._ship(d, Action.BUILD, f"editable: a wheel is built from {d.origin.path}")
        if not is_pure(d.tags) and d.name != OWN:
            return self._foreign(d)
        if d.content is None and self._here:
            return dropped(d, "its files can't be shipped; see the problems")
        return self._ship(d, Action.COPY, copy_reason(d, ordinary="pure Python"))

    def _foreign(self, d: Distribution) -> Decision | None:
        reason = foreign_reason(d, here=self._here)
        if reason:
            todo = f"Offer a wheel for {platform_name(self._target.platform)} on an index and install it from there"
            message = f"{capital(reason)}. {todo}, or leave it out: --ignore {d.name}."
            self.problems.append(error(NOT_ASKED, d.name, message))
            return dropped(d, reason)
        if reason := self._withheld.get(d.name, ""):
            self.problems.append(error(NOT_ASKED, d.name, f"{capital(reason)}. --ignore {d.name} leaves it out."))
            return dropped(d, reason)
        if d.modified:
            count = f"{len(d.modified)} file{'s' * (len(d.modified) != 1)}"
            self.problems.append(
                Problem(
                    code="modified-elsewhere",
                    subject=d.name,
                    message=f"{count} modified here; the nodes get the wheel as it was published.",
                )
            )
        return None

    def _ship(self, d: Distribution, action: Action, reason: str) -> Decision:
        if d.name in self._options.ignored:
            critical = d.name in critical_distributions()
            who = "critical" if critical else required_by_text(d.name, self._graph, self._kept)
            reason = f"not left out: {who}; {reason}"
        return Decision(
            name=d.name, version=d.version, action=action, reason=reason, critical=d.name in critical_distributions()
        )


def dropped(d: Distribution, reason: str) -> Decision:
    critical = d.name in critical_distributions()
    return Decision(name=d.name, version=d.version, action=Action.DROP, reason=reason, critical=critical)


def error(code: str, subject: str, message: str) -> Problem:
    return Problem(code=code, subject=subject, message=message, severity=Severity.ERROR)


def pin_of(d: Distribution, target: Target, options: PlanOptions) -> Pin:
    public, _, label = d.version.partition("+")
    local = local_for(d.version, target) if label else unlabelled(d.name, target)
    return Pin(
        name=d.name,
        version=d.version,
        prefer=f"{public}+{local}" if local else public,
        rule=rule_for(d, target, options),
    )


def _violated(
    there: Mapping[str, Distribution],
    holders: Mapping[str, Distribution],
    graph: RequirementGraph,
    snapshot: Snapshot,
) -> Iterable[tuple[Distribution, Requirement, Distribution]]:
    """Holder, requirement, and the distribution that is not as required: on the client as well as on the target."""
    client = marker_environment(Target(platform=snapshot.interpreter.platform, python=snapshot.interpreter.version))
    for holder in holders.values():
        for requirement in graph.active(holder.name):
            other = there.get(canonicalize_name(requirement.name))
            if other is None or _contains(requirement, other.version):
                continue
            marker = requirement.marker
            extras = ("", *holder.provides_extras)
            if marker is None or any(marker.evaluate({**client, "extra": extra}) for extra in extras):
                yield holder, requirement, other


def _contains(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True


def _violation(holder: Distribution, requirement: Requirement, other: Distribution) -> Problem:
    return Problem(
        code="violated-requirement",
        subject=holder.name,
        message=f"{holder.name} {holder.version} requires {other.name}{requirement.specifier}, and {other.version} is "
        "installed; it stays so on the nodes.",
    )


def _standing(d: Distribution, graph: RequirementGraph, wished: frozenset[str], violated: Collection[str]) -> Standing:
    """`d` with what it requires: the version that is here is the one that counts, so no URL does."""
    extras = graph.extras(d.name) | frozenset(map(canonicalize_name, wished))
    requires = [r for r in graph.applicable(d.name, extras) if str(r) not in violated]
    return Standing(
        name=d.name, version=d.version, requires=tuple(map(without_url, requires)), extras=tuple(sorted(extras))
    )
