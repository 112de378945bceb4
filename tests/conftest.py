"""Fixtures shared by all tests: every cache and HOME lie in a temporary folder of the test run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for `support`

from support.conda_channel import conda_channel, conda_prefix  # noqa: F401 - likewise
from support.testbed import fake_hosts  # noqa: F401 - likewise
from support.w160 import w160_python  # noqa: F401 - a fixture of the whole suite

# Every run of the suite tries the same examples, so what fails comes of what was changed. `make fuzz` tries others.
settings.register_profile("same", derandomize=True)
settings.register_profile("others", print_blob=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the caches of the person who runs it."""
    home = tmp_path_factory.mktemp("likewise-cache")
    monkeypatch.setenv("LIKEWISE_CACHE", str(home))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    return home


_setups: list[pytest.FixtureRequest] = []  # the fixtures that are being set up, the innermost last


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """See `tmp_path_factory`."""
    _setups.append(request)
    try:
        return (yield)
    finally:
        _setups.pop()


@pytest.fixture(scope="session")
def tmp_path_factory(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    """pytest's own, but the folders that a fixture makes go with it, not with the whole run: they are large.

    Those that lived while a test failed stay, as those of `tmp_path` do.
    """
    make = tmp_path_factory.mktemp

    def mktemp(basename: str, numbered: bool = True) -> Path:
        folder = make(basename, numbered)
        if _setups and _setups[-1].fixturename != "tmp_path":  # which has a rule of its own, in pyproject.toml
            session = _setups[-1].session
            _setups[-1].addfinalizer(partial(_remove, folder, session, session.testsfailed))
        return folder

    tmp_path_factory.mktemp = mktemp  # type: ignore[method-assign]
    return tmp_path_factory


def _remove(folder: Path, session: pytest.Session, failures: int) -> None:
    mounts = Path("/proc/self/mounts")
    held = mounts.exists() and f" {folder}" in mounts.read_text()  # never through a mount
    if session.testsfailed == failures and not held:
        shutil.rmtree(folder, ignore_errors=True)


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
