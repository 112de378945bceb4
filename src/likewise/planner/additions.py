"""What only the cluster has, on nodes of the client's own platform: wheels beside what is installed.

Everything that is installed stays as it is, so only what an extra brings is chosen, the highest versions that go with
it. What is installed is not asked whether it goes together: its user lives with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from likewise.errors import PlanError, UnsupportedError
from likewise.model.plan import Action, Decision, Level
from likewise.model.snapshot import Distribution, Snapshot
from likewise.model.target import Target
from likewise.planner.explain import is_askable, listed, platform_name, quoted
from likewise.planner.moves import answer, smallest
from likewise.planner.options import PlanOptions, accepts, extras_on
from likewise.planner.requirements import RequirementGraph, without_url
from likewise.planner.resolver import Lock, Locked, Question, Resolver, Standing, Unsolvable, Wanted
from likewise.planner.tags import best_file


class Added(NamedTuple):
    """What extras add.

    Attributes
    ----------
    decisions : tuple of Decision
        About what is not installed here.
    needed : mapping
        Distributions that are installed here and have to be shipped because of it, to those that require them: none
        where the user did.
    """

    decisions: tuple[Decision, ...] = ()
    needed: Mapping[str, tuple[str, ...]] = {}


def asks_for_more(snapshot: Snapshot, target: Target, options: PlanOptions) -> bool:
    """Whether an index has to be asked: some extra is not installed as it is wanted, or has extras of its own."""
    return bool(_missing(snapshot, extras_on(target, options)))


def _missing(snapshot: Snapshot, wanted: Iterable[Requirement]) -> list[Requirement]:
    """Those of `wanted` that what is installed does not meet by itself."""
    return [one for one in wanted if one.extras or not _is_there(snapshot, one)]


def _is_there(snapshot: Snapshot, wanted: Requirement) -> bool:
    d = snapshot.get(canonicalize_name(wanted.name))
    return d is not None and accepts(wanted, d.version)


def add_extras(
    snapshot: Snapshot, target: Target, options: PlanOptions, graph: RequirementGraph, resolver: Resolver | None
) -> Added:
    """Choose what ``options.extras`` bring to the nodes.

    Parameters
    ----------
    snapshot : Snapshot
    target : Target
        Of the client's own platform and Python.
    options : PlanOptions
    graph : RequirementGraph
        Of both.
    resolver : Resolver or None
        Asked when `asks_for_more`.

    Raises
    ------
    PlanError
        An extra can't be had, or does not go with what is installed.
    UnsupportedError
        There is nobody to ask.
    """
    wanted = extras_on(target, options)
    names = {str(canonicalize_name(one.name)) for one in wanted}
    installed = {d.name for d in snapshot.distributions}
    needed: dict[str, tuple[str, ...]] = dict.fromkeys(sorted(names & installed), ())
    if not asks_for_more(snapshot, target, options):
        return Added((), needed)
    if resolver is None:
        raise UnsupportedError(
            f"package_sync_extras ({listed(map(str, wanted))}) can't be had without asking an index.",
            todo="Install it here, or leave it out.",
        )
    questions = _Questions(snapshot, target, graph, _missing(snapshot, wanted))
    try:
        lock = questions.settle(resolver)
    except Unsolvable as error:
        raise questions.conflict(resolver, str(error)) from error
    required = sorted(lock.required_by.items())
    needed |= {name: who for name, who in required if who and name in installed - names}
    return Added(tuple(_added(one, target, one.name in names, lock) for one in lock.packages), needed)


def _added(package: Locked, target: Target, asked: bool, lock: Lock) -> Decision:
    required = lock.required_by.get(package.name, ())
    reason = f"required by {listed(sorted(required))}" if required and not asked else "asked for on the cluster alone"
    return Decision(
        name=package.name,
        version=package.version,
        action=Action.FETCH,
        reason=reason,
        new=True,
        level=Level.ANY,
        file=best_file(package.files, target),
    )


class _Questions:
    """What is asked about extras that are `wanted` and not met by what is installed.

    One that names something installed (``tool[more]``) means that very one, whatever else is tried.
    """

    def __init__(
        self, snapshot: Snapshot, target: Target, graph: RequirementGraph, wanted: Sequence[Requirement]
    ) -> None:
        self._installed = {d.name: d for d in snapshot.distributions if is_askable(d.name)}
        self._target, self._graph = target, graph
        self._wanted = {str(one): one for one in wanted}
        self._meant = {str(canonicalize_name(one.name)) for one in wanted if _is_there(snapshot, one)}
        self._new = frozenset(str(canonicalize_name(one.name)) for one in wanted) - self._installed.keys()

    def settle(self, resolver: Resolver) -> Lock:
        """The answer. A requirement of something installed counts where it is about what comes in.

        Raises
        ------
        Unsolvable
        """
        while True:
            lock = resolver.resolve(msgspec.structs.replace(self._question(), reasons=True))
            come = {package.name for package in lock.packages} - self._new
            if not any(self._graph.required_by(name, self._installed) for name in come):
                return lock
            self._new |= come  # what is installed here and lacks what it requires has a say about its version

    def _question(
        self,
        staying: Iterable[str] | None = None,
        wanted: Iterable[str] | None = None,
        about: Collection[str] = frozenset(),
    ) -> Question:
        """What do `wanted` (default: all) bring, when `staying` (default: all that is installed) stays as it is? The
        requirements of these count for what is new and for `about`."""
        names = self._installed if staying is None else staying
        about = self._new.union(about)
        return Question(
            target=self._target,
            wanted=(),
            standing=tuple(self._standing(self._installed[name], about) for name in sorted(names)),
            further=tuple(self._wanted if wanted is None else wanted),
        )

    def _standing(self, d: Distribution, about: Collection[str]) -> Standing:
        """`d` with what its extras require, for which somebody new may ask, and with what it says of `about`."""
        extras = frozenset(map(canonicalize_name, d.provides_extras))
        optional = [without_url(one) for one in self._graph.applicable(d.name, extras) if "extra" in str(one.marker)]
        own = [f"{r.name}{r.specifier}" for r in self._graph.active(d.name) if canonicalize_name(r.name) in about]
        return Standing(name=d.name, version=d.version, requires=(*own, *optional), extras=tuple(sorted(extras)))

    # ---- why it can't be

    def conflict(self, resolver: Resolver, words: str) -> PlanError:
        """Why there is no answer, and what would help. Found by asking; the resolver's words are only quoted."""

        def fails(staying: Iterable[str], wanted: Iterable[str] | None = None) -> bool:
            question = self._question(self._meant.union(staying), wanted)
            question = msgspec.structs.replace(question, remembered=True)
            return answer(resolver, question) is None

        if fails(()):
            return self._not_offered(resolver, smallest(tuple(self._wanted), lambda some: fails((), some)), words)
        core = smallest(tuple(name for name in self._installed if name not in self._meant), fails)
        guilty = smallest(tuple(self._wanted), lambda some: fails(core, some))
        named = listed(f"{name} {self._installed[name].version}" for name in core)
        helps = self._other_versions(resolver, core)
        return PlanError(
            f"package_sync_extras: {listed(guilty)} can't be had with {named}, which {_is(core)} installed here and "
            f"{_is(core)} the same on the nodes. The resolver says: {quoted(words)}",
            todo=f"What would help: pip install {helps}"
            if helps
            else "Ask for another version of it, or leave it out.",
            details={"extras": list(guilty), "conflict": list(core), "helps": helps, "resolver": words},
        )

    def _other_versions(self, resolver: Resolver, core: Collection[str]) -> str:
        """Versions of `core` with which it could be had: as pip would be told them; "" when there are none."""
        rest = self._installed.keys() - set(core)
        lock = answer(resolver, self._question(rest, about=core))
        found = [lock.get(name) for name in core] if lock else []
        return " ".join(f"{one.name}=={one.version}" for one in found if one)

    def _not_offered(self, resolver: Resolver, guilty: Sequence[str], words: str) -> PlanError:
        """An error about extras that can't be had whatever is installed."""
        there = f"{platform_name(self._target.platform)} and Python {self._target.python}"
        names = [str(canonicalize_name(self._wanted[text].name)) for text in guilty]
        details = {"extras": list(guilty), "absent": names, "resolver": words}
        if len(guilty) == 1 and self._is_sdist(resolver, self._wanted[guilty[0]]):
            return PlanError(
                f"package_sync_extras: {guilty[0]} is offered as an sdist only, without a wheel for {there}.",
                todo="Install it here, where it is built; or offer a wheel of it on an index of your own.",
                details=details,
            )
        return PlanError(
            f"package_sync_extras: {listed(guilty)} can't be had for {there}. The resolver says: {quoted(words)}",
            todo="See whether it is spelled as its index has it. Another index has to be known to pip or uv (UV_INDEX, "
            "extra-index-url).",
            details=details,
        )

    def _is_sdist(self, resolver: Resolver, wanted: Requirement) -> bool:
        one = Wanted(name=str(canonicalize_name(wanted.name)), specifier=str(wanted.specifier))
        question = Question(target=self._target, wanted=(one,), alone=True)
        if answer(resolver, question) is not None:
            return False  # it has a wheel; what it requires has none
        return answer(resolver, msgspec.structs.replace(question, sdists=True)) is not None


def _is(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"
