"""Conda packages for another platform, chosen by py-rattler from channels that have metadata alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from likewise.errors import FetchError, PlanError, UnsupportedError, UsageError
from likewise.model.conda import CondaPackage
from likewise.model.plan import Action, CondaDecision
from likewise.model.snapshot import Severity
from likewise.model.target import Platform, Target
from likewise.planner.conda import CondaPlan, plan_conda
from likewise.planner.conda_pins import virtual_packages, without_build
from likewise.planner.options import PlanOptions
from likewise.planner.targets import parse_target
from likewise.resolution.rattler import RattlerSolver
from support.conda_repodata import package, write_channel

pytest.importorskip("rattler")

MAC = Platform(os="macos", arch="aarch64")
LINUX = parse_target("linux-64", python="3.11.0")

PYTHON = package("python", "3.11.9", "openssl >=3.2,<4.0a0", build="h1_0")
OSX = [
    package("python", "3.11.9", "openssl >=3.2,<4.0a0", build="h9_0"),
    package("openssl", "3.3.1"),
    package("numpy", "1.26.4", "python >=3.11,<3.12.0a0", "libcxx >=16"),
    package("libcxx", "16.0.6"),
    package("gdal", "3.9.1", "libproj >=9.4,<9.5.0a0"),
    package("libproj", "9.4.1"),
]


def installed(*names: str, **requested: str) -> list[CondaPackage]:
    """What a Mac has of `OSX` (all of it without `names`), and what of it was asked for with which spec."""
    return [
        CondaPackage(
            name=one["name"],
            version=one["version"],
            build=one["build"],
            subdir="osx-arm64",
            requested=(requested[one["name"]],) if one["name"] in requested else (),
        )
        for one in OSX
        if not names or one["name"] in names
    ]


def planned(
    tmp_path: Path,
    packages: Iterable[CondaPackage],
    linux: Iterable[dict[str, Any]],
    *,
    noarch: Iterable[dict[str, Any]] = (),
    target: Target = LINUX,
    extras: tuple[str, ...] = (),
    **options: Any,
) -> CondaPlan:
    """The plan for a Mac's packages, with these ones offered for Linux."""
    channel = write_channel(tmp_path / "channel", {"linux-64": linux, "osx-arm64": OSX, "noarch": noarch})
    solver = RattlerSolver([channel.as_uri()], "linux-64", virtual_packages(target), cache=tmp_path / "cache")
    return plan_conda(list(packages), target, PlanOptions(**options), solver, client=MAC, extras=extras)


def about(plan: CondaPlan, name: str) -> CondaDecision:
    """The decision about a package."""
    return next(one for one in plan.decisions if one.name == name)


LINUX_PACKAGES = [
    PYTHON,
    package("openssl", "3.3.1"),
    package("openssl", "3.3.2"),
    package("numpy", "1.26.4", "python >=3.11,<3.12.0a0", "libgcc >=13"),
    package("libgcc", "13.2.0"),
    package("gdal", "3.9.1", "libproj >=9.4,<9.5.0a0"),
    package("libproj", "9.4.1"),
]


def test_what_the_target_has_is_the_same(tmp_path: Path) -> None:
    """Every version stays though there are newer ones; what the target alone needs comes in, the rest vanishes."""
    plan = planned(tmp_path, installed(), LINUX_PACKAGES)
    kept = {d.name: d.version for d in plan.decisions if d.action is Action.FETCH and not d.new}
    assert kept == {"python": "3.11.9", "openssl": "3.3.1", "numpy": "1.26.4", "gdal": "3.9.1", "libproj": "9.4.1"}
    assert not any(d.installed for d in plan.decisions)
    assert (about(plan, "libcxx").action, about(plan, "libgcc").new) == (Action.DROP, True)
    assert about(plan, "libgcc").reason == "required on linux-64 by numpy"
    assert plan.problems == ()
    assert plan.python == "3.11.9"
    file = about(plan, "numpy").file
    assert file is not None
    assert file.url.endswith("/linux-64/numpy-1.26.4-h0_0.conda")
    assert len(file.sha256) == 64


def test_what_conda_brings_is_known_by_the_names_of_distributions(tmp_path: Path) -> None:
    """Packages that need Python are distributions, by their own name or the one of the table; libraries are none."""
    torch = package("pytorch", "2.3.1", "python >=3.11,<3.12.0a0")
    packages = [*installed(), CondaPackage(name="pytorch", version="2.3.1")]
    assert planned(tmp_path, packages, [*LINUX_PACKAGES, torch]).provided == {"numpy": "1.26.4", "torch": "2.3.1"}


