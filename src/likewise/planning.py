"""From a snapshot, or a file that says what is installed, to a plan: joins formats, indexes, resolver and planning."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from packaging.utils import canonicalize_name

from likewise.asking import Asking, own_indexes
from likewise.elsewhere import is_elsewhere
from likewise.errors import LikewiseError, PlanError, UsageError
from likewise.formats.read import Pins, Reading, agrees, pins_for, read, read_listing
from likewise.formats.requirements import FORM
from likewise.formats.text import read_text
from likewise.indexes import Indexes
from likewise.indexes.pip_config import names_indexes
from likewise.indexes.secret import Secret
from likewise.model.plan import Action, Decision, Level, Plan
from likewise.model.snapshot import Interpreter, Problem, Severity, Snapshot
from likewise.model.target import Target
from likewise.nodes_python import Choice, foresee
from likewise.planner.additions import asks_for_more
from likewise.planner.decisions import refuse
from likewise.planner.elsewhere import plan_elsewhere
from likewise.planner.levels import allows
from likewise.planner.options import PlanOptions, extras_on
from likewise.planner.plans import make_plan
from likewise.planner.resolver import Resolver
from likewise.planner.tables import critical_distributions
from likewise.planner.tags import target_tags
from likewise.planner.targets import parse_platform, parse_target
from likewise.scanner.probe import probe_here
from likewise.settings import Settings
from likewise.versions import same_version

DEFAULT_TARGET = "linux-64"
"""For clients of a platform that nodes can't have."""

LOCKS = ("uv.lock", "pylock.toml")
"""What a lock of a project is called, the first of them first."""


def read_source(source: Path, *, client: str = "", python: str = "", environment: str = "") -> Reading:
    """What a file says is installed; see `likewise.formats.read.read`.

    Parameters
    ----------
    source : Path
    client, python : str
        The client's platform (``osx-arm64``) and Python. Default "": what the file says, else this machine's.
    environment : str
        Which one of the environments that a file locks. Default: the one called ``default``, or the only one.

    Raises
    ------
    UsageError
    """
    own = probe_here().interpreter
    machine = Target(platform=own.platform, python=own.version)
    platform = parse_platform(client) if client else None
    return read(source, client=platform, python=python or None, machine=machine, environment=environment)


def plan_towards(
    found: Snapshot | Reading,
    target: Target | str | None,
    options: PlanOptions,
    *,
    settings: Settings,
    fetched: bool = False,
    exclude_newer: str = "",
    channels: Sequence[str] = (),
    refresh: bool = False,
) -> Plan:
    """The plan for any nodes, of what is here or elsewhere. Its target has the Python that the nodes will get.

    Parameters
    ----------
    found : Snapshot or Reading
    target : Target, str or None
        None: machines like the client, or `DEFAULT_TARGET` where no node can be like it.
    options : PlanOptions
    settings : Settings
    fetched : bool
        Whether nothing of the client's may be copied.
    exclude_newer, refresh
        As in `plan_for`.
    channels : sequence of str
        Conda channels in place of those that the client's packages come from.

    Raises
    ------
    PlanError, UsageError, UnsupportedError
    """
    snapshot, here = (found.snapshot, found.here) if isinstance(found, Reading) else (found, True)
    goal = target if isinstance(target, Target) else target_for(snapshot.interpreter, target or "")
    how: dict[str, Any] = {"settings": settings, "exclude_newer": exclude_newer, "refresh": refresh}
    if here and not fetched and not is_elsewhere(goal, snapshot.interpreter):
        return plan_here(snapshot, options, target=goal if target else None, channels=channels, **how)
    if snapshot.conda:
        return _plan_with_conda(found, goal, options, here=here and not fetched, channels=channels, **how)
    # What is all fetched is for other tools, which bring a Python of their own.
    python = Choice(goal) if fetched else foresee(goal, snapshot.interpreter, strict=options.strict)
    plan = plan_for(found, python.target, options, here=not fetched, **how)
    return msgspec.structs.replace(plan, problems=(*plan.problems, *python.problems))


