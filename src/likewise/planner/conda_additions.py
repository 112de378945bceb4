"""Conda packages that only the cluster has, on nodes of the client's own platform: beside what its prefix has.

Every package of the prefix stays as it is, so only what an extra brings is chosen. What is installed is not asked
whether it goes together, as in `likewise.planner.additions`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from likewise.errors import PlanError
from likewise.model.conda import CondaPackage, spec_name
from likewise.model.plan import Action, CondaDecision, Level, Plan
from likewise.model.snapshot import OriginKind, Problem, Snapshot
from likewise.planner.conda import distribution_name, fetch_decision, needs_python, shown
from likewise.planner.conda_solver import Candidate, CondaQuestion, CondaSolver, NoSolution
from likewise.planner.explain import listed
from likewise.planner.moves import smallest

STAYS = "distribution-stays"
"""The code of the problem that a package would bring a distribution which is there without it."""


def asks_for_more(packages: Iterable[CondaPackage], extras: Iterable[str]) -> bool:
    """Whether somebody has to be asked: not about what is installed and wanted in any version."""
    return not {one.name for one in packages}.issuperset(text.strip().lower() for text in extras)


def choose_extras(
    packages: Sequence[CondaPackage],
    extras: Sequence[str],
    solver: CondaSolver,
    *,
    channels: Sequence[str],
    favored: Sequence[Candidate] = (),
) -> tuple[Candidate, ...]:
    """The packages that `extras` bring, sorted by name; none of those that are installed.

    Parameters
    ----------
    packages : sequence of CondaPackage
        All that the client has.
    extras : sequence of str
        Match specs.
    solver : CondaSolver
        For the client's subdir and the nodes' virtual packages.
    channels : sequence of str
        Those that it asks, for messages.
    favored : sequence of Candidate
        Taken where that is possible: what was chosen before.

    Raises
    ------
    PlanError
        An extra can't be had, or does not go with what is installed.
    """
    return _Questions(packages, extras, solver, channels, favored).settle()


def needed_by(
    packages: Iterable[CondaPackage], extras: Iterable[str], chosen: Iterable[Candidate]
) -> dict[str, tuple[str, ...]]:
    """The client's distributions that have to be shipped: those of `extras`, and what was `chosen` depends on.

    Returns
    -------
    dict of str to tuple of str
        By distribution the chosen packages that depend on it; none where only the user asks for it.
    """
    by_name = {one.name: one for one in packages}
    found: dict[str, list[str]] = {}
    for who, specs in (([], extras), *(([one.name], one.requires) for one in chosen)):
        waiting, seen = list(map(spec_name, specs)), set[str]()
        while waiting:
            package = by_name.get(waiting.pop())
            if package is None or package.name in seen:
                continue
            seen.add(package.name)
            waiting += map(spec_name, package.requires)
            for name in package.distributions:
                found.setdefault(name, []).extend(who)
    return {name: tuple(who) for name, who in sorted(found.items())}


def add_to_plan(plan: Plan, snapshot: Snapshot, extras: Iterable[str], chosen: Sequence[Candidate]) -> Plan:
    """`plan`, which is for all that the client has, with `chosen`; what that would bring and is there is named."""
    asked = set(map(spec_name, extras))
    decisions: list[CondaDecision] = []
    problems: list[Problem] = []
    for one in chosen:
        who = [other.name for other in chosen if one.name in map(spec_name, other.requires) and other is not one]
        reason = f"required by {listed(who[:4])}" if who and one.name not in asked else "asked for on the cluster alone"
        brought = (distribution_name(one.name),) if needs_python(one) else ()
        problems += [problem for name in brought if (problem := stays(plan, snapshot, one.name, name))]
        decision = fetch_decision(one, reason=reason, new=True, level=Level.ANY)
        decisions.append(msgspec.structs.replace(decision, distributions=brought))
    return msgspec.structs.replace(plan, conda=tuple(decisions), problems=(*plan.problems, *problems))


def stays(plan: Plan, snapshot: Snapshot, package: str, distribution: str) -> Problem | None:
    """That nodes get a `distribution` of the client's, which `package` would bring; None where they don't."""
    own, decision = snapshot.get(distribution), plan.get(distribution)
    if own is None or decision is None or decision.action is Action.DROP:
        return None
    who = "conda" if own.origin.kind is OriginKind.CONDA else "pip"
    return Problem(
        code=STAYS,
        subject=package,
        message=f"{package} would bring the distribution {own.name}, and {who} has put {own.name} {own.version} into "
        "the prefix: that one stays, and of the package the nodes get what is no module.",
    )


class _Questions:
    """What is asked about `extras` that what is installed does not meet.

    As it stays in any case, it requires nothing; but what it says of something that it lacks counts if that comes in.
    """

    def __init__(
        self,
        packages: Sequence[CondaPackage],
        extras: Sequence[str],
        solver: CondaSolver,
        channels: Sequence[str],
        favored: Sequence[Candidate],
    ) -> None:
        names = {one.name for one in packages}
        self._installed = {one.name: _standing(one, names) for one in packages}
        self._extras, self._solver, self._channels, self._favored = extras, solver, channels, favored

    def settle(self) -> tuple[Candidate, ...]:
        """See `choose_extras`."""
        there = [text for text in self._extras if spec_name(text) in self._installed]
        wrong = [text for text in there if not self._solver.matches(text, self._installed[spec_name(text)])]
        if wrong:
            raise self._others(wrong)
        wanted = [text for text in self._extras if text not in there]
        if not wanted:
            return ()
        try:
            found = self._solver.solve(self._question(self._installed, wanted))
        except NoSolution:
            raise self._conflict(wanted) from None
        return tuple(one for one in found if one.name not in self._installed)

    def _question(self, staying: Iterable[str], wanted: Iterable[str]) -> CondaQuestion:
        """What do `wanted` bring where `staying` stay as they are, and all else that is installed may be another?"""
        names = sorted(staying)
        return CondaQuestion(
            specs=(*wanted, *names),
            fixed=tuple(self._installed[name] for name in names),
            favored=(*self._favored, *(one for name, one in self._installed.items() if name not in names)),
        )

    # ---- why it can't be

    def _others(self, wrong: Iterable[str]) -> PlanError:
        there = {text: self._installed[spec_name(text)] for text in wrong}
        named = listed(f"{one.name} {one.version}" for one in there.values())
        return PlanError(
            f"package_sync_conda_extras: {listed(there)} can't be had, since {named} {_is(there)} installed here and "
            f"{_is(there)} the same on the nodes.",
            todo="Install the other version here, or leave it out.",
            details={"extras": list(there), "conflict": [one.name for one in there.values()]},
        )

    def _conflict(self, wanted: Sequence[str]) -> PlanError:
        """Why there is no answer. Found by asking; the solver's words are only quoted."""

        def fails(staying: Collection[str], some: Iterable[str] = wanted) -> bool:
            return bool(self._words(staying, some))

        if fails(()):
            guilty = smallest(tuple(wanted), lambda some: fails((), some))
            return self._not_offered(guilty, self._words((), guilty))
        core = smallest(tuple(self._installed), fails)
        guilty = smallest(tuple(wanted), lambda some: fails(core, some))
        words = self._words(core, guilty)
        named = listed(f"{name} {self._installed[name].version}" for name in core)
        return PlanError(
            f"package_sync_conda_extras: {listed(guilty)} can't be had with {named}, which {_is(core)} installed here "
            f"and {_is(core)} the same on the nodes. The solver says:\n{shown(words)}\n",
            todo="Ask for another version of it, leave it out, or install it here, where what it needs may move.",
            details={"extras": list(guilty), "conflict": list(core), "rattler": words},
        )

    def _not_offered(self, guilty: Sequence[str], words: str) -> PlanError:
        """An error about extras that can't be had whatever is installed."""
        todo = "See whether it is spelled as its channel has it. Another channel is named before it: CHANNEL::NAME."
        if "__cuda" in words:
            todo = "Say which CUDA the nodes' driver serves: a target like linux-64-cuda12.8, or CONDA_OVERRIDE_CUDA."
        return PlanError(
            f"package_sync_conda_extras: {listed(guilty)} can't be had from {listed(self._channels)}. The solver "
            f"says:\n{shown(words)}\n",
            todo=todo,
            details={"extras": list(guilty), "rattler": words},
        )

    def _words(self, staying: Collection[str], wanted: Iterable[str]) -> str:
        """What the solver says where there is no answer; "" where there is one."""
        try:
            self._solver.solve(self._question(staying, wanted))
        except NoSolution as error:
            return str(error) or "no"
        return ""


def _is(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _standing(package: CondaPackage, installed: Collection[str]) -> Candidate:
    """A package that is there, with what it says of those that are not."""
    about = [spec for spec in (*package.requires, *package.constrains) if spec_name(spec) not in installed]
    return Candidate(
        name=package.name,
        version=package.version,
        build=package.build,
        build_number=package.build_number,
        channel=package.channel,
        subdir=package.subdir,
        url=package.url,
        noarch=package.noarch,
        constrains=tuple(spec for spec in about if spec_name(spec) and not spec_name(spec).startswith("__")),
    )
