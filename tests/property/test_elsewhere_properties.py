"""What holds for every plan for another platform, whatever is installed and whatever the index has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from likewise.errors import PlanError
from likewise.model.plan import Action, Level, Plan
from likewise.model.snapshot import Distribution, Snapshot
from likewise.planner.tables import critical_distributions
from support.indexes import offer, serve_index
from support.plans import LINUX_TAG, Asked, installed, plan_with, pure, snapshot_of

NAMES = ("msgpack", "tornado", "alpha", "beta", "gamma")
OFFERED = ("1.0.0", "1.0.2", "1.0.4", "1.1.0", "2.0.0")
INSTALLED = (*OFFERED, "1.0.1", "1.0.3", "1.0.5", "1.1", "3.0.0")
REQUIRES = {
    ("alpha", "1.0.2"): ("beta>=1.0.2",),
    ("alpha", "1.0.4"): ("beta>=1.0.4", "msgpack<2"),
    ("beta", "1.0.4"): ("gamma>=1.0.2", "new"),
    ("gamma", "1.1.0"): ("tornado>=1.1",),
    ("tornado", "2.0.0"): ("alpha<2",),
}


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """uv, asking an index with several versions of a few names that require each other."""
    root = tmp_path_factory.mktemp("elsewhere")
    for name, version in itertools.product(NAMES, OFFERED):
        offer(root / "offered", name, version, tag=LINUX_TAG, requires=REQUIRES.get((name, version), ()))
    offer(root / "offered", "new", "0.1.0")
    with serve_index(root / "offered") as index:
        yield Asked(root, index.url)


@st.composite
def distributions(draw: st.DrawFn) -> tuple[Distribution, ...]:
    """Some of `NAMES`, mostly at versions that exist, some pure, with what they require known or not."""
    told = draw(st.booleans())
    found = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)):
        version = draw(st.sampled_from(INSTALLED))
        requires = REQUIRES.get((name, version), ()) if told else ()
        make = pure if draw(st.integers(0, 3)) == 0 else installed
        found.append(make(name, version, *requires))
    return tuple(found)


@given(found=distributions())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_critical_is_exact_or_refused_and_nothing_moves_too_far(
    resolver: Asked, found: tuple[Distribution, ...]
) -> None:
    """Critical ones stay exact, others within their level, everything fetched has its file, or there is no plan."""
    snapshot = snapshot_of(*found)
    try:
        plan = plan_with(resolver, snapshot)
    except PlanError as error:
        assert error.what
        assert error.todo
        return
    _check(plan, snapshot)


def _check(plan: Plan, snapshot: Snapshot) -> None:
    critical = critical_distributions()
    decided = {decision.name: decision for decision in plan.decisions}
    for d in snapshot.distributions:
        decision = decided.pop(d.name)
        if d.name in critical:
            assert Version(decision.version) == Version(d.version)
            assert decision.installed == ""
            assert decision.action in (Action.COPY, Action.FETCH)
        if decision.installed:
            assert decision.level is Level.MINOR
            assert decision.version.split(".")[:2] == d.version.split(".")[:2]
            assert decision.reason
        if decision.action is Action.DROP:
            assert d.name in {problem.subject for problem in plan.problems}
    assert all(one.new for one in decided.values())
    for decision in plan.decisions:
        if decision.action is Action.FETCH:
            assert decision.file is not None
            assert decision.file.filename.startswith(f"{decision.name}-{decision.version}-")