def _plan_with_conda(
    found: Snapshot | Reading,
    goal: Target,
    options: PlanOptions,
    *,
    here: bool,
    settings: Settings,
    channels: Sequence[str],
    exclude_newer: str,
    refresh: bool,
) -> Plan:
    """conda's packages first, and what pip put on top of them for the Python that they have."""
    from likewise.conda_planning import plan_packages

    packages, where = plan_packages(
        found, goal, options, settings=settings, channels=channels, exclude_newer=exclude_newer
    )
    wished = found.conda.contents.requirements if isinstance(found, Reading) and found.conda else ()
    top = plan_for(
        found,
        msgspec.structs.replace(goal, python=packages.python or goal.python),
        msgspec.structs.replace(options, extras=(*options.extras, *wished), conda_extras=()),
        settings=settings,
        here=here,
        exclude_newer=exclude_newer,
        refresh=refresh,
        provided=packages.provided,
    )
    plan = msgspec.structs.replace(
        top,
        conda=packages.decisions,
        channels=where.names,
        virtual_packages=packages.virtual_packages,
        problems=(*top.problems, *packages.problems, *where.problems),
    )
    refuse(plan, options, {*critical_distributions(), *plan.kit})
    return plan


def target_for(client: Interpreter, name: str = "") -> Target:
    """The target called `name`; without a name, the client's own platform, or Linux where no node can run that.

    Raises
    ------
    UsageError
        The name is not known.
    """
    platform = client.platform
    if name or platform.os != "linux":
        return parse_target(name or DEFAULT_TARGET, python=client.version)
    if not platform.libc:  # not every format says which C library it was
        platform = parse_platform(f"linux-{platform.arch}")
    return Target(platform=platform, python=client.version)


def plan_for(
    found: Snapshot | Reading,
    target: Target,
    options: PlanOptions,
    *,
    settings: Settings,
    here: bool = True,
    folder: Path | None = None,
    exclude_newer: str = "",
    refresh: bool = False,
    former: Plan | None = None,
    provided: Mapping[str, str] | None = None,
) -> Plan:
    """The plan for nodes that are not what the client is, or for a client that is not here.

    A ``uv.lock`` or ``pylock.toml`` that belongs to what is installed decides about all that it pins for the target, as
    far as `options` let versions move.

    Parameters
    ----------
    found : Snapshot or Reading
        Of what is here, or read from a file.
    target : Target
    options : PlanOptions
    settings : Settings
    here : bool
        Whether files of the client may be copied, if they are here.
    folder : Path, optional
        Where to look for a project's lock and the settings of indexes. Default: the working directory.
    exclude_newer : str
        A date, or a time (RFC 3339): what was uploaded to an index later does not count. Default: everything counts.
    refresh : bool, default False
        Whether indexes are asked even where their answers are remembered.
    former : Plan, optional
        An earlier one for the same nodes: what it has brought in keeps its version, where it can.
    provided : mapping, optional
        As in `likewise.planner.elsewhere.plan_elsewhere`.

    Raises
    ------
    PlanError, UsageError, UnsupportedError
    """
    if options.conda_extras:
        raise UsageError(
            f"Conda packages for the cluster alone ({', '.join(options.conda_extras)}) go with a Python of conda's, "
            "and the client's is none.",
            todo="Leave them out, or start from a conda prefix.",
        )
    folder = folder or Path.cwd()
    reading = found if isinstance(found, Reading) else find_lock(folder, found) or Reading(found, here=True)
    snapshot, here = reading.snapshot, here and reading.here
    pins = pins_for(reading.listing, snapshot, target, target_tags(target))
    requirements = _requirements(reading)
    python = snapshot.interpreter.executable if here else sys.executable
    indexes = own_indexes(folder=folder, python=python, requirements=requirements)
    # What a project's lock has besides what is installed was not asked for: other groups, or another platform's needs.
    extras = () if reading.here else _not_ignored(pins.extras, options)
    forked = _forked(pins.versions, snapshot, options)

    def make(resolver: Resolver) -> Plan:
        return plan_elsewhere(
            _with_versions(snapshot, forked),
            target,
            msgspec.structs.replace(options, extras=(*options.extras, *extras)),
            resolver,
            here=here,
            locked=pins.files,
            provided=provided,
            withheld=indexes.withheld(target),
        )

    how: dict[str, Any] = {"exclude_newer": exclude_newer, "refresh": refresh, "former": former}
    asking = Asking(indexes, target, settings=settings, **how)
    plan = asking.plan(make)
    check_hashes(plan, pins.hashes)
    return msgspec.structs.replace(
        plan,
        decisions=tuple(_as_pinned(d, forked, extras, reading) for d in plan.decisions),
        requirements=_read_again(requirements),
        problems=(
            *plan.problems,
            *pins.problems,
            *_used(reading, pins),
            *_passed_by(requirements),
        ),
    )


