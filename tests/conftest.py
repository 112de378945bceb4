"""Fixtures shared by all tests: every cache and HOME lie in a temporary folder of the test run."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `support`

from support.testbed import fake_hosts  # noqa: F401 - likewise
from support.w160 import w160_python  # noqa: F401 - a fixture of the whole suite


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the caches of the person who runs it."""
    home = tmp_path_factory.mktemp("likewise-cache")
    monkeypatch.setenv("LIKEWISE_CACHE", str(home))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    return home


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need root are skipped by name for everyone else."""
    if os.name == "posix" and os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def _no_skips(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With LIKEWISE_NO_SKIPS (as in .ci/run) a skipped test is a failure: nothing is left out unseen."""
    if os.environ.get("LIKEWISE_NO_SKIPS") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, and LIKEWISE_NO_SKIPS is set: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """See `_no_skips`."""
    report = yield
    _no_skips(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """See `_no_skips`: a whole module may skip itself while it is collected."""
    report = yield
    _no_skips(report)
    return report
