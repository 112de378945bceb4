"""Which versions must be others on the target, and how little of that is enough. Found by asking, never by reading
what a resolver says.

What is installed goes together, or its user lives with it, so all versions are asked for exactly as they are. Where
that has an answer, it was the only question. Otherwise: which versions does the target lack, and which are the nearest
that it has? Only if those do not go with the others, others may move as well, as few as possible.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec
from packaging.version import InvalidVersion, Version

from likewise.model.plan import Level
from likewise.planner.levels import Rule, specifier
from likewise.planner.resolver import Lock, Question, Resolver, Unsolvable, Wanted


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """An installed version that has to be had for the target.

    Attributes
    ----------
    name, version : str
    prefer : str
        The version with the local label that the target wants (``2.5.1+cpu``); mostly `version` itself.
    rule : Rule
        How far it may move.
    """

    name: str
    version: str
    prefer: str
    rule: Rule

    @property
    def exact(self) -> str:
        """The specifier of this version, of whatever local label."""
        return specifier(Level.EXACT, self.version)

    @property
    def range(self) -> str:
        """The specifier of all that the rule allows."""
        return specifier(self.rule.level, self.version)

    @property
    def movable(self) -> bool:
        """Whether there is another version that the rule allows."""
        return self.range != self.exact

    @property
    def steps(self) -> tuple[tuple[str, bool], ...]:
        """Where the nearest other version is looked for: specifiers, and whether the lowest in it is the nearest."""
        if not self.movable:
            return ()
        within = f",{self.range}" if self.range else ""
        public = Version(self.version).public
        return (f">={public},!={public}{within}", True), (f"<{public}{within}", False)

    def is_met_by(self, version: str) -> bool:
        """Whether `version` is the pinned one, apart from its local label."""
        try:
            return Version(version).public == Version(self.version).public
        except InvalidVersion:
            return version == self.version


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What asking led to.

    Attributes
    ----------
    lock : Lock
    question : Question
        The one that has `lock` as its answer.
    lacking : tuple of str
        Pins whose version the target has not; another one was taken.
    pushed : tuple of str
        Pins that the target has and that had to move because of others.
    missing : tuple of str
        Pins for which the target has nothing that is allowed. They are left out.
    overridden : tuple of str
        Names whose versions others do not accept, in the snapshot itself.
    """

    lock: Lock
    question: Question
    lacking: tuple[str, ...] = ()
    pushed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()


class Conflict(Exception):
    """The pins do not go together on the target.

    Attributes
    ----------
    question : Question
        A question without an answer.
    pins : tuple of Pin
        What it pins.
    """

    def __init__(self, question: Question, pins: Sequence[Pin]) -> None:
        super().__init__(question, pins)
        self.question = question
        self.pins = tuple(pins)


def smallest(items: Sequence[str], works: Callable[[frozenset[str]], bool]) -> tuple[str, ...]:
    """A part of `items` that works and of which nothing can be left out, by bisection ("QuickXplain", Junker 2004).

    Parameters
    ----------
    items : sequence of str
        All together must work. Where several parts would do, the earlier items are preferred.
    works : callable
        Must be monotone: what works still works with more.
    """

    def search(chosen: frozenset[str], added: bool, left: Sequence[str]) -> frozenset[str]:
        if added and works(chosen):
            return frozenset()
        if len(left) == 1:
            return frozenset(left)
        half = len(left) // 2
        second = search(chosen | set(left[:half]), True, left[half:])
        return second | search(chosen | second, bool(second), left[:half])

    if not items or works(frozenset()):
        return ()
    found = search(frozenset(), False, items)
    return tuple(item for item in items if item in found)


def settle(resolver: Resolver, question: Question, pins: Sequence[Pin], *, told: bool) -> Outcome:
    """The versions that the target gets.

    Parameters
    ----------
    resolver : Resolver
    question : Question
        All but `wanted`.
    pins : sequence of Pin
    told : bool
        Whether it is known what the distributions require, so that `question` overrides already what the snapshot
        itself violates. Otherwise that is found by asking.

    Raises
    ------
    Conflict
        When no versions go together as far as they may move.
    """
    plain = msgspec.structs.replace(question, wanted=tuple(exactly(pin) for pin in pins))
    if (lock := answer(resolver, plain)) is not None:
        return _labelled(resolver, Outcome(lock=lock, question=plain), pins)
    for remembered in (True, False):
        found = _Search(resolver, question, pins, remembered=remembered).outcome(told)
        if (lock := answer(resolver, found.question)) is not None:
            found = msgspec.structs.replace(found, lock=lock)
            break
    return _labelled(resolver, found, pins)


