"""The plan for a client with conda packages and nodes of another platform: conda's first, then what pip put on top."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from likewise.errors import FetchError, UsageError
from likewise.formats.conda_values import channels_of
from likewise.formats.read import Reading
from likewise.indexes.conda_channels import Channels, find_channels
from likewise.indexes.conda_homes import Spellings, is_folder_alone
from likewise.model.conda import CondaPackage, spec_channel
from likewise.model.origins import redact_channel
from likewise.model.snapshot import OriginKind, Problem, Severity, Snapshot
from likewise.model.subdirs import subdir_of, without_subdir
from likewise.model.target import Target
from likewise.planner.conda import CondaPlan, plan_conda
from likewise.planner.conda_pins import virtual_packages
from likewise.planner.explain import listed
from likewise.planner.options import PlanOptions
from likewise.resolution.rattler import RattlerSolver, place_of
from likewise.settings import Settings


def plan_packages(
    found: Snapshot | Reading,
    target: Target,
    options: PlanOptions,
    *,
    settings: Settings,
    channels: Sequence[str] = (),
    exclude_newer: str = "",
) -> tuple[CondaPlan, Channels]:
    """What happens to the conda packages of a client, and which channels were asked.

    Parameters
    ----------
    found : Snapshot or Reading
        Of what is here, or read from a file.
    target : Target
    options : PlanOptions
    settings : Settings
    channels : sequence of str
        Channels in place of those that the packages come from; a URL may have credentials. Default: those; then a
        package is taken from its own channel or not at all, unless that is not known or is none.
    exclude_newer : str
        A date, or a time (RFC 3339): what was made later does not count. Default: everything counts.

    Raises
    ------
    FetchError
        A channel can't be read.
    PlanError, UsageError, UnsupportedError
        See `likewise.planner.conda.plan_conda`.
    """
    reading = found if isinstance(found, Reading) else Reading(found, here=True)
    snapshot = reading.snapshot
    spellings = Spellings(os.environ, Path.home(), _place)
    where = find_channels(
        channels or _own_channels(reading, spellings),
        environ=os.environ,
        home=Path.home(),
        python=snapshot.interpreter.executable if reading.here else sys.executable,
        secrets=reading.conda.secrets if reading.conda else {},
    )
    check_named(where)
    came = _Origins(reading, spellings, where.names, told=bool(channels))
    problems: list[Problem] = []
    while True:
        how: dict[str, Any] = {"settings": settings, "exclude_newer": exclude_newer}
        solver = solver_for(target, where, virtual_packages(target), **how, homes=came.homes, strays=came.told)
        try:
            planned = plan_conda(
                snapshot.conda,
                target,
                options,
                solver,
                client=snapshot.interpreter.platform,
                extras=options.conda_extras,
                versions={d.name: d.version for d in snapshot.distributions if d.origin.kind is OriginKind.CONDA},
            )
        except FetchError as error:
            without = error.details.get("without_list", "")
            problems.append(came.without_list(without, error))
            names = tuple(one for one in where.names if place_of(one) != without)
            where = dataclasses.replace(where, names=names or _refused())
        else:
            problems += came.from_elsewhere(planned)
            return msgspec.structs.replace(planned, problems=(*planned.problems, *problems)), where


def check_named(where: Channels) -> None:
    """Make sure that there is a channel to ask.

    Raises
    ------
    UsageError
    """
    if not where.names:
        _refused()


def solver_for(
    target: Target,
    where: Channels,
    virtual: Sequence[str],
    *,
    settings: Settings,
    exclude_newer: str,
    homes: Mapping[str, Collection[str]] | None = None,
    strays: bool = False,
) -> RattlerSolver:
    """Who knows these channels, for machines with these virtual packages.

    Raises
    ------
    UnsupportedError, UsageError
        See `likewise.resolution.rattler.RattlerSolver`; `exclude_newer` is no date.
    """
    return RattlerSolver(
        where.names,
        subdir_of(target.platform),
        virtual,
        cache=settings.work / "conda",
        authorization=where.authorization if where.headers else None,
        mirrors=where.reveal(),
        exclude_newer=_time(exclude_newer),
        homes=homes or {},
        strays=strays,
    )


def _own_channels(reading: Reading, spellings: Spellings) -> tuple[str, ...]:
    """The channels that a file names, and those that packages came from."""
    named = reading.conda.contents.channels if reading.conda else ()
    origins = channels_of(tuple(msgspec.structs.replace(one, channel=_origin(one)) for one in reading.snapshot.conda))
    return spellings.joined(named, [one for one in spellings.ordered(origins) if not is_folder_alone(one)])


def _place(channel: str) -> str:
    """The URL of a channel; of what is none, and may stand in a package's record all the same, the text."""
    try:
        return place_of(channel)
    except UsageError:
        return channel


