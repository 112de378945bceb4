"""Conda packages for the cluster alone beside what a prefix has: real questions to py-rattler about real lists.

What a prefix on this machine gets of it is in `test_conda_extras.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from likewise.errors import PlanError, UnsupportedError, UsageError
from likewise.model.conda import CondaPackage
from likewise.planner.conda_additions import asks_for_more, choose_extras, needed_by
from likewise.planner.conda_solver import Candidate
from likewise.planner.options import PlanOptions
from likewise.planner.plans import make_plan
from likewise.resolution.rattler import RattlerSolver
from likewise.sync import plan
from support.conda_repodata import package, write_channel
from support.plans import snapshot_of
from support.values import LINUX

pytest.importorskip("rattler")

PYTHON = package("python", "3.11.9", "openssl >=3.2,<4.0a0", build="h1_0")
OPENSSL = package("openssl", "3.3.1")
NUMPY = package("numpy", "1.26.4", "python >=3.11,<3.12.0a0")
NEWER = [package("openssl", "3.4.0"), package("numpy", "2.0.0", "python >=3.11"), package("python", "3.12.1")]


def installed(*records: dict[str, Any], channel: str = "https://conda.example/forge") -> list[CondaPackage]:
    """These packages as a scan finds them."""
    return [
        CondaPackage(
            name=one["name"],
            version=one["version"],
            build=one["build"],
            subdir="linux-64",
            channel=channel,
            url=f"{channel}/linux-64/{one['name']}-{one['version']}-{one['build']}.conda",
            requires=tuple(one["depends"]),
            constrains=tuple(one["constrains"]),
        )
        for one in records
    ]


PREFIX = installed(PYTHON, OPENSSL, NUMPY)


def solver(tmp_path: Path, offered: Iterable[dict[str, Any]], *, virtual: tuple[str, ...] = ()) -> RattlerSolver:
    """py-rattler, asking a channel that offers these and newer ones of what is installed."""
    channel = write_channel(tmp_path / "channel", {"linux-64": [OPENSSL, NUMPY, *NEWER, *offered]})
    known = ("__unix=0=0", "__linux=6.1=0", "__glibc=2.36=0", *virtual)
    return RattlerSolver([channel.as_uri()], "linux-64", known, cache=tmp_path / "cache")


def chosen(
    tmp_path: Path,
    extras: tuple[str, ...],
    offered: Iterable[dict[str, Any]],
    *,
    packages: Iterable[CondaPackage] = PREFIX,
    favored: tuple[Candidate, ...] = (),
    virtual: tuple[str, ...] = (),
) -> dict[str, str]:
    """Name and version of what `extras` bring to a prefix with `packages`."""
    found = choose_extras(
        list(packages), extras, solver(tmp_path, offered, virtual=virtual), channels=["forge"], favored=favored
    )
    return {one.name: one.version for one in found}


def refused(tmp_path: Path, extras: tuple[str, ...], offered: Iterable[dict[str, Any]], **how: Any) -> PlanError:
    """The error of the same."""
    with pytest.raises(PlanError) as caught:
        chosen(tmp_path, extras, offered, **how)
    assert caught.value.todo
    return caught.value


def test_a_package_and_what_it_requires_come_beside_what_is_installed(tmp_path: Path) -> None:
    """The newest that goes with it; nothing that is installed moves, although the channel has newer ones of it."""
    offered = [
        package("gdal", "3.9.1", "libproj >=9.4", "openssl >=3.3,<4.0a0", "numpy"),
        package("gdal", "3.10.0", "libproj >=9.4", "openssl >=3.4,<4.0a0"),
        package("libproj", "9.4.1"),
    ]
    assert chosen(tmp_path, ("gdal",), offered) == {"gdal": "3.9.1", "libproj": "9.4.1"}


def test_what_is_installed_need_not_go_together_nor_be_in_a_channel(tmp_path: Path) -> None:
    """Its user lives with it: a version that another one refuses, something that is not there, and a build of one's
    own that an extra requires."""
    odd = installed(package("odd", "1.0", "openssl <3", "gone"), package("inhouse", "7.1"), channel="")
    offered = [package("gpu", "1.0", "inhouse >=7", "odd")]
    assert chosen(tmp_path, ("gpu",), offered, packages=[*PREFIX, *odd]) == {"gpu": "1.0"}


def test_what_comes_in_is_what_the_installed_say(tmp_path: Path) -> None:
    """Where something installed lacks what it depends on, or constrains it, and that comes in: its word counts."""
    for number, old in enumerate((package("old", "1.0", "glue <2"), package("old", "1.0", constrains=["glue <2"]))):
        offered = [package("gpu", "1.0", "glue"), package("glue", "1.0"), package("glue", "2.0")]
        found = chosen(tmp_path / str(number), ("gpu",), offered, packages=[*PREFIX, *installed(old)])
        assert found == {"gpu": "1.0", "glue": "1.0"}


def test_what_is_installed_already(tmp_path: Path) -> None:
    """Nothing is added, whatever newer ones there are; by its name alone nobody is asked."""
    assert chosen(tmp_path, ("openssl >=3", "numpy"), []) == {}
    assert not asks_for_more(PREFIX, ("numpy", " OpenSSL"))
    assert asks_for_more(PREFIX, ("numpy=1.26",)) and asks_for_more(PREFIX, ("gpu",))


def test_what_is_installed_in_another_version(tmp_path: Path) -> None:
    """It stays, so it is a conflict; it is said plainly, of all of them at once."""
    error = refused(tmp_path, ("openssl >=3.4", "numpy", "python=3.12"), [])
    assert error.details["conflict"] == ["openssl", "python"]
    assert (
        "openssl >=3.4 and python=3.12 can't be had, since openssl 3.3.1 and python 3.11.9 are installed" in error.what
    )


def test_a_conflict_with_what_is_installed_is_explained(tmp_path: Path) -> None:
    """Which extra, and which of the many: found by trying. The solver's words are repeated."""
    others = [package(f"other{n}", "1.0", "openssl >=3.3") for n in range(8)]
    offered = [package("gpu", "1.0", "more"), package("more", "1.0", "openssl >=3.4,<4.0a0"), package("fine", "1.0")]
    error = refused(tmp_path, ("fine", "gpu"), offered, packages=[*PREFIX, *installed(*others)])
    assert (error.details["extras"], error.details["conflict"]) == (["gpu"], ["openssl"])
    assert "gpu can't be had with openssl 3.3.1, which is installed here and is the same on the nodes" in error.what
    assert "more" in error.what and "openssl >=3.4" in error.what
    assert "install it here" in error.todo


