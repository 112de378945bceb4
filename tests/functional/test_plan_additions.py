"""What only the cluster has, on the client's own platform: real questions to uv about a real index on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from likewise.errors import PlanError
from likewise.model.plan import Action, Plan
from likewise.model.snapshot import Distribution
from likewise.planner.options import PlanOptions
from likewise.planner.plans import make_plan
from likewise.planning import plan_here
from likewise.settings import Settings
from support.indexes import IndexServer, offer, offer_sdist, serve_index
from support.plans import LINUX_TAG, Asked, decided, pure, snapshot_of
from support.values import LINUX


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the index offers."""
    return tmp_path / "offered"


@pytest.fixture
def index(folder: Path) -> Iterator[IndexServer]:
    """An index that answers well."""
    folder.mkdir()
    with serve_index(folder) as server:
        yield server


@pytest.fixture
def resolver(tmp_path: Path, index: IndexServer) -> Asked:
    """uv, asking `index`."""
    return Asked(tmp_path, index.url)


def planned(resolver: Asked, *installed: Distribution, extras: tuple[str, ...], **options: Any) -> Plan:
    """The plan for nodes like the client, which has `installed`."""
    snapshot = snapshot_of(*installed, platform=LINUX)
    return make_plan(snapshot, None, PlanOptions(extras=extras, **options), resolver)


def added(plan: Plan) -> dict[str, str]:
    """Name and version of what is not installed here."""
    return {d.name: d.version for d in plan.decisions if d.new}


def test_a_wheel_and_what_it_requires_come_beside_what_is_installed(folder: Path, resolver: Asked) -> None:
    """The newest that goes with it; of what is installed, nothing moves, although the index has newer ones."""
    offer(folder, "gpu", "2.0", tag=LINUX_TAG, requires=["base>=1", "glue"])
    offer(folder, "gpu", "3.0", tag=LINUX_TAG, requires=["base>=2", "glue"])
    offer(folder, "glue", "0.5")
    offer(folder, "base", "2.0")
    plan = planned(resolver, pure("base", "1.5"), extras=("gpu",))
    gpu, glue = decided(plan, "gpu"), decided(plan, "glue")
    assert added(plan) == {"gpu": "2.0", "glue": "0.5"}
    assert (gpu.action, gpu.reason, glue.reason) == (Action.FETCH, "asked for on the cluster alone", "required by gpu")
    assert gpu.file is not None and gpu.file.filename == f"gpu-2.0-{LINUX_TAG}.whl"
    assert (decided(plan, "base").action, decided(plan, "base").version) == (Action.COPY, "1.5")
    assert plan.kit == ("distributed", "likewise", "msgspec")
    assert plan.problems == ()


def test_what_is_installed_need_not_go_together(folder: Path, index: IndexServer, resolver: Asked) -> None:
    """Its user lives with it: a version that another one refuses, and a requirement that nobody has installed."""
    offer(folder, "gpu", "1.0", requires=["base"])
    offer(folder, "gone", "1.0")
    plan = planned(resolver, pure("base", "1.0"), pure("odd", "1.0", "base>=2", "gone"), extras=("gpu",))
    assert added(plan) == {"gpu": "1.0"}
    assert index.asked_for("gone") == index.asked_for("base") == 0


def test_what_comes_in_is_what_the_installed_require(folder: Path, resolver: Asked) -> None:
    """Where something installed lacks its requirement, and that comes in by another way, its word counts."""
    for version in ("1.0", "2.0"):
        offer(folder, "glue", version)
    offer(folder, "gpu", "1.0", requires=["glue"])
    plan = planned(resolver, pure("old", "1.0", "glue<2"), extras=("gpu",))
    assert added(plan) == {"gpu": "1.0", "glue": "1.0"}


def test_extras_of_what_is_installed(folder: Path, resolver: Asked) -> None:
    """Asked for by the user, or by what comes in; only what is not there yet is fetched."""
    for name in ("drawing", "sound"):
        offer(folder, name, "1.0")
    offer(folder, "gpu", "1.0", requires=["tool[sound]"])
    tool = pure(
        "tool",
        "1.0",
        "drawing ; extra == 'pictures'",
        "base ; extra == 'pictures'",
        "sound ; extra == 'sound'",
        provides_extras=("pictures", "sound"),
    )
    one = planned(resolver, tool, pure("base", "1.0"), extras=("tool[pictures]",))
    assert added(one) == {"drawing": "1.0"}
    assert decided(one, "drawing").reason == "required by tool"
    other = planned(resolver, tool, pure("base", "1.0"), extras=("gpu",))
    assert added(other) == {"gpu": "1.0", "sound": "1.0"}


