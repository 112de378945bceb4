"""Which channel each conda package is taken from, for nodes of another platform: its own, whatever others call so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from likewise.conda_planning import plan_packages
from likewise.errors import FetchError, PlanError, UsageError
from likewise.formats.read import read
from likewise.model.conda import CondaPackage
from likewise.model.plan import Action, CondaDecision
from likewise.model.snapshot import PrefixKind, Severity, Snapshot, described_interpreter
from likewise.planner.conda import CondaPlan
from likewise.planner.options import PlanOptions
from likewise.planner.targets import parse_target
from likewise.settings import resolve_settings
from support.conda_repodata import Record, package, write_channel
from support.conda_server import serve_channel

pytest.importorskip("rattler")

LINUX = parse_target("linux-64", python="3.11.0")
PUBLIC = [package("python", "3.11.9"), package("openssl", "3.3.1"), package("zlib", "1.3"), package("utils", "1.0")]
OWN = [package("utils", "3.0"), package("utils", "1.0", build="h7_7"), package("other", "1.0")]


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration but that in `tmp_path`."""
    for name in ("CONDARC", "MAMBARC", "CONDA_PREFIX", "CONDA_ROOT", "MAMBA_ROOT_PREFIX", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LIKEWISE_CACHE", str(tmp_path / "cache"))
    yield


@pytest.fixture
def forge(tmp_path: Path) -> str:
    """A public channel, which has another ``utils``."""
    return write_channel(tmp_path / "forge", {"linux-64": PUBLIC, "osx-arm64": PUBLIC}).as_uri()


@pytest.fixture
def corp(tmp_path: Path) -> str:
    """A company's channel."""
    return write_channel(tmp_path / "corp", {"linux-64": OWN, "osx-arm64": OWN}).as_uri()


def of(channel: str, *names: str, requested: str = "", requires: tuple[str, ...] = ()) -> list[CondaPackage]:
    """Packages that a Mac has from there: ``name-version``, or ``name-version-build``."""
    return [
        CondaPackage(
            name=name,
            version=version,
            build=build or "h0_0",
            subdir="osx-arm64",
            channel=channel,
            requested=(requested,) if requested else (),
            requires=requires,
        )
        for name, version, build in ((*one.split("-"), "")[:3] for one in names)
    ]


def planned(packages: Sequence[CondaPackage], *channels: str, extra: str = "") -> CondaPlan:
    """What nodes with Linux get of a Mac's packages."""
    interpreter = described_interpreter(parse_target("osx-arm64", python="3.11.0"), base_kind=PrefixKind.CONDA)
    snapshot = Snapshot(interpreter=interpreter, distributions=(), code=(), conda=tuple(packages))
    options = PlanOptions(conda_extras=(extra,) if extra else ())
    return plan_packages(snapshot, LINUX, options, settings=resolve_settings(), channels=channels)[0]


def base(forge: str) -> list[CondaPackage]:
    """Most packages come from there."""
    return of(forge, "python-3.11.9", "openssl-3.3.1", "zlib-1.3")


def about(plan: CondaPlan, name: str) -> CondaDecision:
    """The decision about a package."""
    return next(one for one in plan.decisions if one.name == name)


@pytest.mark.parametrize("spec", ["", "{}::utils", "{}/osx-arm64::utils==3.0=h0_0", "utils[channel='{}']"])
def test_a_package_comes_from_its_own_channel(forge: str, corp: str, spec: str) -> None:
    """Whatever a channel with more packages calls so, in whatever version, and however it was asked for."""
    plan = planned([*base(forge), *of(corp, "utils-3.0", requested=spec.format(corp))])
    assert (about(plan, "utils").version, about(plan, "utils").channel) == ("3.0", corp)
    assert about(plan, "openssl").channel == forge
    assert plan.problems == ()


def test_the_same_version_is_not_the_same_package(forge: str, corp: str) -> None:
    """Both channels have 1.0."""
    plan = planned([*base(forge), *of(corp, "utils-1.0-h7_7")])
    assert (about(plan, "utils").build, about(plan, "utils").channel) == ("h7_7", corp)


def test_what_only_comes_along_comes_from_its_own_channel(tmp_path: Path, corp: str) -> None:
    """utils is required by what another channel has, where there is another one."""
    public = [*PUBLIC, package("app", "1.0", "utils")]
    forge = write_channel(tmp_path / "forge", {"linux-64": public, "osx-arm64": public}).as_uri()
    plan = planned([*base(forge), *of(forge, "app-1.0", requires=("utils",)), *of(corp, "utils-1.0-h7_7")])
    assert about(plan, "utils").channel == corp


def test_what_its_channel_lacks_comes_from_no_other(tmp_path: Path, forge: str) -> None:
    """It is left out and named, with the channel that has something of that name; not when channels are named."""
    corp = write_channel(tmp_path / "corp", {"osx-arm64": OWN, "linux-64": [package("other", "1.0")]}).as_uri()
    packages = [*base(forge), *of(corp, "utils-3.0", requested="utils"), *of(corp, "other-1.0")]
    plan = planned(packages)
    assert about(plan, "utils").action is Action.DROP
    [problem] = plan.problems
    assert (problem.code, problem.subject, problem.severity) == ("not-on-target", "utils", Severity.ERROR)
    assert forge in problem.message
    told = planned(packages, forge, corp)
    assert (about(told, "utils").version, about(told, "utils").channel) == ("1.0", forge)
    assert {one.code for one in told.problems} == {"channel-moved", "moved-far"}
    assert about(told, "other").channel == corp


@pytest.mark.parametrize("linux", [OWN, []], ids=["has", "lacks"])
def test_a_channel_that_is_asked_for_by_name(tmp_path: Path, forge: str, linux: list[Record]) -> None:
    """Then the package comes from there, whether its own channel has it or not; that is said all the same."""
    corp = write_channel(tmp_path / "corp", {"osx-arm64": OWN, "linux-64": linux}).as_uri()
    plan = planned([*base(forge), *of(corp, "utils-3.0")], extra=f"{forge}::utils")
    assert about(plan, "utils").channel == forge
    assert "channel-moved" in {one.code for one in plan.problems if one.subject == "utils"}


def test_what_requires_a_package_does_not_get_its_namesake(tmp_path: Path) -> None:
    """app's utils is only in the company's channel for the Mac; for Linux there is one that is something else."""
    public = [*PUBLIC, package("app", "1.0", "utils")]
    forge = write_channel(tmp_path / "forge", {"linux-64": public, "osx-arm64": public}).as_uri()
    corp = write_channel(tmp_path / "corp", {"osx-arm64": OWN}).as_uri()
    plan = planned([*base(forge), *of(forge, "app-1.0", requires=("utils",)), *of(corp, "utils-3.0")])
    assert (about(plan, "app").action, about(plan, "utils").action) == (Action.DROP, Action.DROP)
    assert "utils is there in another channel than its own alone" in about(plan, "app").reason


def test_python_of_another_channel_is_refused(tmp_path: Path, forge: str) -> None:
    """The error names the channel that has one."""
    corp = write_channel(tmp_path / "corp", {"osx-arm64": OWN}).as_uri()
    with pytest.raises(PlanError, match=f"python 3.11.9 \\(there is none where it is from, only in {forge}\\)"):
        planned([*of(forge, "openssl-3.3.1", "zlib-1.3"), *of(corp, "python-3.11.9")])


def test_channels_that_are_named_stand_for_all_others(forge: str) -> None:
    """A copy of a channel, whose URL no package has; nothing has to be said of that. Nor of what names no channel."""
    plan = planned([*of("https://channels.invalid/forge", "python-3.11.9", "utils-1.0"), *of("a:b", "zlib-1.3")], forge)
    assert about(plan, "utils").channel == forge
    assert plan.problems == ()


def test_a_folder_that_a_package_was_installed_from(tmp_path: Path, forge: str) -> None:
    """It is no channel: what the channels call so is taken, and that is said; the rest is planned."""
    (tmp_path / "Downloads").mkdir()
    folder = (tmp_path / "Downloads").as_uri()
    plan = planned([*base(forge), *of(folder, "utils-1.0", "foo-1.0")])
    assert (about(plan, "utils").channel, about(plan, "foo").action) == (forge, Action.DROP)
    assert {(one.code, one.subject) for one in plan.problems} == {("channel-moved", "utils"), ("not-on-target", "foo")}
    assert folder in next(one.message for one in plan.problems if one.code == "channel-moved")
    with pytest.raises(UsageError, match="which conda channels") as caught:
        planned(of(folder, "python-3.11.9"))
    assert "--channel" in caught.value.todo


def test_a_package_of_no_known_channel(forge: str) -> None:
    """The same."""
    plan = planned([*base(forge), *of("", "utils-1.0")])
    assert about(plan, "utils").channel == forge
    assert [(one.code, one.subject) for one in plan.problems] == [("channel-moved", "utils")]


def test_a_site_without_a_list(tmp_path: Path, forge: str) -> None:
    """A server that packages were installed from by URL may be a channel or not: what is from there is named, and
    comes from nowhere else; the rest is planned. One that is asked for is an error.
    """
    with serve_channel(tmp_path / "corp", status=404) as server:
        packages = [*base(forge), *of(server.plain_url, "utils-1.0")]
        plan = planned(packages)
        with pytest.raises(FetchError, match="404"):
            planned(packages, forge, server.plain_url)
    assert about(plan, "utils").action is Action.DROP
    assert about(plan, "zlib").channel == forge
    assert ("channel-without-list", "utils") in {(one.code, one.subject) for one in plan.problems}


def test_what_conda_is_configured_to_ask(tmp_path: Path, forge: str) -> None:
    """Where nothing says where a package came from; that is said, too."""
    (tmp_path / ".condarc").write_text(f"channels: [{forge}]\n")
    plan = planned(of("", "python-3.11.9"))
    assert about(plan, "python").channel == forge
    assert [one.code for one in plan.problems] == ["channel-moved"]


def test_channels_in_the_order_that_conda_asks_them(tmp_path: Path, forge: str, corp: str) -> None:
    """What the target alone needs is of the first one that has it."""
    more = [package("app", "1.0", "utils")]
    public = write_channel(tmp_path / "more", {"linux-64": more, "osx-arm64": [package("app", "1.0")]}).as_uri()
    packages = [*base(forge), *of(public, "app-1.0"), *of(corp, "other-1.0")]
    assert about(planned(packages), "utils").channel == forge
    (tmp_path / ".condarc").write_text(f"channels: [{corp}, {forge}]\n")
    assert about(planned(packages), "utils").channel == corp


def test_a_file_that_names_channels(tmp_path: Path, forge: str, corp: str) -> None:
    """Where it names none for a package, they are asked in order; one that only a package names is asked, too."""
    path = tmp_path / "environment.yml"
    path.write_text(
        f"channels: [{forge}]\ndependencies: [python=3.11.9=h0_0, openssl=3.3.1=h0_0, '{corp}::utils=3.0=h0_0']\n"
    )
    reading = read(path, client=parse_target("osx-arm64", python="3.11.0").platform, machine=LINUX)
    plan, where = plan_packages(reading, LINUX, PlanOptions(), settings=resolve_settings())
    assert where.names == (forge, corp)
    assert about(plan, "utils").channel == corp
    assert plan.problems == ()
