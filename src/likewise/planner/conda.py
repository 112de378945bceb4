"""Conda packages of a client -> conda packages for nodes of another platform, and why.

Builds differ from platform to platform, so what is kept is a version. Python and what is critical keep theirs, or there
is no plan. Everything else keeps its own wherever the target has it and it goes with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from packaging.utils import canonicalize_name

from likewise.errors import PlanError, UnsupportedError, UsageError
from likewise.model.conda import CondaPackage, spec_name
from likewise.model.plan import Action, CondaDecision, Level, LockedFile
from likewise.model.snapshot import Problem, Severity
from likewise.model.subdirs import subdir_of
from likewise.model.target import Platform, Target
from likewise.planner.conda_moves import CondaOutcome, impossible, settle
from likewise.planner.conda_pins import (
    PYTHON,
    CondaPin,
    by_distance,
    described,
    foreign_reason,
    minor,
    pins_of,
    roots,
    virtual_packages,
)
from likewise.planner.conda_solver import Candidate, CondaSolver, NoSolution
from likewise.planner.explain import listed
from likewise.planner.options import PlanOptions
from likewise.planner.tables import critical_distributions, rows

MOST_SHOWN = 12
"""Lines of a solver's explanation that are repeated."""


class CondaPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to conda packages.

    Attributes
    ----------
    decisions : tuple of CondaDecision
        Of what the client has, sorted by name, then of what comes along on the target alone.
    problems : tuple of Problem
    provided : mapping
        Normalized name -> version of the Python distributions that the packages bring.
    python : str
        The version of Python among the packages, "" where they have none.
    virtual_packages : tuple of str
    """

    decisions: tuple[CondaDecision, ...]
    problems: tuple[Problem, ...]
    provided: Mapping[str, str]
    python: str
    virtual_packages: tuple[str, ...]


def plan_conda(
    packages: Sequence[CondaPackage],
    target: Target,
    options: PlanOptions,
    solver: CondaSolver,
    *,
    client: Platform,
    extras: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
) -> CondaPlan:
    """Decide what happens to each conda package on another platform, and why.

    Parameters
    ----------
    packages : sequence of CondaPackage
        The client's.
    target : Target
        Its Python does not matter: that is one of the packages.
    options : PlanOptions
        Names in it count for the packages called so.
    solver : CondaSolver
        For the target's subdir and `virtual_packages`.
    client : Platform
    extras : sequence of str
        Match specs for the cluster alone.
    versions : mapping, optional
        Normalized name -> version of the distributions on the client, where they are known.

    Raises
    ------
    PlanError
        The target lacks the exact version of Python or of something critical, or they do not go together; the error
        names all of what is lacking, and has the solver's explanation.
    UnsupportedError
        The target has not the GNU C library, for which conda packages are built.
    UsageError
        An extra is no match spec.
    """
    if target.platform.libc != "glibc":
        raise UnsupportedError(f"There are no conda packages for {target.platform}.", todo="Name a target with glibc.")
    return _Planning(packages, target, options, solver, client, extras, versions or {}).plan()


class _Planning:
    """One plan on its way."""

    def __init__(
        self,
        packages: Sequence[CondaPackage],
        target: Target,
        options: PlanOptions,
        solver: CondaSolver,
        client: Platform,
        extras: Sequence[str],
        versions: Mapping[str, str],
    ) -> None:
        self._target, self._options, self._solver, self._client = target, options, solver, client
        self._extras, self._versions = tuple(extras), versions
        self._subdir = subdir_of(target.platform)
        self._virtual = virtual_packages(target)
        self._packages = described(packages, solver, client)
        self._dropped: dict[str, str] = {}
        self.problems: list[Problem] = []

    def plan(self) -> CondaPlan:
        """All of it."""
        pins = self._pins()
        present: Sequence[CondaPin] = [pin for pin in pins if pin.versions]
        self._check(pins)
        for pin in pins:
            if not pin.versions:
                self._absent(pin)
        for text in self._extras:
            if not spec_name(text):
                raise UsageError(f"{text!r} is no match spec of conda's.", todo="Write one like cudatoolkit>=12.")
        outcome, present = self._settled(present)
        found = {one.name: one for one in outcome.packages}
        known = {pin.name: pin for pin in present}
        decisions = [self._decision(one, known.get(one.name), found.get(one.name), outcome) for one in self._packages]
        own = {one.name for one in self._packages}
        decisions += [self._added(one, found.values()) for one in outcome.packages if one.name not in own]
        brought = {one.name: self._distributions(one) for one in outcome.packages}
        return CondaPlan(
            decisions=tuple(
                one if one.action is Action.DROP else msgspec.structs.replace(one, distributions=brought[one.name])
                for one in decisions
            ),
            problems=tuple(self.problems),
            provided=self._provided(found.values(), brought),
            python=found[PYTHON].version if PYTHON in found else "",
            virtual_packages=self._virtual,
        )

    def _settled(self, pins: Sequence[CondaPin]) -> tuple[CondaOutcome, Sequence[CondaPin]]:
        """The packages, and the pins that are kept: one that nothing could help is as good as not there."""
        try:
            return settle(self._solver, pins, self._extras), pins
        except NoSolution as error:
            stuck = impossible(self._solver, pins)
            if not stuck:
                raise self._conflict(str(error)) from None
        for pin in pins:
            if pin.name in stuck:
                reason = f"what there is of it for {self._subdir} does not go with what has to be exact"
                self._leave(pin, f"{reason} ({_compact(stuck[pin.name])})")
        left = [pin for pin in pins if pin.name not in stuck]
        try:
            return settle(self._solver, left, self._extras), left
        except NoSolution as error:
            raise self._conflict(str(error)) from None

    def _pins(self) -> tuple[CondaPin, ...]:
        """Of all that is not left out for a reason that is known beforehand.

        What only came along with something that is left out is not needed, and no root.
        """
        staying = []
        for one in self._packages:
            if canonicalize_name(one.name) in self._options.ignored and not _is_fixed(one):
                self._dropped[one.name] = "left out as asked"
            elif reason := foreign_reason(one.name, self._client, self._target.platform):
                self._dropped[one.name] = reason
            else:
                staying.append(one)
        offers = self._solver.candidates({one.name for one in staying})
        return pins_of(staying, self._roots(), offers, self._options, self._solver, self._virtual)

    def _roots(self) -> frozenset[str]:
        only = self._options.wanted
        if not only:
            return roots(self._packages)
        return frozenset(one.name for one in self._packages if canonicalize_name(one.name) in only or _is_fixed(one))

    def _check(self, pins: Iterable[CondaPin]) -> None:
        """Refuse what must be exact and is not there, everything else that is not there in the same breath."""
        lacking = [pin for pin in pins if not pin.versions and pin.fixed]
        if not lacking:
            return
        absent = [pin for pin in pins if not pin.versions and not pin.fixed and pin.root]
        words = [f"{pin.package.name} {pin.package.version} ({_instead(self._solver, pin)})" for pin in lacking]
        more = f" Nor is there anything called {listed([pin.name for pin in absent])}." if absent else ""
        raise PlanError(
            f"For {self._subdir}, the channels lack what must be exactly the same: {listed(words)}.{more}",
            todo="Install a version that they have for both platforms, or name a channel that has these: --channel.",
            details={"lacking": [str(pin.package) for pin in lacking], "absent": [pin.name for pin in absent]},
        )

    def _absent(self, pin: CondaPin) -> None:
        """Something that may be left out, and of which the target has nothing that is allowed."""
        offered = sorted({one.version for one in pin.offers})
        said = f"the channels have only {listed(offered)} of it" if offered else self._nothing(pin)
        self._leave(pin, f"{said} for {self._subdir}")

    def _nothing(self, pin: CondaPin) -> str:
        """That there is nothing called so; what another channel than its own calls so is named, and not taken."""
        others = self._solver.namesakes(pin.name)
        if not others:
            return "the channels have nothing called so"
        return f"the channel that it is from has nothing called so (what {listed(others)} has may be something else)"

    def _leave(self, pin: CondaPin, reason: str) -> None:
        """Leave it out; where it had to be there, that is a problem."""
        self._dropped[pin.name] = reason
        if not pin.root:
            return
        sure = bool(pin.package.requested) or any(one.requires for one in self._packages)
        todo = "Name a channel that has it (--channel), or leave it out: --ignore"
        self.problems.append(
            Problem(
                code="not-on-target",
                subject=pin.name,
                message=f"{reason[0].upper()}{reason[1:]}. {todo} {pin.name}.",
                severity=Severity.ERROR if sure else Severity.WARNING,
            )
        )

    def _conflict(self, said: str) -> PlanError:
        todo = "Leave one of them out (--ignore), or allow what is exact to move (--level NAME=any)."
        if "__glibc" in said:
            todo = f"Say which C library the nodes have, if it is newer: --target {self._subdir}-glibc2.39. {todo}"
        return PlanError(
            f"These conda packages do not go together on {self._subdir}:\n{shown(said)}\n",
            todo=todo,
            details={"rattler": said},
        )

    def _decision(
        self, package: CondaPackage, pin: CondaPin | None, found: Candidate | None, outcome: CondaOutcome
    ) -> CondaDecision:
        """What happens to a package of the client."""
        if package.name not in self._dropped and found is not None and pin is not None:
            return self._kept(package, pin, found, outcome.reasons.get(package.name, ""))
        reason = self._dropped.get(package.name, "") or f"nothing that is shipped needs it on {self._subdir}"
        if found is not None:
            return self._added(found, outcome.packages, f"{reason}, but it is required")
        return CondaDecision(
            name=package.name,
            version=package.version,
            build=package.build,
            subdir=package.subdir,
            action=Action.DROP,
            reason=reason,
        )

    def _kept(self, package: CondaPackage, pin: CondaPin, found: Candidate, why: str) -> CondaDecision:
        if not package.version:
            reason = f"as asked: {', '.join(package.requested)}"
        elif found.version == package.version:
            same = (found.build, found.subdir) == (package.build, package.subdir)
            reason = "the very same package" if same else f"the same version, for {self._subdir}"
        else:
            reason = self._moved(package, pin, found, why)
        return fetch_decision(
            found,
            reason=reason,
            critical=_is_fixed(package),
            installed="" if package.version in ("", found.version) else package.version,
            level=pin.level,
        )

    def _moved(self, package: CondaPackage, pin: CondaPin, found: Candidate, why: str) -> str:
        near = minor(found.version) == minor(package.version)
        if pin.root and not near:
            self.problems.append(
                Problem(
                    code="moved-far",
                    subject=package.name,
                    message=f"{package.version} is {found.version} on {self._subdir}, which is another major.minor.",
                )
            )
        where = f"within {minor(package.version)}" if near else f"none within {minor(package.version)} will do"
        if not pin.has_exact:
            return f"there is no {package.version} for {self._subdir}; {where}"
        return f"{package.version} does not go with the others; {where}" + (f" ({_compact(why)})" if why else "")

    def _added(self, found: Candidate, others: Iterable[Candidate], reason: str = "") -> CondaDecision:
        """What only the target has."""
        who = sorted(one.name for one in others if found.name in map(spec_name, one.requires))
        asked = found.name in map(spec_name, self._extras)
        if not reason:
            reason = "asked for on the cluster alone" if asked else f"required on {self._subdir} by {listed(who[:4])}"
        return fetch_decision(found, reason=reason, new=True, level=Level.ANY)

    def _distributions(self, found: Candidate) -> tuple[str, ...]:
        """The Python distributions that a package brings."""
        if not needs_python(found):
            return ()
        own = next((one for one in self._packages if one.name == found.name), None)
        return own.distributions if own and own.distributions else (distribution_name(found.name),)

    def _provided(self, found: Iterable[Candidate], brought: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
        """All of them; their version where the client knows it is its own."""
        kept = {(one.name, one.version) for one in self._packages}
        return {
            name: self._versions.get(name, one.version) if (one.name, one.version) in kept else one.version
            for one in found
            for name in brought[one.name]
        }


def needs_python(found: Candidate) -> bool:
    """Whether a package is for Python, so that it brings a distribution."""
    return found.noarch == PYTHON or not {PYTHON, "python_abi"}.isdisjoint(map(spec_name, found.requires))


def shown(said: str) -> str:
    """As much of a solver's explanation as is repeated."""
    lines = said.splitlines()
    return "\n".join(lines[:MOST_SHOWN] + (["…"] if len(lines) > MOST_SHOWN else []))