def plan_here(
    snapshot: Snapshot,
    options: PlanOptions,
    *,
    settings: Settings,
    target: Target | None = None,
    nodes: Target | None = None,
    folder: Path | None = None,
    channels: Sequence[str] = (),
    exclude_newer: str = "",
    refresh: bool = False,
    former: Plan | None = None,
) -> Plan:
    """The plan for nodes like the client. Indexes and channels are asked about extras that are not installed, and about
    nothing else.

    Parameters
    ----------
    snapshot : Snapshot
    options : PlanOptions
    settings : Settings
    target : Target, optional
        As in `likewise.planner.plans.make_plan`.
    nodes : Target, optional
        The nodes, where somebody has said what they are: which CUDA they have. Default: `target`.
    channels
        As in `plan_towards`.
    folder, exclude_newer, refresh, former
        As in `plan_for`.

    Raises
    ------
    PlanError, UsageError, UnsupportedError
    """
    goal = target or _own_target(snapshot)
    how: dict[str, Any] = {"settings": settings, "exclude_newer": exclude_newer, "refresh": refresh, "former": former}
    if options.conda_extras:
        from likewise.conda_extras import choose_packages  # few launches need what that imports

        extras, nodes = options.conda_extras, nodes or target
        chosen = choose_packages(snapshot, goal, extras, nodes=nodes, channels=channels, **how)
        others = msgspec.structs.replace(options, conda_extras=())
        plan = _plan_own(snapshot, others, target, folder, chosen.needed(snapshot), **how)
        plan = chosen.added(plan, snapshot)
        refuse(plan, options, ())
        return plan
    return _plan_own(snapshot, options, target, folder, {}, **how)


def _plan_own(
    snapshot: Snapshot,
    options: PlanOptions,
    target: Target | None,
    folder: Path | None,
    needed: Mapping[str, tuple[str, ...]],
    **how: Any,
) -> Plan:
    """The same without conda packages but the client's own; those that are added have `needed` of its distributions."""
    goal = target or _own_target(snapshot)
    if not asks_for_more(snapshot, goal, options):
        return make_plan(snapshot, target, options, needed=needed)
    indexes = own_indexes(folder=folder or Path.cwd(), python=snapshot.interpreter.executable)
    _check_withheld((canonicalize_name(one.name) for one in extras_on(goal, options)), indexes, goal)
    asking = Asking(indexes, goal, **how)
    plan = asking.plan(lambda resolver: make_plan(snapshot, target, options, resolver, needed=needed))
    _check_withheld((one.name for one in plan.decisions if one.new), indexes, goal)
    return plan


def _own_target(snapshot: Snapshot) -> Target:
    return Target(platform=snapshot.interpreter.platform, python=snapshot.interpreter.version)


def _check_withheld(names: Iterable[str], indexes: Indexes, target: Target) -> None:
    """Refuse what comes from an index that is not asked: another one may have something else under that name."""
    withheld = indexes.withheld(target)
    for name in names:
        if name in withheld:
            raise PlanError(
                f"{name} can't be had for the cluster alone: {withheld[name]}.",
                todo="Have the index asked, or leave it out.",
            )


def check_hashes(plan: Plan, hashes: Mapping[str, tuple[str, frozenset[str]]]) -> None:
    """Refuse files that the client's own list of hashes does not have.

    Parameters
    ----------
    plan : Plan
    hashes : mapping
        Name -> version and sha256 values of all its files.

    Raises
    ------
    PlanError
        A file of that very version is another one.
    """
    wrong = [d for d in plan.decisions if d.file and not _is_allowed(d, hashes)]
    if wrong:
        listed = ", ".join(f"{d.name} {d.version} ({d.file.filename})" for d in wrong if d.file)
        raise PlanError(
            f"What the index offers is not what the hashes in the file allow: {listed}.",
            todo="Find out who changed it: the index, or the file.",
            details={"files": [{"name": d.name, "sha256": d.file.sha256} for d in wrong if d.file]},
        )


def find_lock(folder: Path, snapshot: Snapshot) -> Reading | None:
    """The lock of the project in `folder` or the next folder above it that has one, if it describes what is installed.

    A lock that can't be read is passed over: nobody asked for it.
    """
    own = snapshot.interpreter
    where = Target(platform=own.platform, python=own.version)
    for place in (folder, *folder.parents):
        found = [place / name for name in LOCKS if (place / name).is_file()]
        for path in found:
            try:
                listing = read_listing(read_text(path))
                if agrees(listing, snapshot, where):
                    return Reading(snapshot, here=True, listing=listing)
            except LikewiseError:
                continue
        if found:
            return None
    return None