def test_the_nearest_version_within_the_minor_one(tmp_path: Path) -> None:
    """Where the target lacks a version, the next higher one comes before lower and later ones, with the reason."""
    others = [package("gdal", v, "libproj >=9.4,<9.5.0a0") for v in ("3.9.0", "3.9.2", "3.9.3", "3.10.0")]
    plan = planned(tmp_path, installed(), [*(one for one in LINUX_PACKAGES if one["name"] != "gdal"), *others])
    moved = about(plan, "gdal")
    assert (moved.installed, moved.version) == ("3.9.1", "3.9.2")
    assert moved.reason == "there is no 3.9.1 for linux-64; within 3.9"
    assert [d.name for d in plan.decisions if d.installed] == ["gdal"]


def test_far_moves_of_what_was_asked_for_are_problems(tmp_path: Path) -> None:
    """Another major.minor of something that nothing needs is a warning; of a library beneath it is none."""
    others = [package("gdal", "3.10.0", "libproj >=9.5"), package("libproj", "9.5.0")]
    linux = [*(one for one in LINUX_PACKAGES if one["name"] not in ("gdal", "libproj")), *others]
    plan = planned(tmp_path, installed(), linux)
    assert (about(plan, "gdal").version, about(plan, "libproj").version) == ("3.10.0", "9.5.0")
    assert [(one.code, one.subject) for one in plan.problems] == [("moved-far", "gdal")]


def test_only_what_must_moves_with_the_solvers_words(tmp_path: Path) -> None:
    """libproj is there in the same version, but the only gdal needs another one: libproj moves, nothing else does."""
    linux = [*(one for one in LINUX_PACKAGES if one["name"] != "gdal"), package("libproj", "9.4.2")]
    linux += [package("gdal", "3.9.1", "libproj >=9.4.2,<9.5.0a0"), package("numpy", "1.26.5", "python >=3.11")]
    plan = planned(tmp_path, installed(), linux)
    assert [d.name for d in plan.decisions if d.installed] == ["libproj"]
    assert "9.4.1 does not go with the others; within 9.4 (" in about(plan, "libproj").reason
    assert "gdal" in about(plan, "libproj").reason


def test_what_must_be_exact_is_refused_with_all_names_at_once(tmp_path: Path) -> None:
    """Python and what is critical never move; what else there is nothing of is named in the same error."""
    packages = [
        *installed("openssl", "gdal"),
        CondaPackage(name="python", version="3.11.8"),
        CondaPackage(name="dask-core", version="2024.8.0"),
        CondaPackage(name="nowhere", version="1", requested=("nowhere",)),
    ]
    with pytest.raises(PlanError) as caught:
        planned(tmp_path, packages, LINUX_PACKAGES)
    assert caught.value.details == {"lacking": ["python-3.11.8", "dask-core-2024.8.0"], "absent": ["nowhere"]}
    for words in ("python 3.11.8 (there is 3.11.9)", "dask-core 2024.8.0 (there is none)", "called nowhere"):
        assert words in caught.value.what


def test_a_conflict_has_the_solvers_explanation(tmp_path: Path) -> None:
    """When two that have to be there do not go together in any version, there is no plan, and the error says why."""
    packages = [*installed(), CondaPackage(name="grass", version="8.4")]
    linux = [*LINUX_PACKAGES, package("grass", "8.4", "libproj >=9.5"), package("libproj", "9.5.0")]
    with pytest.raises(PlanError) as caught:
        planned(tmp_path, packages, linux)
    assert "gdal" in caught.value.what and "grass" in caught.value.what
    assert "libproj >=9.5" in caught.value.what
    assert caught.value.details["rattler"]


def test_what_nothing_could_help_is_left_out_and_said(tmp_path: Path) -> None:
    """A package that is there for another Python alone is as good as not there; everything else is planned."""
    linux = [one for one in LINUX_PACKAGES if one["name"] != "gdal"]
    linux += [package("gdal", "3.9.1", "python >=3.12,<3.13.0a0")]
    plan = planned(tmp_path, installed(), linux)
    assert about(plan, "gdal").action is Action.DROP
    assert "python >=3.12,<3.13" in about(plan, "gdal").reason
    assert {d.version for d in plan.decisions if d.name == "numpy"} == {"1.26.4"}
    assert [(one.code, one.subject) for one in plan.problems] == [("not-on-target", "gdal")]


