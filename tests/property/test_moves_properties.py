"""Minimal moves, compared with trying everything: a resolver that tries all versions of a small, arbitrary index."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from likewise.model.plan import Level
from likewise.planner.levels import Rule
from likewise.planner.moves import Conflict, Outcome, Pin, settle
from likewise.planner.resolver import Lock, Locked, Question, Unsolvable
from support.plans import LINUX

NAMES = ("a", "b", "c", "d")
VERSIONS = ("1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.1.0")

Versions = dict[str, str]


class Exhaustive:
    """Tries all combinations of versions. `requires`: (name, version) -> name -> the lowest version that will do."""

    def __init__(self, offered: Mapping[str, list[str]], requires: Mapping[tuple[str, str], Versions]) -> None:
        self.offered = offered
        self.requires = requires

    def resolve(self, question: Question) -> Lock:
        """The best of all solutions: what is preferred, else the highest (or lowest), in the order of the question."""
        candidates = []
        for one in question.wanted:
            allowed = [v for v in self.offered[one.name] if SpecifierSet(one.specifier).contains(v)]
            allowed.sort(key=Version, reverse=not question.lowest)
            candidates.append(sorted(allowed, key=lambda v, first=one.prefer: v != first))  # type: ignore[misc]
        names = [one.name for one in question.wanted]
        for versions in itertools.product(*candidates):
            chosen = dict(zip(names, versions, strict=True))
            if question.alone or self.fits(chosen, question.overridden, question.excluded):
                return Lock(packages=tuple(Locked(name=n, version=v) for n, v in sorted(chosen.items())))
        raise Unsolvable("none of all combinations")

    def fits(self, chosen: Versions, overridden: tuple[str, ...] = (), excluded: tuple[str, ...] = ()) -> bool:
        """Whether everything that `chosen` requires is met. What is required and not chosen comes in if it exists."""
        waiting = list(chosen.items())
        for name, version in waiting:
            for other, lowest in self.requires.get((name, version), {}).items():
                if other in overridden or other in excluded or other == name:
                    continue
                if other not in chosen or Version(chosen[other]) < Version(lowest):
                    return False
        return True


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Exhaustive, tuple[Pin, ...]]:
    """An index, and what somebody has installed: consistent or not, offered or not."""
    offered = {
        name: sorted(draw(st.lists(st.sampled_from(VERSIONS), min_size=1, unique=True)), key=Version) for name in NAMES
    }
    requires = {}
    for name, version in itertools.product(NAMES, VERSIONS):
        if draw(st.integers(0, 2)) == 0:
            requires[name, version] = {draw(st.sampled_from(NAMES)): draw(st.sampled_from(VERSIONS))}
    pins = []
    for name in NAMES:
        version = draw(st.sampled_from(VERSIONS))
        level = draw(st.sampled_from([Level.MINOR, Level.MINOR, Level.EXACT, Level.ANY]))
        pins.append(Pin(name=name, version=version, prefer=version, rule=Rule(level, "")))
    return Exhaustive(offered, requires), tuple(pins)


@given(world=worlds())
@settings(max_examples=300, deadline=None)
def test_moves_are_few_and_short(world: tuple[Exhaustive, tuple[Pin, ...]]) -> None:
    """Against all combinations: a solution is found whenever there is one, and nothing moves without need."""
    resolver, pins = world
    try:
        outcome = settle(resolver, Question(target=LINUX, wanted=()), pins, told=True)
    except Conflict as conflict:
        assert not list(_solutions(resolver, conflict.pins, excluded=_without(pins, conflict.pins)))
        return
    chosen = {package.name: package.version for package in outcome.lock.packages}
    staying = [pin for pin in pins if pin.name not in outcome.missing]
    assert set(chosen) == {pin.name for pin in staying}
    assert resolver.fits(chosen, excluded=outcome.missing)
    assert all(SpecifierSet(pin.range).contains(chosen[pin.name]) for pin in staying)
    for pin in pins:
        assert (pin.name in outcome.missing) == (not _allowed(resolver, pin))
    _check_needed(resolver, staying, chosen, outcome)


def _check_needed(resolver: Exhaustive, staying: list[Pin], chosen: Versions, outcome: Outcome) -> None:
    """What moved has no reason to be as it was: it isn't offered, or no combination of what moved goes with it."""
    moved = {pin.name for pin in staying if chosen[pin.name] != pin.version}
    assert moved == {*outcome.lacking, *outcome.pushed}
    for pin in staying:
        if pin.name not in moved:
            continue
        if pin.name in outcome.lacking:
            assert pin.version not in resolver.offered[pin.name]
            continue
        fixed = {one.name: chosen[one.name] for one in staying if one.name not in moved} | {pin.name: pin.version}
        assert not any(
            all(solution[name] == version for name, version in fixed.items())
            for solution in _solutions(resolver, staying, excluded=outcome.missing)
        )


def _solutions(
    resolver: Exhaustive, pins: list[Pin] | tuple[Pin, ...], excluded: tuple[str, ...]
) -> Iterator[Versions]:
    for versions in itertools.product(*(_allowed(resolver, pin) for pin in pins)):
        chosen = {pin.name: version for pin, version in zip(pins, versions, strict=True)}
        if resolver.fits(chosen, excluded=excluded):
            yield chosen


def _allowed(resolver: Exhaustive, pin: Pin) -> list[str]:
    return [version for version in resolver.offered[pin.name] if SpecifierSet(pin.range).contains(version)]


def _without(pins: tuple[Pin, ...], some: tuple[Pin, ...]) -> tuple[str, ...]:
    return tuple(pin.name for pin in pins if pin not in some)
