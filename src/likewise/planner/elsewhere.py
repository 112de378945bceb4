"""Snapshot + Target -> Plan, for nodes of another platform than the client's.

Pure distributions are the same files everywhere: they are copied. What is compiled is had from an index, in the version
that is installed wherever the target has it. What the target alone requires comes in, what only the client's platform
has stays behind, and each of these has its reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from likewise.errors import PlanError
from likewise.model.accelerators import build_of
from likewise.model.plan import Action, Decision, Level, LockedFile, Plan
from likewise.model.snapshot import Distribution, Problem, Severity, Snapshot
from likewise.model.target import Target
from likewise.planner.decisions import decide_code, refuse, required_by_text
from likewise.planner.explain import absence, capital, conflict_error, listed, moved_reason, opponents, platform_name
from likewise.planner.moves import Conflict, Outcome, Pin, settle
from likewise.planner.options import PlanOptions, check_options, parse_extra
from likewise.planner.resolver import Locked, Resolver
from likewise.planner.selection import kit_closure, kit_names
from likewise.planner.sorting import Sorting, dropped, error, on_top, pin_of, sort
from likewise.planner.tables import critical_distributions
from likewise.planner.tags import best_file
from likewise.planner.targets import check_client
from likewise.versions import same_version

_CUDA = "nvidia-"
"""What the names of CUDA's libraries begin with."""


def plan_elsewhere(
    snapshot: Snapshot,
    target: Target,
    options: PlanOptions,
    resolver: Resolver,
    *,
    here: bool,
    locked: Mapping[str, LockedFile] | None = None,
    provided: Mapping[str, str] | None = None,
    withheld: Mapping[str, str] | None = None,
) -> Plan:
    """Decide what happens to each distribution and code root on another platform, and why.

    Parameters
    ----------
    snapshot : Snapshot
    target : Target
    options : PlanOptions
    resolver : Resolver
        Asked once where the target has everything; more often to find out what it has instead.
    here : bool
        Whether the snapshot's files are on this machine. Otherwise everything is fetched.
    locked : mapping, optional
        Normalized name -> the file that a lock of the user's names for the target. It is taken where its version is
        the one decided on.
    provided : mapping, optional
        Normalized name -> version of what conda's packages bring on the target. Then only what is installed on top of
        conda's packages is decided about. Default: there are none.
    withheld : mapping, optional
        Normalized name -> why no index is asked about it. Default: all names may be asked for.

    Raises
    ------
    PlanError
        Something critical can't be had exactly, versions do not go together, what is wanted for the cluster alone is
        `withheld`, or `options` say that another problem stops the launch.
    UsageError
        The options contradict each other or name something that is not there.
    UnsupportedError
        The client's Python is free-threaded, or no CPython.
    """
    check_client(snapshot.interpreter, target)
    notes = check_options(snapshot, options)
    _check_extras(options, withheld or {})
    sorting = sort(snapshot, target, options, here=here, provided=provided, withheld=withheld)
    question = sorting.question(options)
    told = any(d.requires for d in snapshot.distributions)
    try:
        outcome = settle(resolver, question, sorting.pins, told=told)
    except Conflict as conflict:
        raise conflict_error(resolver, conflict, sorting.graph) from conflict
    found = _Findings(snapshot, sorting, outcome, resolver, locked or {}, options)
    decisions = [found.decision(d) for d in on_top(snapshot, provided)]
    decisions += [*found.additions(), *decide_code(snapshot, options)]
    plan = Plan(
        target=target,
        decisions=tuple(decisions),
        kit=found.kit(here=here, provided=provided or {}),
        problems=(*snapshot.problems, *notes, *sorting.problems, *found.problems),
    )
    refuse(plan, options, {*critical_distributions(), *plan.kit})
    return plan


def _check_extras(options: PlanOptions, withheld: Mapping[str, str]) -> None:
    """Refuse what is wanted for the cluster alone and can't be asked for."""
    for name in (str(canonicalize_name(parse_extra(text).name)) for text in options.extras):
        if name in withheld:
            raise PlanError(
                f"{name} can't be had for the cluster alone: {withheld[name]}.",
                todo="Have the index asked, or leave it out.",
            )