def _labelled(resolver: Resolver, outcome: Outcome, pins: Sequence[Pin]) -> Outcome:
    """The same versions with the local labels that the target wants, as many of these as can be had.

    ``==2.5.1`` is met by ``2.5.1+cu124`` (PEP 440), and a resolver takes the highest; only ``===2.5.1`` is not.
    """
    have = {package.name: package.version for package in outcome.lock.packages}
    other = {pin.name: pin for pin in pins if pin.is_met_by(have.get(pin.name, "")) and have[pin.name] != pin.prefer}
    other = {name: pin for name, pin in other.items() if Version(have[name]).local != Version(pin.prefer).local}

    def without(gone: Collection[str]) -> Question:
        wanted = tuple(
            Wanted(name=one.name, specifier=f"==={other[one.name].prefer}")
            if one.name in other and one.name not in gone
            else one
            for one in outcome.question.wanted
        )
        return msgspec.structs.replace(outcome.question, wanted=wanted)

    locks: dict[Collection[str], Lock | None] = {}

    def works(gone: frozenset[str]) -> bool:  # the same names were asked for a moment ago
        locks[gone] = answer(resolver, msgspec.structs.replace(without(gone), remembered=True))
        return locks[gone] is not None

    gone = smallest(tuple(other), works)
    if len(gone) == len(other):
        return outcome
    lock = locks.get(frozenset(gone)) or answer(resolver, without(gone))
    return msgspec.structs.replace(outcome, lock=lock, question=without(gone)) if lock else outcome