def test_what_nothing_depends_on_stays_where_libraries_can_move(tmp_path: Path) -> None:
    """A newer gdal would go with libproj as it is, and the same gdal with a newer libproj: it stays the same."""
    linux = [one for one in LINUX_PACKAGES if one["name"] != "gdal"]
    linux += [package("gdal", "3.9.1", "libproj >=9.4.2,<9.5.0a0"), package("gdal", "3.10.0", "libproj >=9.4")]
    linux += [package("libproj", "9.4.2")]
    plan = planned(tmp_path, installed(), linux)
    assert (about(plan, "gdal").version, about(plan, "libproj").version) == ("3.9.1", "9.4.2")


def test_what_is_of_one_platform_vanishes(tmp_path: Path) -> None:
    """By its name, by the table, and by the virtual packages that it asks for; each has its reason."""
    packages = [
        *installed("python", "openssl"),
        CondaPackage(name="clang_impl_osx-arm64", version="18.1.8"),
        CondaPackage(name="appnope", version="0.1.4"),
        CondaPackage(name="maconly", version="1.0", requested=("maconly",)),
    ]
    noarch = [package("maconly", "1.0", "__osx", build="pyh_0"), package("appnope", "0.1.4", build="pyh_0")]
    plan = planned(tmp_path, packages, LINUX_PACKAGES, noarch=noarch)
    reasons = {d.name: d.reason for d in plan.decisions if d.action is Action.DROP}
    assert reasons.keys() == {"clang_impl_osx-arm64", "appnope", "maconly"}
    assert "osx-arm64 alone" in reasons["clang_impl_osx-arm64"]
    assert "macOS" in reasons["appnope"]
    assert [(one.code, one.subject, one.severity) for one in plan.problems] == [
        ("not-on-target", "maconly", Severity.ERROR)
    ]


def test_what_came_along_with_something_left_out_is_not_needed(tmp_path: Path) -> None:
    """libproj was there for gdal alone."""
    plan = planned(tmp_path, installed(), LINUX_PACKAGES, ignore=("gdal",))
    assert about(plan, "gdal").reason == "left out as asked"
    assert about(plan, "libproj").reason == "nothing that is shipped needs it on linux-64"


def test_only(tmp_path: Path) -> None:
    """These, what they need, and Python."""
    plan = planned(tmp_path, installed(), LINUX_PACKAGES, only=("gdal",))
    assert {d.name for d in plan.decisions if d.action is Action.FETCH} == {"gdal", "libproj", "python", "openssl"}


def test_what_is_asked_for_in_any_version(tmp_path: Path) -> None:
    """A wish is met by the newest that suits; its build is of the client's platform and does not count."""
    packages = [
        CondaPackage(name="openssl", version="", requested=("openssl >=3.3",)),
        CondaPackage(name="gdal", version="3.9.1", requested=("gdal=3.9.1=h7_0",)),
    ]
    plan = planned(tmp_path, packages, LINUX_PACKAGES)
    assert about(plan, "openssl").version == "3.3.2"
    assert about(plan, "openssl").reason == "as asked: openssl >=3.3"
    assert about(plan, "gdal").version == "3.9.1"


@pytest.mark.parametrize(
    ("spec", "without"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy=1.26.4"),
        ("numpy==1.26.4=py311h64a7726_0", "numpy==1.26.4"),
        ("numpy 1.26.* py311*", "numpy 1.26.*"),
        ("numpy >=1.26,<2", "numpy >=1.26,<2"),
        ("numpy>=1.26", "numpy>=1.26"),
        ("numpy=1.26", "numpy=1.26"),
        ("numpy==1.26", "numpy==1.26"),
        ("forge::numpy 1.26.4 py_0", "forge::numpy 1.26.4"),
        ("pytorch[version='2.*',build=*cuda*]", "pytorch[version='2.*']"),
        ("numpy==1.0=py311_0[md5=d41d8cd98f00b204e9800998ecf8427e]", "numpy==1.0"),
        ('numpy[version=">=1,<2", build="py*,x", build_number=3]', 'numpy[version=">=1,<2"]'),
        ("numpy[build=py*, version='==1.0']", "numpy[version='==1.0']"),
        ("forge::numpy[url=https://forge.invalid/x.conda,fn=x.conda,sha256=0,subdir=osx-arm64]", "forge::numpy"),
        ("numpy 1.0 py_0[channel=forge,subdir='osx-64']", "numpy 1.0[channel=forge]"),
        ("numpy >=1[license=BSD]", "numpy >=1[license=BSD]"),
        ("numpy[]", "numpy"),
        ("numpy[what is this", "numpy[what is this"),
        ("numpy[what is this]", "numpy[what is this]"),
    ],
)
def test_specs_without_builds(spec: str, without: str) -> None:
    """The version stays."""
    assert without_build(spec) == without


