"""The one place that joins the stages: prefix → Snapshot → Plan → layers → store → Manifest and kit.

`resolve` answers *what is this environment?* and changes nothing but caches; `publish` makes sure that the store holds
every layer of it. `prepare` is one after the other. A second run of an unchanged environment finds everything there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

import msgspec

from likewise.arguments import levels, names
from likewise.compiling import Compiling
from likewise.errors import LayerError
from likewise.events import Notice, Reporter, Silent
from likewise.forms import Loose
from likewise.model.plan import Action, Plan
from likewise.model.snapshot import Severity, Snapshot
from likewise.model.target import Target
from likewise.planner.options import check_moment, check_wishes
from likewise.planner.plans import PlanOptions, make_plan
from likewise.planner.targets import parse_target
from likewise.prepared import Prepared
from likewise.publishing import publish
from likewise.resolving import Resolved, compare, resolve, scan_with
from likewise.settings import Settings, resolve_settings
from likewise.stages import Stages, counted
from likewise.store.local import LocalStore

if TYPE_CHECKING:
    from likewise.formats.read import Reading
    from likewise.model.digest import Digest
    from likewise.model.offer import Offer

__all__ = [
    "PlanOptions",
    "Prepared",
    "Resolved",
    "check_request",
    "compare",
    "find_offers",
    "find_packages",
    "open_store",
    "plan",
    "plan_options",
    "prepare",
    "publish",
    "read_source",
    "remember_others",
    "resolve",
    "scan",
    "target_named",
]


def scan(python: str | None = None, *, reporter: Reporter | None = None) -> Snapshot:
    """What is here: the interpreter, every distribution and the loose code.

    Parameters
    ----------
    python : str, optional
        Another interpreter to look at, as a path. Default: the running one, with its ``sys.path`` as it is now.
    reporter : Reporter, optional

    Raises
    ------
    ScanError
        When the prefix can't be read or the loose code is beyond its limits.
    """
    return scan_with(resolve_settings(), python, Stages(reporter or Silent())).snapshot


def read_source(source: Path, *, client: str = "", python: str = "", environment: str = "") -> Reading:
    """What a file says is installed: `pip freeze`, `uv.lock`, …; see `likewise.planning.read_source`.

    Raises
    ------
    UsageError
        When the file can't be read or understood, or is not for this platform or Python.
    """
    from likewise import planning

    return planning.read_source(source, client=client, python=python, environment=environment)


def plan(
    snapshot: Snapshot | Reading | None = None,
    *,
    target: Target | str | None = None,
    strict: bool | None = None,
    ignore: Iterable[str] | None = None,
    only: Iterable[str] | None = None,
    level: Mapping[str, str] | None = None,
    extras: Iterable[str] | None = None,
    conda_extras: Iterable[str] | None = None,
    fail_on: str | None = None,
    exclude_newer: str = "",
    channels: Iterable[str] | None = None,
    fetched: bool = False,
    refresh: bool = False,
    reporter: Reporter | None = None,
) -> Plan:
    """What would happen to each distribution, and why: the dry run.

    Parameters
    ----------
    snapshot : Snapshot or Reading, optional
        What is installed, here or (`read_source`) elsewhere. Default: `scan()`.
    target : Target or str, optional
        The nodes, or the name of a target: ``linux-64``. Default: machines like the client, or ``linux-64`` where no
        node can be like it.
    strict, ignore, only, level, extras, conda_extras, fail_on
        See `plan_options`.
    exclude_newer : str
        Where an index is asked: a date or time (RFC 3339) after which nothing was uploaded. Default: no limit.
    channels : iterable of str, optional
        Conda channels in place of those that the client's packages come from, where any is asked.
    fetched : bool
        Whether everything has to come from an index, even for the client's own platform.
    refresh : bool
        Whether indexes are asked even where their answers are remembered (for ``likewise.plan.remember``).
    reporter : Reporter, optional

    Raises
    ------
    PlanError, UsageError, UnsupportedError
    """
    options = plan_options(
        strict=strict,
        ignore=ignore,
        only=only,
        level=level,
        extras=extras,
        conda_extras=conda_extras,
        fail_on=fail_on,
    )
    check_request(target, exclude_newer)
    found = snapshot or scan(reporter=reporter)
    if isinstance(found, Snapshot) and target is None and not fetched and not (options.extras or options.conda_extras):
        return make_plan(found, None, options)
    from likewise import planning

    how: dict[str, Any] = {"settings": resolve_settings(), "fetched": fetched, "exclude_newer": exclude_newer}
    how |= {"channels": names(channels, "channels") or (), "refresh": refresh}
    with Stages(reporter or Silent()).stage("plan") as stage:
        chosen = planning.plan_towards(found, target, options, **how)
        stage.summary = counted(sum(d.action is not Action.DROP for d in chosen.decisions), "distribution")
        if chosen.conda:
            packages = sum(d.action is not Action.DROP for d in chosen.conda)
            stage.summary = f"{counted(packages, 'conda package')}, {stage.summary}"
    return chosen


def check_request(target: Target | str | None = None, exclude_newer: str = "") -> None:
    """Refuse what no plan could be made for, before anything is looked at. The parameters are those of `plan`.

    Raises
    ------
    UsageError
    """
    if isinstance(target, str):
        target_named(target)
    if exclude_newer:
        check_moment(exclude_newer)


def target_named(name: str) -> Target:
    """The target with this name (``linux-64``) and the running Python's version.

    Raises
    ------
    UsageError
        For a name that is not known.
    """
    return parse_target(name, python=python_version())


def plan_options(
    *,
    strict: bool | None = None,
    ignore: Iterable[str] | None = None,
    only: Iterable[str] | None = None,
    level: Mapping[str, str] | None = None,
    extras: Iterable[str] | None = None,
    conda_extras: Iterable[str] | None = None,
    fail_on: str | None = None,
) -> PlanOptions:
    """What the user asked for: what is given here, else the settings below ``likewise.plan``.

    Parameters
    ----------
    strict, ignore, only, extras, conda_extras, fail_on
        See `likewise.planner.options.PlanOptions`.
    level : mapping of str to str, optional
        Distribution -> ``"exact"``, ``"minor"`` or ``"any"``: its ``levels``.

    Raises
    ------
    UsageError
        When a setting can't be understood, a single name stands where a list of names is meant, or two of them
        exclude each other.
    """
    chosen = levels(level, "level")
    given: dict[str, Any] = {
        "strict": strict,
        "ignore": names(ignore, "ignore"),
        "only": names(only, "only"),
        "levels": None if chosen is None else tuple(chosen.items()),
        "extras": names(extras, "extras"),
        "conda_extras": names(conda_extras, "conda_extras"),
        "fail_on": fail_on,
    }
    settings = msgspec.structs.asdict(resolve_settings().plan)
    options = PlanOptions(**settings | {name: value for name, value in given.items() if value is not None})
    check_wishes(options)
    return options


def find_offers(prepared: Prepared, known: Collection[Digest] = ()) -> tuple[Offer, ...]:
    """The layers of `prepared` that public indexes offer, but for those that are `known` to be; may take seconds.

    Raises
    ------
    LikewiseError
        When indexes can't be asked.
    """
    from likewise import offers  # what it imports, no launch waits for

    return offers.find_offers(
        prepared.manifest, prepared.snapshot, settings=resolve_settings(), store=prepared.store, known=known
    )


def remember_others(prepared: Prepared, files: Mapping[Digest, str]) -> None:
    """Never again offer these files (sha256 by layer): nodes found that each is another layer."""
    from likewise import offers

    offers.remember_others(prepared.store, files)


def find_packages(prepared: Prepared, known: Collection[Digest] = ()) -> tuple[Offer, ...]:
    """The layers of `prepared` that public channels of conda offer, but for those that are `known` to be."""
    if not prepared.replica.conda:
        return ()
    from likewise import conda_offers, offers

    client = msgspec.structs.replace(prepared.snapshot, conda=prepared.replica.conda)
    found = conda_offers.find_packages(prepared.manifest, client, known=known)
    return offers.without_others(prepared.store, found)


def open_store(settings: Settings | None = None) -> LocalStore:
    """The local store, as the settings say."""
    settings = settings or resolve_settings()
    return LocalStore(settings.store, max_age=settings.max_age, max_size=settings.max_size)


def prepare(
    options: PlanOptions | None = None,
    *,
    reporter: Reporter | None = None,
    python: str | None = None,
    behind: bool = False,
    loose: bool = False,
    goal: Target | Plan | None = None,
    leave: bool = False,
) -> Prepared:
    """Scan, plan, build what has to be built, and put every layer that is not there yet into the store.

    When a file turns out to be another than the scan believed, all of it is done once more: the next scan reads it.

    Parameters
    ----------
    options : PlanOptions, optional
    reporter : Reporter, optional
    python : str, optional
        As in `scan`.
    behind : bool
        Whether layers may be packed behind the caller's back, while nodes start (with ``likewise.streaming``):
        `Prepared.open_layer` and `Prepared.finish` wait for them.
    loose : bool
        Whether the layers are for nodes that can link to the store's files: they are then laid out there, not packed.
    goal : Target or Plan, optional
        What the nodes are, or what was planned for them (`plan`). Default: machines like this one, or ``linux-64``
        where no node can be like it. A plan is carried out as it is, whatever `options` say; likewise itself and loose
        code are always the client's. What is fetched for another platform is kept, so it costs its downloads once.
    leave : bool
        Whether nodes may fetch by themselves what a public index offers for another platform (`Prepared.offers`), and
        ask for it here (`Prepared.open_layer`) only when they can't. Their layers are then known from a small part of
        each wheel.

    Raises
    ------
    LikewiseError
        Any of its leaves; what was put into the store so far stays and is used by the next try.
    """
    reporter = reporter or Silent()
    told: set[str] = set()  # files that don't hold what was believed of them
    while True:
        try:
            how: dict[str, Any] = {"python": python, "behind": behind, "loose": loose, "goal": goal, "leave": leave}
            return _prepare(options or PlanOptions(), reporter, **how)
        except LayerError as error:
            path = error.details.get("disbelieved")
            if path is None or path in told:
                raise
            told.add(path)
            reporter.report(Notice(message=f"{error.what} The files of {error.where} are read now.", subject=path))


def _prepare(
    options: PlanOptions,
    reporter: Reporter,
    *,
    python: str | None,
    behind: bool,
    loose: bool,
    goal: Target | Plan | None,
    leave: bool,
) -> Prepared:
    settings = resolve_settings()
    stages = Stages(reporter)
    store = open_store(settings)
    how: dict[str, Any] = {"settings": settings, "store": store, "stages": stages, "python": python, "goal": goal}
    with Compiling(settings, store) as compiling:
        resolved = resolve(options, **how, compiling=compiling, leave=leave)
        for problem in resolved.problems:
            if problem.severity is not Severity.NOTE:
                stages.reporter.report(
                    Notice(message=problem.message, subject=problem.subject, severity=problem.severity.value)
                )
        return publish(
            resolved, options, **how, behind=behind, compiling=compiling, form=Loose(store) if loose else None
        )
