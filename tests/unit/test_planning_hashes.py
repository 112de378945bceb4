"""What a requirements file's hashes allow an index to offer."""

from __future__ import annotations

import pytest

from likewise.errors import PlanError
from likewise.model.plan import Action, Decision, LockedFile, Plan
from likewise.planner.targets import parse_target
from likewise.planning import check_hashes

GOOD, BAD = "1" * 64, "2" * 64


def plan(version: str, sha256: str) -> Plan:
    """A plan that fetches x."""
    file = LockedFile(filename=f"x-{version}-py3-none-any.whl", url="https://a.example/x.whl", sha256=sha256)
    decision = Decision(name="x", version=version, action=Action.FETCH, reason="", file=file)
    return Plan(target=parse_target("linux-64", python="3.11.7"), decisions=(decision,), kit=())


@pytest.mark.parametrize("version", ["1.0", "1.0.0", "1.0+evil"])
def test_every_spelling_of_a_version_is_compared(version: str) -> None:
    """``==1.0`` is answered by 1.0.0 and by 1.0+local as well (PEP 440): their files need an allowed hash."""
    check_hashes(plan(version, GOOD), {"x": ("1.0", frozenset({GOOD}))})
    with pytest.raises(PlanError, match="not what the hashes"):
        check_hashes(plan(version, BAD), {"x": ("1.0", frozenset({GOOD}))})


def test_another_version_has_other_hashes() -> None:
    """What moved, or is the build for the nodes' accelerator, is another file, and the plan says so."""
    check_hashes(plan("1.1", BAD), {"x": ("1.0", frozenset({GOOD}))})
    check_hashes(plan("1.0+cpu", BAD), {"x": ("1.0+cu118", frozenset({GOOD}))})
