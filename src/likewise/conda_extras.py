"""The conda packages that only the cluster has, on nodes like the client, whose own packages stay as they are.

What was chosen is remembered as `likewise.asking` remembers what indexes say: another launch asks no channel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from likewise.asking import remembered
from likewise.conda_planning import check_named, solver_for
from likewise.errors import StoreError, UsageError
from likewise.formats.conda_values import channels_of
from likewise.indexes.conda_channels import find_channels
from likewise.indexes.conda_config import located, read_conda_config
from likewise.model.digest import digest_bytes
from likewise.model.keys import note_key
from likewise.model.origins import redact_channel
from likewise.model.plan import CondaDecision, Plan
from likewise.model.snapshot import PrefixKind, Problem, Snapshot
from likewise.model.target import Target
from likewise.planner.conda_additions import add_to_plan, asks_for_more, choose_extras, needed_by
from likewise.planner.conda_pins import virtual_packages
from likewise.planner.conda_solver import Candidate
from likewise.settings import Settings
from likewise.store.local import LocalStore

_RULES = 1
"""Of what is remembered; to be changed with what it means."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What nodes get besides the client's own packages.

    Attributes
    ----------
    extras : tuple of str
        Match specs: what was asked for.
    packages : tuple of Candidate
    channels : tuple of str
        Those that were asked, without credentials.
    virtual_packages : tuple of str
    problems : tuple of Problem
    """

    extras: tuple[str, ...]
    packages: tuple[Candidate, ...] = ()
    channels: tuple[str, ...] = ()
    virtual_packages: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def needed(self, snapshot: Snapshot) -> Mapping[str, tuple[str, ...]]:
        """See `likewise.planner.conda_additions.needed_by`."""
        return needed_by(snapshot.conda, self.extras, self.packages)

    def added(self, plan: Plan, snapshot: Snapshot) -> Plan:
        """`plan`, which is for all that the client has, with these packages."""
        plan = add_to_plan(plan, snapshot, self.extras, self.packages)
        return msgspec.structs.replace(
            plan,
            channels=self.channels,
            virtual_packages=self.virtual_packages,
            problems=(*plan.problems, *self.problems),
        )


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen at a time (seconds since the epoch); no URL in it has a credential."""

    at: float
    packages: tuple[Candidate, ...]


def choose_packages(
    snapshot: Snapshot,
    target: Target,
    extras: Sequence[str],
    *,
    settings: Settings,
    nodes: Target | None = None,
    channels: Sequence[str] = (),
    exclude_newer: str = "",
    refresh: bool = False,
    former: Plan | None = None,
) -> Chosen:
    """Choose the conda packages that `extras` bring to nodes like the client.

    Parameters
    ----------
    snapshot : Snapshot
        The client.
    target : Target
        Of its own platform and Python.
    extras : sequence of str
        Match specs.
    settings : Settings
    nodes : Target, optional
        The nodes, where somebody has said what they are. Default: the client's own virtual packages count.
    channels, exclude_newer
        As in `likewise.conda_planning.plan_packages`. A channel that an extra names is asked besides.
    refresh : bool, default False
        Whether nothing is remembered.
    former : Plan, optional
        An earlier one for the same nodes: what it has brought in stays as it is, where it can.

    Raises
    ------
    FetchError
        A channel can't be read.
    PlanError
        See `likewise.planner.conda_additions.choose_extras`.
    UnsupportedError
        py-rattler is not installed.
    UsageError
        The client is no conda prefix, or nothing says which channels to ask.
    """
    _check_client(snapshot, extras)
    if not asks_for_more(snapshot.conda, extras):
        return Chosen(extras=tuple(extras))
    extras = _located(extras)
    named = [_channel_of(text) for text in extras if "::" in text]
    where = find_channels(
        (*(channels or channels_of(snapshot.conda)), *named),
        environ=os.environ,
        home=Path.home(),
        python=snapshot.interpreter.executable,
    )
    check_named(where)
    virtual = virtual_packages(nodes) if nodes else snapshot.virtual_packages
    notes = LocalStore(settings.store, max_age=settings.max_age, max_size=settings.max_size)
    about = repr((_RULES, _known(snapshot), extras, where.names, virtual, exclude_newer))
    key = note_key("conda-extras", digest_bytes(about.encode()))
    answer = _recall(notes, key, 0 if refresh else settings.remember.total_seconds())
    noted = (remembered(answer.at, "channels"),) if answer else ()
    if answer is None:
        solver = solver_for(target, where, virtual, settings=settings, exclude_newer=exclude_newer)
        favored = tuple(_candidate(one) for one in former.conda if one.new) if former else ()
        found = choose_extras(snapshot.conda, extras, solver, channels=where.names, favored=favored)
        answer = _Answer(at=time.time(), packages=found)
        if settings.remember:
            with suppress(StoreError):  # then it is asked again
                notes.put_bytes(key, msgspec.json.encode(answer), replace=True)
    return Chosen(
        extras=extras,
        packages=answer.packages,
        channels=where.names,
        virtual_packages=virtual,
        problems=(*where.problems, *noted),
    )


def _check_client(snapshot: Snapshot, extras: Sequence[str]) -> None:
    """Make sure that the client is a conda prefix: then nodes get one.

    Raises
    ------
    UsageError
    """
    own = snapshot.interpreter
    if own.kind is PrefixKind.CONDA and snapshot.conda:
        return
    what = "a venv, though its Python is conda's" if own.base_kind is PrefixKind.CONDA else "no conda prefix"
    raise UsageError(
        f"package_sync_conda_extras ({', '.join(extras)}) goes with a conda prefix, and the client is {what}.",
        where=own.prefix,
        todo="Leave it out, or start from a conda prefix. Wheels for the cluster alone are package_sync_extras.",
    )


def _located(extras: Sequence[str]) -> tuple[str, ...]:
    """Match specs with the URLs of the channels that they name, as this user has configured them."""
    config = read_conda_config(os.environ, Path.home(), [])
    found = []
    for text in extras:
        channel, mark, rest = text.rpartition("::")
        places = located(channel, config) if mark else ()
        found.append(f"{redact_channel(places[0])}::{rest}" if len(places) == 1 else text)
    return tuple(found)


def _channel_of(spec: str) -> str:
    """The channel that a match spec names, without a subdir."""
    channel = spec.rpartition("::")[0]
    return channel.partition("/linux-")[0].removesuffix("/noarch")


def _known(snapshot: Snapshot) -> list[tuple[object, ...]]:
    """All of the client's packages that a choice depends on."""
    return [(str(one), one.channel, one.requires, one.constrains) for one in snapshot.conda]


def _recall(notes: LocalStore, key: str, max_age: float) -> _Answer | None:
    try:
        data = notes.get_bytes(key) if max_age else None
        answer = msgspec.json.decode(data, type=_Answer) if data else None
    except (StoreError, msgspec.DecodeError):
        return None
    return answer if answer and 0 <= time.time() - answer.at < max_age else None


def _candidate(one: CondaDecision) -> Candidate:
    """A package of a plan, as a channel offers it."""
    file = one.file
    return Candidate(
        name=one.name,
        version=one.version,
        build=one.build,
        build_number=one.build_number,
        channel=one.channel,
        subdir=one.subdir,
        url=file.url if file else "",
        filename=file.filename if file else "",
        sha256=file.sha256 if file else "",
        md5=one.md5,
        size=file.size if file else None,
        noarch=one.noarch,
        requires=one.requires,
        constrains=one.constrains,
    )
