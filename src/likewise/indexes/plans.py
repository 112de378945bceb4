"""What indexes add to a plan: who offers which file, and why one of them could not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from likewise.errors import LikewiseError
from likewise.indexes.http import Trouble
from likewise.indexes.pages import project_page
from likewise.indexes.urls import realm
from likewise.indexes.values import Index, Indexes
from likewise.model.plan import Decision, Plan
from likewise.model.snapshot import Problem, Severity

PATIENCE = 10.0
"""Seconds that an index has to answer when it is asked what is wrong with it."""

ASKED = 5
"""Distributions about which indexes are asked again: one that fails mostly fails for all."""

FAILED = "index-failed"
"""The code of the problem that an index gave no answer."""

_ABSENT = "not-on-target"
"""The code of the problem that no index has a distribution."""


def settle(plan: Plan, indexes: Indexes) -> Plan:
    """`plan` as it may be stored and shown: no URL has a token, each file names its index, indexes' problems are told.

    To a resolver an index that refuses, or that shows a page for signing in, looks much like one that doesn't have the
    distribution. So indexes are asked once more about what was found nowhere.

    Parameters
    ----------
    plan : Plan
    indexes : Indexes
        Those that it was made with.
    """
    assigned = {name: index for name, (index, _) in indexes.assigned(plan.target).items()}
    absent = [problem.subject for problem in plan.problems if problem.code == _ABSENT]
    failed = {
        problem.subject: problem
        for name in absent[:ASKED]
        for problem in examine(indexes, name, assigned.get(name, ""))
    }
    problems = [_concealed(problem, indexes) for problem in plan.problems]
    return msgspec.structs.replace(
        plan,
        decisions=tuple(_named(decision, indexes) for decision in plan.decisions),
        problems=(*problems, *indexes.problems, *failed.values()),
    )


@contextmanager
def concealing(indexes: Indexes) -> Iterator[None]:
    """Errors that leave it have none of the credentials that `indexes` know, whoever's words they repeat."""
    try:
        yield
    except LikewiseError as error:
        raise _retold(error, indexes) from None


def _retold(error: LikewiseError, indexes: Indexes) -> LikewiseError:
    return type(error)(
        indexes.conceal(error.what),
        where=indexes.conceal(error.where),
        todo=indexes.conceal(error.todo),
        details=_without_secrets(msgspec.to_builtins(error.details), indexes),
    )


def _without_secrets(value: Any, indexes: Indexes) -> Any:
    """`value`, as JSON has it, with all of its texts concealed; numbers stay, whatever a secret is."""
    if isinstance(value, str):
        return indexes.conceal(value)
    if isinstance(value, dict):
        return {indexes.conceal(str(key)): _without_secrets(one, indexes) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_secrets(one, indexes) for one in value]
    return value


def examine(indexes: Indexes, name: str, assigned: str = "", *, timeout: float = PATIENCE) -> tuple[Problem, ...]:
    """Why the indexes that are asked about `name` gave no answer; nothing when all of them did.

    They are asked in their order, up to the first one that has it or that fails.

    Parameters
    ----------
    indexes : Indexes
    name : str
        A distribution's name.
    assigned : str
        The name of the one index that it comes from, "" where all are asked.
    timeout : float, default 10
        Seconds without a sign of life.
    """
    for index, url in indexes.true_pages(assigned):
        if realm(url.reveal())[0] not in ("http", "https") or (index in indexes.explicit and not assigned):
            continue
        try:
            if project_page(url, name, indexes, timeout=timeout):
                return ()
            return (_failed(index, name, "it answers with a page that lists no file, perhaps one for signing in"),)
        except Trouble as trouble:
            if trouble.status == 404:
                continue
            where = f"; looked for one in: {indexes.why_no_credential(url.reveal())}" if trouble.status == 401 else ""
            return (_failed(index, name, f"{trouble.why}{where}"),)
    return ()


def _failed(index: Index, name: str, why: str) -> Problem:
    return Problem(
        code=FAILED,
        subject=index.name,
        message=(
            f"{index.url} ({index.where}) was asked about {name}: {why}. No later index was asked, since it may be the "
            "one whose name that is."
        ),
        severity=Severity.WARNING,
    )


def _named(decision: Decision, indexes: Indexes) -> Decision:
    return msgspec.structs.replace(decision, file=indexes.named(decision.file)) if decision.file else decision


def _concealed(problem: Problem, indexes: Indexes) -> Problem:
    return msgspec.structs.replace(problem, message=indexes.conceal(problem.message))
