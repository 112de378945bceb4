"""Which conda packages have to be others on the target, and how few. Found by asking, as in `likewise.planner.moves`.

What was asked for, and what nothing depends on, has to be there; of everything else it is only said which version it
has if it comes along. All of them are first asked for exactly as they are, or as near as the target has them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import msgspec

from likewise.planner.conda_pins import CondaPin
from likewise.planner.conda_solver import Candidate, CondaQuestion, CondaSolver, NoSolution
from likewise.planner.moves import smallest

ATTEMPTS = 6
"""How many of the nearest versions are tried for a package that has to move, before any will do."""


class CondaOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What asking led to.

    Attributes
    ----------
    packages : tuple of Candidate
        Sorted by name.
    reasons : mapping
        Of packages that the target has in the client's version and that had to move: what the solver says to that.
    """

    packages: tuple[Candidate, ...]
    reasons: Mapping[str, str] = msgspec.field(default_factory=dict)


def settle(solver: CondaSolver, pins: Sequence[CondaPin], further: Sequence[str]) -> CondaOutcome:
    """The packages that the target gets.

    Parameters
    ----------
    solver : CondaSolver
    pins : sequence of CondaPin
        Each with at least one version that it may have; those that the target has nothing of are left out before.
    further : sequence of str
        Match specs of what the cluster alone has.

    Raises
    ------
    NoSolution
        They do not go together, as far as they may move.
    """
    return _Search(solver, pins, further).outcome()


def impossible(solver: CondaSolver, pins: Sequence[CondaPin]) -> dict[str, str]:
    """What has to be there and can't be, even if nothing else is but what is exact; and what the solver says to it.

    Nothing, when not even that goes together.
    """
    return _Search(solver, pins, ()).impossible()


class _Search:
    """One search."""

    def __init__(self, solver: CondaSolver, pins: Sequence[CondaPin], further: Sequence[str]) -> None:
        self._solver, self._further = solver, tuple(further)
        self._pins = {pin.name: pin for pin in pins}
        self._chosen = {pin.name: pin.versions[0] for pin in pins if pin.package.version}

    def outcome(self) -> CondaOutcome:
        """The fewest moves that make it solvable, each no further than it must."""
        found = self._ask(())
        if found is not None:
            return CondaOutcome(packages=found)
        movable, loose = self._loosest()
        have = {one.name: one.version for one in loose}
        moved = [name for name in movable if have.get(name, self._chosen[name]) != self._chosen[name]]
        few = smallest(moved, lambda some: self._ask(some) is not None)
        free = list(few)
        found = self._ask(free) or loose
        for name in few:
            nearer = self._nearest(name, free)
            if nearer is not None:
                found = nearer
                free.remove(name)
        self._chosen.update({one.name: one.version for one in found if one.name in free})
        pushed = [name for name in few if self._pins[name].has_exact]
        return CondaOutcome(packages=found, reasons={name: self._why(name) for name in pushed})

    def _loosest(self) -> tuple[list[str], tuple[Candidate, ...]]:
        """What may move, and the answer when all of it does. What nothing depends on stays, if that is possible at all:
        nobody knows the versions of libraries, and of programs everybody does.
        """
        pins = [pin for pin in self._by_willingness() if pin.name in self._chosen and not pin.fixed]
        beneath = [pin.name for pin in pins if not (pin.root and pin.has_exact)]
        with suppress(NoSolution):
            return beneath, self._solver.solve(self._question(beneath))
        movable = [pin.name for pin in pins]
        return movable, self._solver.solve(self._question(movable))

    def impossible(self) -> dict[str, str]:
        """Found by halving: mostly there are none, or a few."""
        asked = [pin.name for pin in self._pins.values() if pin.root and not pin.fixed]
        found: dict[str, str] = {}

        def look(some: Sequence[str]) -> None:
            said = self._said(set(asked).difference(some))
            if said and len(some) == 1:
                found[some[0]] = said
            elif said:
                look(some[: len(some) // 2])
                look(some[len(some) // 2 :])

        if asked and not self._said(asked):
            look(asked)
        return found

    def _said(self, optional: Collection[str]) -> str:
        """What the solver says when all may move, and `optional` need not be there; "" when it has an answer."""
        movable = [name for name, pin in self._pins.items() if not pin.fixed]
        try:
            self._solver.solve(self._question(movable, optional=optional))
        except NoSolution as error:
            return str(error) or "no answer"
        return ""

    def _by_willingness(self) -> list[CondaPin]:
        """What the target lacks in this version first, then what only came along, at last what was asked for."""
        return sorted(self._pins.values(), key=lambda pin: (pin.has_exact, pin.root, bool(pin.package.requested)))

    def _question(
        self, free: Collection[str], chosen: Mapping[str, str] | None = None, *, optional: Collection[str] = ()
    ) -> CondaQuestion:
        chosen = self._chosen if chosen is None else chosen
        specs: list[str] = list(self._further)
        constraints: list[str] = []
        for pin in self._pins.values():
            wanted = pin.ranges() if pin.name in free or pin.name not in chosen else (pin.exactly(chosen[pin.name]),)
            needed = pin.fixed or (pin.root and pin.name not in optional)
            (specs if needed else constraints).extend(wanted)
        return CondaQuestion(specs=tuple(specs), constraints=tuple(constraints), favored=self._favored(chosen))

    def _favored(self, chosen: Mapping[str, str]) -> tuple[Candidate, ...]:
        """Of each package the very same build if the target has it, else the last one of the chosen version."""
        found = []
        for name, version in chosen.items():
            package = self._pins[name].package
            offers = [one for one in self._pins[name].offers if one.version == version]
            same = [one for one in offers if (one.build, one.subdir) == (package.build, package.subdir)]
            if version != package.version:
                found += offers[-1:]
            elif same:
                found += same[-1:]
        return tuple(found)

    def _ask(self, free: Collection[str], chosen: Mapping[str, str] | None = None) -> tuple[Candidate, ...] | None:
        try:
            return self._solver.solve(self._question(free, chosen))
        except NoSolution:
            return None

    def _nearest(self, name: str, free: Sequence[str]) -> tuple[Candidate, ...] | None:
        """Settle `name` on the nearest version that goes with all others."""
        others = [one for one in free if one != name]
        for version in self._pins[name].versions[1 : ATTEMPTS + 1]:
            found = self._ask(others, {**self._chosen, name: version})
            if found is not None:
                self._chosen[name] = version
                return found
        return None

    def _why(self, name: str) -> str:
        """What the solver says when `name` alone is put back to the client's version."""
        try:
            self._solver.solve(self._question((), {**self._chosen, name: self._pins[name].package.version}))
        except NoSolution as error:
            return str(error)
        return ""