class _Findings:
    """Decisions about what was asked for."""

    def __init__(
        self,
        snapshot: Snapshot,
        sorting: Sorting,
        outcome: Outcome,
        resolver: Resolver,
        locked: Mapping[str, LockedFile],
        options: PlanOptions,
    ) -> None:
        self._snapshot, self._sorting, self._outcome = snapshot, sorting, outcome
        self._resolver, self._locked, self._options = resolver, locked, options
        self._target = sorting.target
        self._client = snapshot.interpreter.platform
        self._pins = {pin.name: pin for pin in sorting.pins}
        self._packages = {package.name: package for package in outcome.lock.packages}
        self.problems: list[Problem] = [self._not_accepted(name) for name in outcome.overridden]

    def decision(self, d: Distribution) -> Decision:
        """What happens to `d`."""
        if (decision := self._sorting.decided.get(d.name)) is not None:
            return decision
        if d.name in self._outcome.missing:
            return self._absent(d)
        package, pin = self._packages[d.name], self._pins[d.name]
        self._note_yanked(package)
        there = package.version
        return Decision(
            name=d.name,
            version=there,
            action=Action.FETCH,
            reason=self._reason(d, pin, there),
            critical=d.name in critical_distributions(),
            installed="" if same_version(there, d.version) else d.version,
            level=pin.rule.level,
            file=self._file(package),
        )

    def additions(self) -> list[Decision]:
        """What only the target has."""
        known = {d.name for d in self._snapshot.distributions}
        new = [package for package in self._outcome.lock.packages if package.name not in known]
        asked = {str(canonicalize_name(parse_extra(text).name)) for text in self._options.extras}
        required = {one.name: self._sorting.graph.required_by(one.name, self._sorting.kept) for one in new}
        unexplained = [one for one in new if one.name not in asked and not required[one.name]]
        if unexplained:
            told = self._resolver.resolve(
                msgspec.structs.replace(self._outcome.question, remembered=True, reasons=True)
            ).required_by
            required |= {one.name: told.get(one.name, ()) for one in unexplained}
        self._note_accelerator(new)
        return [self._added(package, package.name in asked, required[package.name]) for package in new]

    def kit(self, *, here: bool, provided: Collection[str]) -> tuple[str, ...]:
        """What a node needs to join. A snapshot from elsewhere may lack some of it, which is a problem and no error."""
        graph, arriving = self._sorting.graph, {*self._packages, *provided}
        try:
            return kit_names(self._snapshot, graph, arriving=arriving)
        except PlanError as error:
            if here:
                raise
            missing = error.details["missing"]
            self.problems.append(
                Problem(
                    code="kit-missing",
                    subject="kit",
                    message=f"Nodes need {listed(missing)} to join a cluster, which this environment does not have.",
                    severity=Severity.NOTE,
                )
            )
            return tuple(sorted(kit_closure(graph) - set(missing)))

    def _reason(self, d: Distribution, pin: Pin, version: str) -> str:
        if pin.is_met_by(version):
            reason = f"the same version, for {platform_name(self._target.platform)}{self._about_build(pin, version)}"
        else:
            pushed = d.name in self._outcome.pushed
            because = opponents(self._resolver, self._outcome.question, pin) if pushed else ()
            reason = moved_reason(pin, version, self._target, because)
        if d.name in self._options.ignored:
            reason = f"not left out: {required_by_text(d.name, self._sorting.graph, self._sorting.kept)}; {reason}"
        return reason

    def _about_build(self, pin: Pin, version: str) -> str:
        """What else is to be said of `version`, a build of the pinned version: the rest of a sentence, "" for nothing.

        A problem where the client's build has a label, and what the nodes get is for none of theirs: for something
        critical it is an error.
        """
        if same_version(version, pin.version):
            return "" if same_version(version, pin.prefer) else f"; no index has {pin.prefer}"
        build = build_of(version.partition("+")[2])
        if same_version(version, pin.prefer) or (build and build.runs_on(self._target)):
            return f" with {f'CUDA {self._target.cuda}' if self._target.cuda else 'no accelerator'}"
        critical = pin.name in critical_distributions()
        instead = f"{version} is another build, and it must be the same" if critical else f"the nodes get {version}"
        self.problems.append(
            Problem(
                code="other-build",
                subject=pin.name,
                message=f"No index has {pin.prefer} for {platform_name(self._target.platform)}; {instead}. "
                "Name the index that has it as pip or uv know it (UV_INDEX, extra-index-url).",
                severity=Severity.ERROR if critical else Severity.WARNING,
            )
        )
        return f"; no index has {pin.prefer}"

    def _note_accelerator(self, new: Iterable[Locked]) -> None:
        """Say what comes for an accelerator that the target is not said to have. Nothing is wrong with it but its size.

        What asks for it is mostly torch, of which there is a build that does not.
        """
        libraries = [one for one in new if one.name.startswith(_CUDA)]
        if self._target.cuda or not libraries:
            return
        size = sum(self._file(one).size or 0 for one in libraries)
        amount = f"{len(libraries)} distribution{'s' * (len(libraries) != 1)}"
        amount += f" of {size / 1e9:.1f} GB" if size >= 1e8 else ""
        help_ = "If the nodes have CUDA, say so: --target linux-64-cuda12.8."
        torch, got = self._pins.get("torch"), self._packages.get("torch")
        if torch and got and not same_version(got.version, torch.prefer):
            help_ += (
                f" If not, PyTorch's index for processors (it ends in /whl/cpu) has torch {torch.prefer}: name it as "
                "pip or uv know it (UV_INDEX, extra-index-url)."
            )
        self.problems.append(
            Problem(
                code="accelerator-libraries",
                subject="CUDA",
                message=f"CUDA's libraries come along ({amount}), and the nodes are not said to have it. {help_}",
                severity=Severity.NOTE,
            )
        )

    def _absent(self, d: Distribution) -> Decision:
        pin = self._pins[d.name]
        needed = d.name in critical_distributions() or d.name in kit_closure(self._sorting.graph)
        why = absence(self._resolver, self._sorting.question(self._options), pin, self._client, needed=needed)
        self.problems.append(error("not-on-target", d.name, f"{capital(why.reason)}. {why.todo}"))
        return dropped(d, why.reason)

    def _added(self, package: Locked, asked: bool, required: Sequence[str]) -> Decision:
        self._note_yanked(package)
        there = platform_name(self._target.platform)
        reason = "asked for on the cluster alone" if asked else f"{there} alone needs it"
        if required and not asked:
            reason = f"required on {there} by {listed(sorted(required))}"
        return Decision(
            name=package.name,
            version=package.version,
            action=Action.FETCH,
            reason=reason,
            new=True,
            level=Level.ANY,
            file=self._file(package),
        )

    def _file(self, package: Locked) -> LockedFile:
        """The file that fits best; the one of the user's own lock where that has the same version."""
        own = self._locked.get(package.name)
        if own is not None and _version_of(own.filename) == Version(package.version):
            return own
        return best_file(package.files, self._target)

    def _note_yanked(self, package: Locked) -> None:
        if package.yanked:
            self.problems.append(
                Problem(
                    code="yanked",
                    subject=package.name,
                    message=f"{package.name} {package.version} was yanked from its index ({package.yanked}); the nodes "
                    "get it all the same, like the client.",
                    severity=Severity.NOTE,
                )
            )

    def _not_accepted(self, name: str) -> Problem:
        (d,) = (d for d in self._snapshot.distributions if d.name == name)
        pin = pin_of(d, self._target, self._options)
        others = opponents(self._resolver, self._outcome.question, pin)
        who = f"{listed(others)} {'do' if len(others) > 1 else 'does'}" if others else "Others do"
        return Problem(
            code="violated-requirement",
            subject=name,
            message=f"{who} not accept {name} {d.version}, which is installed; it stays so on the nodes.",
        )


def _version_of(filename: str) -> Version | None:
    try:
        return parse_wheel_filename(filename)[1]
    except InvalidWheelFilename:
        return None