def _refused() -> tuple[str, ...]:
    raise UsageError(
        "Nothing says which conda channels these packages come from.", todo="Name them: --channel conda-forge."
    )


def _origin(package: CondaPackage) -> str:
    """The channel that a package came from or, where nobody knows, was asked for from; "" when nothing says it."""
    said = package.channel or next(filter(None, map(spec_channel, package.requested)), "")
    return without_subdir(redact_channel(said).rstrip("/"))


class _Origins:
    """Where packages came from, and where they may come from.

    Parameters
    ----------
    reading : Reading
    spellings : Spellings
    asked : sequence of str
    told : bool
        Whether the user has named channels: then they stand for all others.
    """

    def __init__(self, reading: Reading, spellings: Spellings, asked: Sequence[str], *, told: bool) -> None:
        self.told, self._file = told, reading.conda is not None
        named = reading.conda.contents.channels if reading.conda else ()
        self._named = {one for name in named for one in spellings.meant(name, asked)}
        self._of = {one.name: _origin(one) for one in reading.snapshot.conda}
        meant = {origin: spellings.meant(origin, asked) for origin in set(self._of.values()) if origin}
        self.homes = {name: meant[origin] for name, origin in self._of.items() if meant.get(origin)}

    def without_list(self, channel: str, error: FetchError) -> Problem:
        """What there is to say of a channel that has no list of packages.

        Raises
        ------
        FetchError
            It is none that packages alone name.
        """
        names = [name for name, own in self.homes.items() if channel in map(place_of, own)]
        if not names or self.told or channel in map(place_of, self._named):
            raise error
        return Problem(
            code="channel-without-list",
            subject=names[0],
            message=f"{channel} has no list of packages (repodata.json), so nothing can be had from there: "
            f"{_shown(names)}. Name the channels to take everything from: --channel.",
            severity=Severity.ERROR,
        )

    def from_elsewhere(self, planned: CondaPlan) -> Iterator[Problem]:
        """What the nodes get from another channel than the client did; of files that do not say where anything comes
        from, and of channels that the user has replaced by others, that is expected.
        """
        moved: dict[tuple[str, str], list[str]] = {}
        for one in planned.decisions:
            origin, own = self._of.get(one.name), self.homes.get(one.name, ())
            if origin is None or not one.channel or one.channel in map(place_of, own):
                continue
            if own or not (self.told or (self._file and not origin)):
                moved.setdefault((origin, one.channel), []).append(one.name)
        for (origin, channel), names in moved.items():
            yield Problem(
                code="channel-moved",
                subject=names[0],
                message=f"{_shown(names)} came from {origin or 'a channel that nobody knows'}; the nodes get what "
                f"{channel} calls so, which may be something else.",
            )


def _shown(names: Sequence[str]) -> str:
    return listed(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _time(text: str) -> datetime | None:
    """A date or a time (RFC 3339); without a zone it is UTC.

    Raises
    ------
    UsageError
        It is neither.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"{text!r} is no date.", todo="Write one like 2026-01-31.") from None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
