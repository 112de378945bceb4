"""Snapshots of well-known stacks on laptops, planned for Linux against a registry as it was on one day."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from likewise.model.plan import Action
from likewise.planner.tables import critical_distributions
from likewise.sync import plan, read_source

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from realenvs import NEWEST, SNAPSHOTS, Row, count, line_of

pytestmark = pytest.mark.registry


@pytest.mark.parametrize("target", ["linux-64", "linux-aarch64"])
@pytest.mark.parametrize("name", ["pydata-macos-arm64", "notebook-windows"])
def test_a_laptop_plans_for_linux(name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails, what is critical is exact, at least 95 % is, and all that is fetched has a URL and a sha256."""
    monkeypatch.setenv("LIKEWISE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.chdir(tmp_path)
    reading = read_source(SNAPSHOTS / f"{name}.txt")
    assert reading.snapshot.interpreter.platform.os in name
    chosen = plan(reading, target=target, exclude_newer=NEWEST)
    row = Row(name=name, distributions=len(reading.snapshot.distributions))
    count(row, reading.snapshot, chosen)
    assert not row.failed
    assert row.exact + len(row.moved) + len(row.dropped) == row.distributions
    assert row.exact >= 0.95 * (row.exact + len(row.moved))
    assert f"| {row.exact} of " in line_of(row)
    for decision in chosen.decisions:
        if decision.action is not Action.DROP:
            assert decision.file is not None and len(decision.file.sha256) == 64
            assert decision.name not in critical_distributions() or not decision.installed
    dropped = {decision.name for decision in chosen.decisions if decision.action is Action.DROP}
    assert dropped == ({"pywin32", "pywinpty"} if name == "notebook-windows" else set())
