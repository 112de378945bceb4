"""Whom a plan asks, and what is remembered of it: the indexes of this user, uv, the answers of former plans."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import msgspec

from likewise.errors import PlanError
from likewise.indexes import Indexes, find_indexes
from likewise.indexes.plans import FAILED, concealing, examine, settle
from likewise.indexes.secret import Secret
from likewise.model.plan import Plan
from likewise.model.snapshot import Problem, Severity
from likewise.model.target import Target
from likewise.planner.resolver import Resolver
from likewise.resolution.remembered import Remembering
from likewise.resolution.uv import UvResolver
from likewise.settings import Settings
from likewise.store.local import LocalStore


def own_indexes(*, folder: Path, python: str, requirements: Iterable[Path | Secret] = ()) -> Indexes:
    """The indexes of this user, in `folder`; see `likewise.indexes.find.find_indexes`."""
    return find_indexes(
        environ=os.environ, home=Path.home(), folder=folder, python=python, requirements=tuple(requirements)
    )


class Asking:
    """Makes plans with what indexes say.

    What led to a plan without an error is remembered for ``likewise.plan.remember``; what can't be had is asked for
    anew each time, since its user is about to change that.

    Parameters
    ----------
    indexes : Indexes
    target : Target
    settings : Settings
    exclude_newer : str
        As in `likewise.planning.plan_for`.
    refresh : bool, default False
        Whether nothing is remembered.
    former : Plan, optional
        For the same nodes: what it has brought in stays as it is, where it can.
    """

    def __init__(
        self,
        indexes: Indexes,
        target: Target,
        *,
        settings: Settings,
        exclude_newer: str = "",
        refresh: bool = False,
        former: Plan | None = None,
    ) -> None:
        self._indexes, self._settings, self._exclude_newer = indexes, settings, exclude_newer
        self._assigned = indexes.assigned(target)
        self._preferred = {one.name: one.version for one in former.decisions if one.new} if former else {}
        self._resolver = Remembering(
            self._uv,
            notes=LocalStore(settings.store, max_age=settings.max_age, max_size=settings.max_size),
            about=self._about(),
            max_age=0 if refresh else settings.remember.total_seconds(),
            secrets=indexes,
        )

    def plan(self, make: Callable[[Resolver], Plan]) -> Plan:
        """The plan that `make` makes with a resolver; nothing secret is in it, or in an error.

        Raises
        ------
        LikewiseError
            Of `make`.
        """
        with concealing(self._indexes):
            plan = settle(self._made(make), self._indexes)
        if since := self._resolver.since:
            return msgspec.structs.replace(plan, problems=(*plan.problems, remembered(since)))
        failed = any(one.severity is Severity.ERROR or one.code == FAILED for one in plan.problems)
        if self._settings.remember and not failed and not os.environ.get("UV_OFFLINE"):
            self._resolver.keep()
        return plan

    def _made(self, make: Callable[[Resolver], Plan]) -> Plan:
        """What `make` makes. An error about what no index has says which of them did not answer."""
        try:
            return make(self._resolver)
        except PlanError as error:
            failed = {
                problem.subject: problem.message
                for name in error.details.get("absent", ())
                for problem in examine(self._indexes, name, self._assigned.get(name, ("", ""))[0])
            }
            if not failed:
                raise
            what = " ".join([error.what, *failed.values()])
            raise PlanError(what, where=error.where, todo=error.todo, details=error.details) from error

    def _uv(self) -> Resolver:
        environ, arguments = self._indexes.for_uv()
        return UvResolver(
            environ=environ,
            arguments=arguments,
            assigned=self._assigned,
            preferred=self._preferred,
            work=self._settings.work / "resolution",
            exclude_newer=self._exclude_newer,
        )

    def _about(self) -> str:
        """All but the question that an answer depends on, without secrets."""
        one = self._indexes
        return repr(
            (
                one.order,
                one.explicit,
                sorted(one.sources.items()),
                one.find_links,
                one.strategy,
                sorted(self._preferred.items()),
                self._exclude_newer,
                version("uv"),
            )
        )


def remembered(since: float, whom: str = "indexes") -> Problem:
    """The note that nobody was asked since then (seconds since the epoch)."""
    when = datetime.fromtimestamp(since, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    message = f"They were asked at {when}, and what they said is remembered. --refresh asks them anew."
    return Problem(code="plan-remembered", subject=whom, message=message, severity=Severity.NOTE)