def _requirements(reading: Reading) -> tuple[Path | Secret, ...]:
    """The file, what came through a pipe, or pip's part of one of conda's, if it may have such as ``--index-url``."""
    if reading.conda and reading.conda.options:
        return (Secret(reading.conda.options),)
    if reading.listing is None or reading.listing.form != FORM or reading.path is None:
        return ()
    if reading.text:
        return (Secret(reading.text),)
    return (reading.path,) if reading.path.is_file() else ()


def _read_again(requirements: Iterable[Path | Secret]) -> str:
    """The file that has to be read when wheels are fetched, "" when there is none, or when it was a pipe."""
    places = [os.path.abspath(one) for one in requirements if isinstance(one, Path)]
    lasting = [place for place in places if os.path.isfile(place) and not place.startswith(("/dev/", "/proc/"))]
    return next((place for place in lasting if names_indexes(Path(place))), "")


def _passed_by(requirements: Iterable[Path | Secret]) -> tuple[Problem, ...]:
    """A note when indexes were named in what can't be read again."""
    if not any(isinstance(one, Secret) and names_indexes(one) for one in requirements):
        return ()
    message = (
        "It names indexes, and is not read again. Only this plan knows them: to start a cluster with it, name them in "
        "UV_INDEX as well, or plan from a requirements file."
    )
    return (Problem(code="indexes-piped", subject="indexes", message=message, severity=Severity.NOTE),)


def _forked(versions: Mapping[str, str], snapshot: Snapshot, options: PlanOptions) -> dict[str, str]:
    """Those of a lock's other `versions` that the nodes get: of nothing critical, and no further than the user allows.

    What is not forked is asked for as it is installed.
    """
    found = {name: version for name, version in versions.items() if name not in critical_distributions()}
    for name in tuple(found):
        level = Level.EXACT if options.strict else options.level_of(name)
        installed = snapshot.get(name)
        if level and installed and not allows(level, installed.version, found[name]):
            del found[name]
    return found


def _with_versions(snapshot: Snapshot, versions: Mapping[str, str]) -> Snapshot:
    """`snapshot` with other versions of some distributions, of which nothing is here."""
    changed = tuple(
        msgspec.structs.replace(d, version=versions[d.name], tags=(), content=None) if d.name in versions else d
        for d in snapshot.distributions
    )
    return msgspec.structs.replace(snapshot, distributions=changed)


def _as_pinned(decision: Decision, forked: Mapping[str, str], extras: Collection[str], reading: Reading) -> Decision:
    """`decision` as the user knows it, where the file decided and neither the user nor what is installed."""
    form = reading.listing.form if reading.listing else ""
    installed = reading.snapshot.get(decision.name)
    if decision.new and f"{decision.name}=={decision.version}" in extras:
        return msgspec.structs.replace(decision, reason=f"{form} has it for the nodes")
    if decision.name not in forked or installed is None:
        return decision
    if decision.action is Action.DROP:
        return msgspec.structs.replace(decision, version=installed.version)
    reason = f"{form} has {forked[decision.name]} for the nodes; {decision.reason}"
    return msgspec.structs.replace(decision, installed=installed.version, reason=reason)


def _not_ignored(extras: Iterable[str], options: PlanOptions) -> tuple[str, ...]:
    return tuple(text for text in extras if text.partition("==")[0] not in options.ignored)


def _used(reading: Reading, pins: Pins) -> tuple[Problem, ...]:
    """A lock that nobody named is mentioned when it counts."""
    if not (reading.here and reading.listing and pins.files):
        return ()
    message = f"It describes what is installed, so the nodes get what it pins for them: {len(pins.files)} files."
    return (Problem(code="lock-used", subject=reading.listing.form, message=message, severity=Severity.NOTE),)


def _is_allowed(decision: Decision, hashes: Mapping[str, tuple[str, frozenset[str]]]) -> bool:
    """Whether its file has one of the hashes for its version; ``==1.0`` also means 1.0.0 and 1.0+local (PEP 440)."""
    version, allowed = hashes.get(decision.name, ("", frozenset()))
    local = decision.version if "+" in version else decision.version.partition("+")[0]
    return not same_version(local, version) or decision.file is None or decision.file.sha256 in allowed