def distribution_name(name: str) -> str:
    """The normalized name of the Python distribution in the conda package `name`, as ``conda_names.txt`` has it."""
    own = str(canonicalize_name(name))
    return next((distribution for names, (distribution, _) in rows("conda_names.txt", 3) if own in names), own)


def fetch_decision(
    found: Candidate, *, reason: str, level: Level, critical: bool = False, installed: str = "", new: bool = False
) -> CondaDecision:
    """The line about a package that a channel offers."""
    return CondaDecision(
        name=found.name,
        version=found.version,
        action=Action.FETCH,
        reason=reason,
        critical=critical,
        installed=installed,
        new=new,
        level=level,
        file=LockedFile(
            filename=found.filename, url=found.url, sha256=found.sha256, size=found.size, index=found.channel
        ),
        build=found.build,
        build_number=found.build_number,
        channel=found.channel,
        subdir=found.subdir,
        noarch=found.noarch,
        md5=found.md5,
        requires=found.requires,
        constrains=found.constrains,
    )


def _is_fixed(package: CondaPackage) -> bool:
    return package.name == PYTHON or canonicalize_name(package.name) in critical_distributions()


def _instead(solver: CondaSolver, pin: CondaPin) -> str:
    """What there is in place of it: the nearest versions."""
    near = by_distance(pin.package.version, {one.version for one in pin.offers}, solver)[:3]
    if near:
        return f"there is {listed(near)}"
    others = solver.namesakes(pin.name)
    return f"there is none where it is from, only in {listed(others)}" if others else "there is none"


def _compact(said: str) -> str:
    """A solver's explanation as one short line."""
    lines = [line.strip(" │├└─╰|`-") for line in said.splitlines()]
    text = "; ".join(filter(None, lines)).removeprefix("Cannot solve the request because of: ")
    return text if len(text) <= 200 else f"{text[:200].rsplit(' ', 1)[0]} …"
