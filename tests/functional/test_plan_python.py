"""Which Python the nodes get, as a plan for another platform says it: uv is asked, and uses no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from likewise.errors import PlanError, UnsupportedError
from likewise.formats.read import Reading
from likewise.model.plan import Plan
from likewise.model.snapshot import Severity
from likewise.model.target import Platform
from likewise.planner.options import PlanOptions
from likewise.planning import plan_towards, read_source
from likewise.settings import Settings
from support.indexes import IndexServer, offer, serve_index
from support.listings import inspected
from support.plans import LINUX_TAG, installed, said, snapshot_of
from support.standalone import Site, serve_site


@pytest.fixture
def index(tmp_path: Path) -> Iterator[IndexServer]:
    """An index with one wheel."""
    offer(tmp_path / "offered", "fast", "1.2.3", tag=LINUX_TAG)
    with serve_index(tmp_path / "offered") as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, index: IndexServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Where uv gets its Pythons, of which there are two; the index is all else that is configured."""
    (tmp_path / "site").mkdir()
    settings = {"UV_DEFAULT_INDEX": index.url, "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}
    with serve_site(tmp_path / "site") as site:
        site.offer("3.11.5", "x86_64", b"")
        site.offer("3.11.8", "x86_64", b"")
        for name, value in {**site.environ(), **settings, "UV_CACHE_DIR": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        yield site


def client(**interpreter: Any) -> Reading:
    """A Mac that is not here, with Python 3.11.7."""
    snapshot = snapshot_of(installed("fast", "1.2.3"), kit=False)
    own = msgspec.structs.replace(snapshot.interpreter, **interpreter)
    return Reading(msgspec.structs.replace(snapshot, interpreter=own), here=False)


def towards(found: Reading, *, target: str = "linux-64", fetched: bool = False, **options: Any) -> Plan:
    """The plan for `target`."""
    settings = Settings(cache=Path.cwd() / "likewise")
    return plan_towards(found, target, PlanOptions(**options), settings=settings, fetched=fetched)


def test_a_plan_has_the_python_that_a_launch_would_choose(site: Site) -> None:
    """The nearest patch, with the reason; nothing is downloaded."""
    plan = towards(client())
    assert plan.target.python == "3.11.8"
    assert said(plan, "python-moved") == [
        "The nodes get Python 3.11.8: uv offers no 3.11.7 for linux-x86_64; 3.11.8 is the nearest 3.11."
    ]
    assert site.asked == []


def test_the_very_version_is_no_news(site: Site) -> None:
    """Where uv offers the client's version, there is nothing to say."""
    site.offer("3.11.7", "x86_64", b"")
    plan = towards(client())
    assert plan.target.python == "3.11.7"
    assert not [problem for problem in plan.problems if problem.subject == "python"]


def test_what_a_launch_would_refuse_the_dry_run_refuses(site: Site) -> None:
    """With strict it is the very version; another major.minor is refused in any case."""
    with pytest.raises(PlanError, match=r"3\.11\.8 is the nearest 3\.11, and strict allows no other"):
        towards(client(), strict=True)
    with pytest.raises(PlanError, match=r"no Python 3\.12"):
        towards(client(version="3.12.1"))


@pytest.mark.parametrize(
    ("strict", "says"),
    [(False, "Python 3.11.7, or the nearest patch of 3.11 that uv offers."), (True, "3.11.7, if uv offers it: strict")],
)
def test_a_list_on_a_server_is_not_fetched(
    site: Site, monkeypatch: pytest.MonkeyPatch, strict: bool, says: str
) -> None:
    """The plan then says what is open, and nobody is asked."""
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", f"{site.url}/downloads.json")
    plan = towards(client(), strict=strict)
    (message,) = said(plan, "python-open")
    assert says in message and "when a cluster starts" in message
    assert [p.severity for p in plan.problems if p.code == "python-open"] == [Severity.NOTE]
    assert plan.target.python == "3.11.7"
    assert site.asked == []


@pytest.mark.parametrize(("target", "fetched"), [("linux-64", True), ("osx-arm64", False)])
def test_other_tools_bring_their_own_python(site: Site, index: IndexServer, target: str, fetched: bool) -> None:
    """A plan that no cluster carries out has the client's version."""
    offer(Path.cwd() / "offered", "fast", "1.2.3", tag="cp311-cp311-macosx_11_0_arm64")
    plan = towards(client(), target=target, fetched=fetched)
    assert plan.target.python == "3.11.7"
    assert not [problem for problem in plan.problems if problem.subject == "python"]


@pytest.mark.parametrize("fetched", [False, True])
@pytest.mark.parametrize(
    ("interpreter", "says"),
    [({"abiflags": "t"}, "free-threaded"), ({"implementation": "pypy"}, "pypy")],
)
def test_nothing_is_planned_for_a_python_that_the_nodes_can_not_have(
    site: Site, index: IndexServer, interpreter: dict[str, Any], says: str, fetched: bool
) -> None:
    """Wheels for the ordinary CPython would not fit; nobody is asked."""
    with pytest.raises(UnsupportedError, match=says):
        towards(client(**interpreter), fetched=fetched, strict=True)
    assert index.asked_for("fast") == 0


def test_what_is_fetched_for_the_clients_own_platform_must_fit_as_well(site: Site) -> None:
    """A free-threaded Python on Linux, of which no files are here."""
    linux = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.28")
    with pytest.raises(UnsupportedError, match="free-threaded"):
        towards(client(platform=linux, abiflags="t"))


def test_pip_inspect_says_which_python_it_is(site: Site, tmp_path: Path) -> None:
    """A report of PyPy is not taken for one of CPython."""
    path = tmp_path / "inspect.json"
    path.write_text(inspected(implementation_name="pypy", python_full_version="3.11.7"))
    reading = read_source(path, client="osx-arm64")
    with pytest.raises(UnsupportedError, match=r"pypy 3\.11\.7"):
        towards(reading)