def test_python_is_named_where_it_is_the_reason(tmp_path: Path) -> None:
    """It never moves."""
    error = refused(tmp_path, ("gpu",), [package("gpu", "1.0", "python >=3.12")])
    assert error.details["conflict"] == ["python"]


def test_what_no_channel_has(tmp_path: Path) -> None:
    """It is named, alone, with the channels that were asked."""
    error = refused(tmp_path, ("nosuch", "fine"), [package("fine", "1.0")])
    assert error.details["extras"] == ["nosuch"]
    assert "nosuch can't be had from forge" in error.what
    assert "CHANNEL::NAME" in error.todo


def test_what_needs_a_driver(tmp_path: Path) -> None:
    """The nodes' virtual packages count; where there is none the error says how to name it."""
    offered = [package("gpu", "1.0", "__cuda >=12", "__glibc >=2.28")]
    assert "linux-64-cuda12.8" in refused(tmp_path / "without", ("gpu",), offered).todo
    assert chosen(tmp_path / "with", ("gpu",), offered, virtual=("__cuda=12.8=0",)) == {"gpu": "1.0"}


def test_what_was_chosen_before_stays(tmp_path: Path) -> None:
    """A sync does not exchange it for something newer, nor where the channel has removed it since."""
    offered = [package("gpu", "1.0"), package("gpu", "2.0")]
    before = Candidate(
        name="gpu", version="1.0", build="h0_0", subdir="linux-64", url="https://conda.example/gpu.conda"
    )
    assert chosen(tmp_path / "a", ("gpu",), offered) == {"gpu": "2.0"}
    assert chosen(tmp_path / "b", ("gpu",), offered, favored=(before,)) == {"gpu": "1.0"}
    assert chosen(tmp_path / "c", ("gpu",), offered[1:], favored=(before,)) == {"gpu": "1.0"}


def test_what_they_depend_on_is_shipped() -> None:
    """The distributions of packages that are installed here, directly or through others; nothing else."""
    meta = CondaPackage(name="meta", version="1", requires=("numpy",))
    numpy = CondaPackage(name="numpy", version="1.26.4", requires=("python",), distributions=("numpy",))
    other = CondaPackage(name="other", version="1", distributions=("other",))
    gpu = Candidate(name="gpu", version="1.0", build="h0_0", requires=("meta >=1", "absent"))
    assert needed_by([meta, numpy, other], ("gpu",), (gpu,)) == {"numpy": ("gpu",)}
    assert needed_by([meta, numpy, other], ("other",), ()) == {"other": ()}


@pytest.mark.parametrize("text", ["", "=1.2", "https://me:word@conda.example/forge::gpu", "/t/word/forge::gpu"])
def test_what_is_no_match_spec(text: str) -> None:
    """It is refused before anything is asked; a credential is not repeated."""
    with pytest.raises(UsageError, match="package_sync_conda_extras has") as caught:
        plan(snapshot_of(platform=LINUX), conda_extras=[text])
    assert "word" not in str(caught.value)


def test_what_is_ignored_and_asked_for() -> None:
    """One of both."""
    with pytest.raises(UsageError, match="gpu is ignored and asked for"):
        plan(snapshot_of(platform=LINUX), conda_extras=["gpu>=1"], ignore=["gpu"])


def test_a_client_that_is_no_conda_prefix() -> None:
    """There is no prefix that a conda package could go into; the plan says so, and what there is instead."""
    for target in (None, "linux-64", "linux-aarch64"):
        with pytest.raises(UsageError) as caught:
            plan(snapshot_of(platform=LINUX), target=target, conda_extras=["gpu"])
        assert "gpu" in caught.value.what and "conda prefix" in f"{caught.value.what}{caught.value.todo}"


def test_a_plan_without_a_channel() -> None:
    """Who makes one by hand is not told that it has what it has not."""
    with pytest.raises(UnsupportedError, match="without asking a channel"):
        make_plan(snapshot_of(platform=LINUX), None, PlanOptions(conda_extras=("gpu",)))


def test_what_comes_in_has_a_say_about_what_is_installed(tmp_path: Path) -> None:
    """Also where it does not depend on that: a constraint of its own is a conflict."""
    offered = [package("gpu", "1.0", constrains=["openssl >=3.4"])]
    assert refused(tmp_path, ("gpu",), offered).details["conflict"] == ["openssl"]


def test_a_package_that_no_channel_has_is_not_the_reason(tmp_path: Path) -> None:
    """It is there, so it is no conflict, and the one that is can be found."""
    offered = [package("gpu", "1.0", "inhouse >=7", "openssl >=3.4")]
    packages = [*PREFIX, *installed(package("inhouse", "7.1"), channel="")]
    assert refused(tmp_path, ("gpu",), offered, packages=packages).details["conflict"] == ["openssl"]
