"""Plans with indexes and distributions as they should not be: real questions to uv about real servers on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.errors import PlanError
from likewise.model.plan import Action
from support.indexes import Manner, Offered, offer, serve_index
from support.plans import LINUX_TAG, Asked, decided, installed, plan_with, pure, said, snapshot_of


class Renamed(Manner):
    """An index that answers to the old name of a project with its new files."""

    def projects(self) -> dict[str, list[Offered]]:
        """Normalized name → files."""
        found = super().projects()
        return {**found, "old-name": found["new-name"]}


def test_a_renamed_distribution_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    """Files of another name are no files of this one, wherever they are listed; the rest of the plan stands."""
    for name in ("new-name", "fine"):
        offer(tmp_path / "offered", name, "1.2.3", tag=LINUX_TAG)
    with serve_index(tmp_path / "offered") as index:
        index.manner = Renamed(folder=tmp_path / "offered")
        snapshot = snapshot_of(installed("old-name", "1.2.3"), installed("fine", "1.2.3"))
        plan = plan_with(Asked(tmp_path, index.url), snapshot)
    assert decided(plan, "old-name").action is Action.DROP
    assert decided(plan, "fine").file is not None
    (message,) = said(plan, "not-on-target")
    assert message.startswith("No index has any version for linux-x86_64.") and "--ignore old-name" in message


def test_an_index_that_has_nothing(tmp_path: Path) -> None:
    """404 is no failure: nobody has it."""
    with serve_index(tmp_path / "nothing") as index:
        plan = plan_with(Asked(tmp_path, index.url), snapshot_of(installed("fast", "1.2.3")))
    assert decided(plan, "fast").action is Action.DROP
    assert said(plan, "not-on-target")[0].startswith("No index has any version for linux-x86_64.")


def test_an_index_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv's own limit counts, and nobody asks again and again."""
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "1")
    offer(tmp_path / "offered", "fast", "1.2.3", tag=LINUX_TAG)
    with serve_index(tmp_path / "offered", fault="hang") as index:
        resolver = Asked(tmp_path, index.url)
        with pytest.raises(PlanError, match="could not choose versions"):
            plan_with(resolver, snapshot_of(installed("fast", "1.2.3")))
    assert len(resolver.questions) == 1


@pytest.mark.parametrize(("until", "there"), [("", True), ("2999-12-31", True), ("2026-01-01", False)])
def test_an_index_whose_clock_is_off(tmp_path: Path, until: str, there: bool) -> None:
    """What was uploaded in a future of its own is there, unless somebody asks for an earlier day."""
    offer(tmp_path / "offered", "fast", "1.2.3", tag=LINUX_TAG)
    with serve_index(tmp_path / "offered", upload_time="2999-01-01T00:00:00Z") as index:
        plan = plan_with(Asked(tmp_path, index.url, exclude_newer=until), snapshot_of(installed("fast", "1.2.3")))
    assert (decided(plan, "fast").action is Action.FETCH) == there


def test_extras_that_require_each_other(tmp_path: Path) -> None:
    """In a circle, as many have an extra for all of their extras; what they bring comes once."""
    circle = ["loop[one]; extra == 'all'", "loop[all]; extra == 'one'", "more; extra == 'one'"]
    offer(tmp_path / "offered", "loop", "1.0.0", tag=LINUX_TAG, requires=circle, extras=("all", "one"))
    offer(tmp_path / "offered", "more", "2.0.0", tag=LINUX_TAG)
    offer(tmp_path / "offered", "fast", "1.2.3", tag=LINUX_TAG, requires=["loop[all]"])
    with serve_index(tmp_path / "offered") as index:
        resolver = Asked(tmp_path, index.url)
        wished = plan_with(resolver, snapshot_of(pure("other", "1")), extras=("loop[one]",))
        required = plan_with(resolver, snapshot_of(installed("fast", "1.2.3", "loop[all]"), installed("loop", "1.0.0")))
    for plan in (wished, required):
        assert (decided(plan, "loop").version, decided(plan, "more").version) == ("1.0.0", "2.0.0")
        assert decided(plan, "more").new


def test_names_in_other_spellings_are_one(tmp_path: Path) -> None:
    """PEP 503: an index, a lock and a requirement may each write it in another way."""
    offer(tmp_path / "offered", "Fast.Thing", "1.2.3", tag=LINUX_TAG)
    offer(tmp_path / "offered", "user", "1.0.0", tag=LINUX_TAG, requires=["FAST_thing>=1"])
    with serve_index(tmp_path / "offered") as index:
        snapshot = snapshot_of(installed("fast-thing", "1.2.3"), installed("user", "1.0.0", "FAST_thing>=1"))
        plan = plan_with(Asked(tmp_path, index.url), snapshot)
    assert decided(plan, "fast-thing").version == "1.2.3"
    assert [d.name for d in plan.decisions if d.new] == []