def test_what_it_requires_is_not_left_out(folder: Path, resolver: Asked) -> None:
    """Neither by ignore nor by only: what is installed and required comes along, with all that it requires itself."""
    offer(folder, "gpu", "1.0", requires=["base"])
    installed = (pure("base", "1.0", "beneath"), pure("beneath", "1.0"), pure("other", "1.0"))
    ignoring = planned(resolver, *installed, extras=("gpu",), ignore=("base", "other"))
    assert decided(ignoring, "base").reason.startswith("not left out: required by gpu; exact copy")
    assert decided(ignoring, "other").action is Action.DROP
    only = planned(resolver, *installed, extras=("gpu",), only=("msgspec",))
    actions = {name: decided(only, name).action for name in ("gpu", "base", "beneath", "other")}
    assert actions == {"gpu": Action.FETCH, "base": Action.COPY, "beneath": Action.COPY, "other": Action.DROP}


def test_nobody_is_asked_without_need(index: IndexServer, resolver: Asked) -> None:
    """About what is installed, and about what is for another system."""
    plan = planned(resolver, pure("base", "1.5"), extras=("Base>=1", "pywin32 ; sys_platform == 'win32'"))
    assert (added(plan), resolver.questions, index.asked) == ({}, [], [])
    assert decided(planned(resolver, pure("base", "1.5"), extras=("base",), only=("msgspec",)), "base").version == "1.5"


def test_a_conflict_with_what_is_installed_is_explained(folder: Path, resolver: Asked) -> None:
    """Which one of the many, and which version of it would do: found by trying, not by reading what uv says."""
    offer(folder, "gpu", "1.0", requires=["base<1.5", "more"])
    offer(folder, "more", "1.0")
    offer(folder, "fine", "1.0")
    for version in ("1.3", "1.4", "1.5"):
        offer(folder, "base", version)
    others = [pure(f"other{n}", "1.0", *(["base>=1.4"] if n == 3 else [])) for n in range(8)]
    with pytest.raises(PlanError) as error:
        planned(resolver, pure("base", "1.5"), *others, extras=("fine", "gpu"))
    assert error.value.details["conflict"] == ["base"]
    assert error.value.details["extras"] == ["gpu"]
    assert "gpu can't be had with base 1.5, which is installed here" in error.value.what
    assert error.value.todo == "What would help: pip install base==1.4"


def test_a_version_that_may_move_elsewhere_is_still_what_it_is_here(folder: Path, resolver: Asked) -> None:
    """A level is for other platforms: here it is the installed one that comes, and the extra does not accept it."""
    offer(folder, "base", "2.0")
    with pytest.raises(PlanError) as error:
        planned(resolver, pure("base", "1.5"), extras=("base>=2",), levels=(("base", "any"),))
    assert error.value.details["conflict"] == ["base"]
    assert "pip install base==2.0" in error.value.todo


def test_what_no_index_has(resolver: Asked) -> None:
    """It is named, alone, with the resolver's words."""
    with pytest.raises(PlanError, match=r"nosuch can't be had for linux-x86_64 and Python 3\.11\.7") as error:
        planned(resolver, pure("base", "1.0"), extras=("base", "nosuch"))
    assert error.value.details["extras"] == ["nosuch"]
    assert "UV_INDEX" in error.value.todo


def test_an_sdist_is_not_built_for_the_cluster_alone(folder: Path, resolver: Asked) -> None:
    """Who installs it has it built here, and the nodes get what was built."""
    offer_sdist(folder, "gpu", "1.0")
    with pytest.raises(PlanError, match="gpu is offered as an sdist only") as error:
        planned(resolver, extras=("gpu",))
    assert error.value.todo.startswith("Install it here")


def test_a_wheel_for_another_system_is_none(folder: Path, resolver: Asked) -> None:
    """The target's tags count."""
    offer(folder, "gpu", "1.0", tag="cp311-cp311-macosx_11_0_arm64")
    with pytest.raises(PlanError, match="gpu can't be had for linux-x86_64"):
        planned(resolver, extras=("gpu",))


def test_what_comes_from_an_index_that_is_not_asked(
    tmp_path: Path, folder: Path, index: IndexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else's distribution of that name is taken: neither where it is asked for, nor where that requires it."""
    offer(folder, "sauce", "1.0")
    offer(folder, "gpu", "1.0", requires=["sauce"])
    offer(folder, "fine", "1.0")
    project = '[tool.uv.sources]\nsauce = { index = "firm" }\n[[tool.uv.index]]\nname = "firm"\nexplicit = true\n'
    (tmp_path / "pyproject.toml").write_text(f'{project}url = "https://firm.invalid/t/a-token-1234567890/simple"\n')
    environ = {"HOME": str(tmp_path), "UV_DEFAULT_INDEX": index.url, "UV_CACHE_DIR": str(tmp_path / "cache")}
    for name, value in {**environ, "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)
    how: dict[str, Any] = {"settings": Settings(cache=tmp_path / "likewise"), "folder": tmp_path}
    snapshot = snapshot_of(platform=LINUX)
    for extra in ("Sauce", "gpu"):
        with pytest.raises(PlanError, match="sauce can't be had for the cluster alone: it comes from the index firm"):
            plan_here(snapshot, PlanOptions(extras=(extra,)), **how)
    assert not [one for one in index.asked if one.path.endswith("sauce-1.0-py3-none-any.whl")]
    assert added(plan_here(snapshot, PlanOptions(extras=("fine",)), **how)) == {"fine": "1.0"}
