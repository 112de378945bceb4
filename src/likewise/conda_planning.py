"""The plan for a client with conda packages and nodes of another platform: conda's first, then what pip put on top."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from likewise.errors import UsageError
from likewise.formats.conda_values import channels_of
from likewise.formats.read import Reading
from likewise.indexes.conda_channels import Channels, find_channels
from likewise.model.conda import CondaPackage
from likewise.model.snapshot import OriginKind, Snapshot
from likewise.model.subdirs import subdir_of
from likewise.model.target import Target
from likewise.planner.conda import CondaPlan, plan_conda
from likewise.planner.conda_pins import virtual_packages
from likewise.planner.options import PlanOptions
from likewise.resolution.rattler import RattlerSolver
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
        Channels in place of those that the packages come from; a URL may have credentials. Default: those.
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
    where = find_channels(
        channels or _own_channels(reading),
        environ=os.environ,
        home=Path.home(),
        python=snapshot.interpreter.executable if reading.here else sys.executable,
        secrets=reading.conda.secrets if reading.conda else {},
    )
    check_named(where)
    packages = [_anywhere(one) for one in snapshot.conda] if channels else snapshot.conda
    solver = solver_for(target, where, virtual_packages(target), settings=settings, exclude_newer=exclude_newer)
    planned = plan_conda(
        packages,
        target,
        options,
        solver,
        client=snapshot.interpreter.platform,
        extras=options.conda_extras,
        versions={d.name: d.version for d in snapshot.distributions if d.origin.kind is OriginKind.CONDA},
    )
    return planned, where


def check_named(where: Channels) -> None:
    """Make sure that there is a channel to ask.

    Raises
    ------
    UsageError
    """
    if not where.names:
        raise UsageError(
            "Nothing says which conda channels these packages come from.", todo="Name them: --channel conda-forge."
        )


def solver_for(
    target: Target, where: Channels, virtual: Sequence[str], *, settings: Settings, exclude_newer: str
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
    )


def _own_channels(reading: Reading) -> tuple[str, ...]:
    """The channels that a file names, or that packages came from."""
    named = reading.conda.contents.channels if reading.conda else ()
    return named or channels_of(reading.snapshot.conda)


def _anywhere(package: CondaPackage) -> CondaPackage:
    """A package whose match specs name no channel: others are asked than those that it came from."""
    if not any("::" in spec for spec in package.requested):
        return package
    return msgspec.structs.replace(package, requested=tuple(spec.rpartition("::")[2] for spec in package.requested))


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