@pytest.mark.parametrize("spec", ["gdal[version='3.9.*',build=*mac*]", "gdal==3.9.1=h7_0[md5=" + "0" * 32 + "]"])
def test_what_was_asked_for_in_brackets(tmp_path: Path, spec: str) -> None:
    """The build in them is of the client's platform, and does not count."""
    plan = planned(tmp_path, installed(gdal=spec), LINUX_PACKAGES)
    assert (about(plan, "gdal").version, plan.problems) == ("3.9.1", ())


def test_extras_are_for_the_cluster_alone(tmp_path: Path) -> None:
    """They are asked for together with everything else, and their reason says so."""
    cuda = package("cudatoolkit", "12.4", "__cuda >=12")
    target = parse_target("linux-64-cuda12.8", python="3.11.0")
    plan = planned(tmp_path, installed(), [*LINUX_PACKAGES, cuda], target=target, extras=("cudatoolkit >=12",))
    assert about(plan, "cudatoolkit").reason == "asked for on the cluster alone"
    with pytest.raises(PlanError, match="__cuda"):
        planned(tmp_path, installed(), [*LINUX_PACKAGES, cuda], extras=("cudatoolkit >=12",))


def test_strict_moves_nothing(tmp_path: Path) -> None:
    """Everything is exact, or there is no plan."""
    linux = [one for one in LINUX_PACKAGES if one["name"] != "gdal"] + [package("gdal", "3.9.2", "libproj")]
    with pytest.raises(PlanError, match=r"gdal 3\.9\.1 \(there is 3\.9\.2\)"):
        planned(tmp_path, installed(), linux, strict=True)


def test_levels(tmp_path: Path) -> None:
    """`minor` keeps something from moving further; it is then left out, and that is an error of the plan."""
    linux = [one for one in LINUX_PACKAGES if one["name"] != "gdal"] + [package("gdal", "3.10.0", "libproj")]
    assert about(planned(tmp_path, installed(), linux), "gdal").version == "3.10.0"
    plan = planned(tmp_path / "again", installed(), linux, levels=(("gdal", "minor"),))
    assert about(plan, "gdal").action is Action.DROP
    assert "only 3.10.0" in about(plan, "gdal").reason


def test_the_first_channel_that_has_a_name_is_the_only_one(tmp_path: Path) -> None:
    """Strict channel priority: nobody replaces what another channel has."""
    mine = write_channel(tmp_path / "mine", {"linux-64": [package("openssl", "3.3.0")]})
    public = write_channel(tmp_path / "public", {"linux-64": LINUX_PACKAGES})
    solver = RattlerSolver(
        [mine.as_uri(), public.as_uri()], "linux-64", virtual_packages(LINUX), cache=tmp_path / "cache"
    )
    plan = plan_conda(installed("openssl"), LINUX, PlanOptions(), solver, client=MAC)
    assert about(plan, "openssl").version == "3.3.0"
    assert about(plan, "openssl").channel == mine.as_uri()


def test_no_packages_for_musl(tmp_path: Path) -> None:
    """That is said before anything is asked."""
    with pytest.raises(UnsupportedError, match="musl"):
        planned(tmp_path, installed(), [], target=parse_target("linux-64-musl1.2", python="3.11.0"))


def test_no_channel(tmp_path: Path) -> None:
    """A folder that is none, and a text that is none."""
    with pytest.raises(FetchError, match="can't be had"):
        RattlerSolver([(tmp_path / "no").as_uri()], "linux-64", (), cache=tmp_path / "cache").candidates(["a"])
    with pytest.raises(UsageError, match="no channel"):
        RattlerSolver(["a:b"], "linux-64", (), cache=tmp_path / "cache")
    with pytest.raises(UsageError, match="match spec"):
        planned(tmp_path, installed(), LINUX_PACKAGES, extras=("cuda >=>=12",))