class _Search:
    """One search. It asks much, and mostly about what it has just asked, so what is `remembered` will do.

    Not so where a version is chosen: what is remembered are the versions that were chosen before.
    """

    def __init__(self, resolver: Resolver, question: Question, pins: Sequence[Pin], *, remembered: bool) -> None:
        self._resolver = resolver
        self._fresh = question
        self._question = msgspec.structs.replace(question, remembered=remembered)
        self._pins = {pin.name: pin for pin in pins}
        self._nearest: dict[str, str] = {}  # of what the target lacks
        self._missing: tuple[str, ...] = ()
        self._overridden: tuple[str, ...] = ()

    def outcome(self, told: bool) -> Outcome:
        """The answer when not all versions can be had together as they are."""
        self._look()
        wanted = self.first()
        if (lock := self.ask(wanted)) is not None:
            return self._outcome(lock, wanted)
        if not told:
            self._overridden = self._violated()
            if self._overridden and (lock := self.ask(wanted)) is not None:
                return self._outcome(lock, wanted)
        return self._moved()

    # ---- questions

    def ask(self, wanted: Mapping[str, Wanted], *, overridden: Iterable[str] = ()) -> Lock | None:
        """The answer, None when there is none."""
        return answer(self._resolver, self._put(self._question, wanted, overridden=overridden))

    def _put(
        self, question: Question, wanted: Mapping[str, Wanted], *, lowest: bool = False, overridden: Iterable[str] = ()
    ) -> Question:
        return msgspec.structs.replace(
            question,
            wanted=tuple(wanted.values()),
            excluded=(*question.excluded, *self._missing),
            overridden=tuple(dict.fromkeys((*question.overridden, *self._overridden, *overridden))),
            lowest=lowest,
        )

    def first(self, loose: Iterable[str] = ()) -> dict[str, Wanted]:
        """What is asked for when only `loose` may move."""
        free = frozenset(loose)
        return {
            name: loosely(pin, self._nearest.get(name)) if name in free else exactly(pin, self._nearest.get(name))
            for name, pin in self._pins.items()
            if name not in self._missing
        }

    def _outcome(self, lock: Lock, wanted: Mapping[str, Wanted], pushed: Iterable[str] = ()) -> Outcome:
        return Outcome(
            lock=lock,
            question=self._put(self._fresh, wanted),
            lacking=tuple(self._nearest),
            pushed=tuple(name for name in pushed if name not in self._nearest),
            missing=self._missing,
            overridden=self._overridden,
        )

    # ---- steps

    def _look(self) -> None:
        """Find out which versions the target has, each by itself, and the nearest to those that it lacks."""
        every = {name: Wanted(name=name, prefer=pin.prefer) for name, pin in self._pins.items()}

        def offered(question: Question, gone: Collection[str] = ()) -> Lock | None:
            wanted = tuple(one for name, one in every.items() if name not in gone)
            return answer(
                self._resolver, msgspec.structs.replace(question, wanted=wanted, alone=True, prereleases=True)
            )

        nothing: tuple[str, ...] = ()
        has = offered(self._fresh)
        if has is None:
            nothing = smallest(tuple(every), lambda gone: offered(self._question, gone) is not None)
            has = offered(self._fresh, nothing)
        missing = list(nothing)
        for package in has.packages if has else ():
            pin = self._pins[package.name]
            if not pin.is_met_by(package.version):
                nearest = nearest_version(self._resolver, self._fresh, pin)
                if nearest is None:
                    missing.append(pin.name)
                elif not pin.is_met_by(nearest):
                    self._nearest[pin.name] = nearest
        self._missing = tuple(missing)

    def _violated(self) -> tuple[str, ...]:
        """Names that others do not accept at the version that is installed, though the target has it."""
        fixed = {name: wanted for name, wanted in self.first().items() if name not in self._nearest}
        names = (*fixed, *(one.name for one in self._question.standing))
        if self.ask(fixed) is not None or self.ask(fixed, overridden=names) is None:
            return ()
        return smallest(names, lambda some: self.ask(fixed, overridden=some) is not None)

    def _moved(self) -> Outcome:
        """As few as possible move, each no further than it must. What the target lacks does anyway: it is free."""
        movable = [pin.name for pin in self._pins.values() if pin.movable and pin.name not in self._missing]
        loose = self.first(movable)
        lock = answer(self._resolver, self._put(self._fresh, loose))
        if lock is None:
            raise Conflict(
                self._put(self._question, loose), [pin for pin in self._pins.values() if pin.name not in self._missing]
            )
        moved = [name for name in movable if name not in self._nearest and not self._stays(name, lock)]
        few = smallest(moved, lambda some: self.ask(self.first({*some, *self._nearest})) is not None)
        free = (*few, *self._nearest)
        wanted = self.first(free)
        lock = self.ask(wanted) or lock
        for name in free:
            lock = self._nearest_together(wanted, name, lock)
        return self._outcome(lock, wanted, few)

    def _stays(self, name: str, lock: Lock) -> bool:
        """Whether `lock` has the installed version."""
        package = lock.get(name)
        return package is None or self._pins[name].is_met_by(package.version)

    def _nearest_together(self, wanted: dict[str, Wanted], name: str, lock: Lock) -> Lock:
        """Settle `name` in `wanted` on the nearest version that goes with all others; the answer with it."""
        for specifier_, lowest in self._pins[name].steps:
            attempt = {**wanted, name: Wanted(name=name, specifier=specifier_)}
            found = answer(self._resolver, self._put(self._fresh, attempt, lowest=lowest))
            if found is not None and (package := found.get(name)) is not None:
                wanted[name] = Wanted(name=name, specifier=f"=={package.version}")
                return found
        return lock


def nearest_version(resolver: Resolver, question: Question, pin: Pin) -> str | None:
    """The version of `pin` itself or the one nearest to it that the target has, the next higher one before a lower.

    None when the rule of `pin` allows nothing that the target has. What it requires is of no interest here.
    """
    for specifier_, lowest in ((pin.exact, False), *pin.steps):
        wanted = Wanted(name=pin.name, specifier=specifier_, prefer="" if lowest else pin.prefer)
        alone = msgspec.structs.replace(question, alone=True, lowest=lowest, remembered=False, wanted=(wanted,))
        found = answer(resolver, alone)
        if found is not None and (package := found.get(pin.name)) is not None:
            return package.version
    return None


def answer(resolver: Resolver, question: Question) -> Lock | None:
    """The answer to `question`, None when there is none."""
    try:
        return resolver.resolve(question)
    except Unsolvable:
        return None


def exactly(pin: Pin, nearest: str | None = None) -> Wanted:
    """`pin` as it is; where the target does not have it, `nearest` instead."""
    if nearest:
        return Wanted(name=pin.name, specifier=f"=={nearest}")
    return Wanted(name=pin.name, specifier=pin.exact, prefer=pin.prefer)


def loosely(pin: Pin, nearest: str | None = None) -> Wanted:
    """`pin` as far as its rule goes, beginning with itself, or with `nearest` where the target does not have it."""
    return Wanted(name=pin.name, specifier=pin.range, prefer=nearest or pin.prefer)
