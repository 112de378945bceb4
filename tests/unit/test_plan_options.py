"""What the user asks of a plan: what contradicts itself, and where it is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import dask
import pytest
from click.testing import CliRunner

from likewise.cli.options import parse_levels, planning
from likewise.cluster.replica import PackageSync
from likewise.errors import UnsupportedError, UsageError
from likewise.model.digest import EMPTY
from likewise.model.plan import Level
from likewise.model.snapshot import Distribution, Origin, OriginKind, Snapshot
from likewise.planner.options import PlanOptions, check_moment, check_options
from likewise.planner.plans import make_plan
from likewise.sync import plan_options
from support.values import make_code, make_interpreter


def have(name: str, version: str = "1.2.3", *requires: str) -> Distribution:
    return Distribution(
        name=name, version=version, origin=Origin(kind=OriginKind.INDEX), content=EMPTY, requires=requires
    )


KIT = [have(name) for name in ("dask", "distributed", "likewise", "msgspec", "tornado", "cloudpickle", "msgpack")]
SNAPSHOT = Snapshot(
    interpreter=make_interpreter(),
    distributions=tuple(sorted([*KIT, have("numpy"), have("odd", "not-a-version")], key=lambda d: d.name)),
    code=(make_code(),),
)


@pytest.fixture(autouse=True)
def no_settings() -> Iterator[None]:
    """Whatever the machine's own Dask configuration says of plans does not count."""
    with dask.config.set({"likewise.plan": {}}):
        yield


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": (("numpy", "major"),)}, "'major' for numpy.*exact, minor, any"),
        ({"levels": (("numpy", "ignore"),)}, r"package_sync_ignore=\['numpy'\]"),
        ({"levels": (("numpy", "any"), ("NumPy", "exact"))}, "both any and exact for numpy"),
        ({"levels": (("numpy", "any"),), "ignore": ("Numpy",)}, "numpy is ignored and has a level"),
        ({"levels": (("numpy", "any"),), "strict": True}, "package_sync_strict"),
        ({"levels": (("dask", "any"),)}, "dask, which is exact everywhere: the graph"),
        ({"levels": (("dask_core", "minor"),)}, "dask-core, which is exact everywhere"),
        ({"extras": ("cupy>=",)}, "'cupy>=', which is no requirement"),
        ({"extras": ("cupy; os_name ~= 'posix'",)}, "which is no requirement"),
        ({"extras": ("cupy; 'a' in extras",)}, "which is no requirement"),
        ({"extras": ("cupy",), "ignore": ("CuPy",)}, "cupy is ignored and asked for"),
        ({"extras": ("numpy>=2",)}, "numpy 1.2.3 is installed.*package_sync_level={'numpy': 'any'}"),
        ({"extras": ("odd>1",)}, "odd not-a-version is installed"),
        ({"extras": ("dask!=1.2.3",)}, "dask 1.2.3 is installed"),
        ({"ignore": ("numpy",), "only": ("numpy",)}, "both ignored and asked for"),
    ],
)
def test_contradictions(options: dict[str, Any], words: str) -> None:
    """Each is refused with what to do, before anything is planned."""
    with pytest.raises(UsageError, match=words) as caught:
        make_plan(SNAPSHOT, None, PlanOptions(**options))
    assert caught.value.todo


@pytest.mark.parametrize("name", ["dask", "tornado"])
def test_nobody_is_advised_to_let_a_critical_one_move(name: str) -> None:
    """What contradicts a critical distribution has no flag that would help."""
    with pytest.raises(UsageError) as caught:
        check_options(SNAPSHOT, PlanOptions(extras=(f"{name}>2",)))
    assert "package_sync_level" not in caught.value.todo


@pytest.mark.parametrize(
    "text", ["cupy @ https://me:s3cret@example.invalid/cupy.whl", "https://me:s3cret@example.invalid/cupy.whl"]
)
def test_a_url_is_refused_and_not_repeated(text: str) -> None:
    """It may hold a credential."""
    with pytest.raises(UsageError, match="URL") as caught:
        check_options(SNAPSHOT, PlanOptions(extras=(text,)))
    assert "s3cret" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"levels": (("numpy", "any"), ("Num_py", "any"), ("dask", "exact"))},
        {"levels": (("numpy", "exact"),), "strict": True},
        {"extras": ("numpy>=1", "numpy<2", "odd", "dask==1.2.3")},
    ],
)
def test_what_only_says_the_same_twice_is_fine(options: dict[str, Any]) -> None:
    """Repetition is no contradiction, nor is an exact level for what is exact anyway."""
    assert {p.code for p in check_options(SNAPSHOT, PlanOptions(**options))} <= {"level-unknown"}


def test_unknown_names_are_notes() -> None:
    """A configuration for many projects names what one of them does not have; a slip of the pen is pointed out."""
    found = check_options(SNAPSHOT, PlanOptions(levels=(("nunpy", "any"), ("zarr", "any")), ignore=("scipy",)))
    assert [(p.code, p.subject) for p in found] == [
        ("ignored-unknown", "scipy"),
        ("level-unknown", "nunpy"),
        ("level-unknown", "zarr"),
    ]
    assert found[1].message.endswith("Did you mean numpy?")
    assert found[2].message.endswith("it changes nothing.")


def test_extras_on_the_same_platform() -> None:
    """Somebody has to be asked about what is not there; what is installed, or for another platform, is nothing new."""
    with pytest.raises(UnsupportedError, match=r"package_sync_extras \(cupy, numpy\[more\] and numpy\) can't be had"):
        make_plan(SNAPSHOT, None, PlanOptions(extras=("cupy", "numpy[more]", "numpy")))
    fine = PlanOptions(extras=("NumPy>=1", "pywin32; sys_platform == 'win32'"))
    assert make_plan(SNAPSHOT, None, fine) == make_plan(SNAPSHOT)


def test_a_level_lets_an_extra_ask_for_another_version() -> None:
    """As the refusal without one advises; what is critical has no level."""
    wish = {"extras": ("numpy>=2",)}
    with pytest.raises(UsageError, match="package_sync_level"):
        check_options(SNAPSHOT, PlanOptions(**wish))
    assert check_options(SNAPSHOT, PlanOptions(**wish, levels=(("numpy", "any"),))) == ()


def test_levels_change_nothing_on_the_same_platform() -> None:
    """Copies are exact whatever may move elsewhere."""
    assert make_plan(SNAPSHOT, None, PlanOptions(levels=(("numpy", "any"),))) == make_plan(SNAPSHOT)


def test_level_of_any_spelling() -> None:
    """Names are compared as PEP 503 says."""
    options = PlanOptions(levels=(("Scikit_Learn", "any"),))
    assert options.level_of("scikit-learn") is Level.ANY
    assert options.level_of("numpy") is None


def test_settings_are_the_default() -> None:
    """Each can be set in Dask's configuration."""
    configured = {
        "strict": "yes",
        "ignore": ["jupyterlab"],
        "only": "numpy",  # as an environment variable has it
        "level": {"numpy": "exact"},
        "extras": ["cupy-cuda12x>=13"],
        "fail-on": "any",
    }
    with dask.config.set({"likewise.plan": configured}):
        assert plan_options() == PlanOptions(
            strict=True,
            ignore=("jupyterlab",),
            only=("numpy",),
            levels=(("numpy", "exact"),),
            extras=("cupy-cuda12x>=13",),
            fail_on="any",
        )
        nothing = plan_options(strict=False, ignore=[], only=(), level={}, extras=[], fail_on="critical-only")
        assert nothing == PlanOptions()
    assert plan_options() == PlanOptions()


def test_settings_from_environment_variables() -> None:
    """Dask's way of writing them down; a name may have underscores for hyphens."""
    variables = {"DASK_LIKEWISE__PLAN__LEVEL__SCIKIT_LEARN": "any", "DASK_LIKEWISE__PLAN__IGNORE": "['a', 'b']"}
    with dask.config.set(dask.config.collect_env(variables)):
        options = plan_options()
    assert options.level_of("scikit-learn") is Level.ANY
    assert options.ignore == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value"), [("ignore", {"a": 1}), ("ignore", 3), ("extras", [1]), ("level", "numpy"), ("level", {"a": 1})]
)
def test_settings_that_make_no_sense(name: str, value: object) -> None:
    """The setting is named."""
    with dask.config.set({"likewise.plan": {name: value}}), pytest.raises(UsageError, match=f"likewise.plan.{name}"):
        plan_options()


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"package_sync_level": "numpy"}, "package_sync_level"),
        ({"package_sync_level": {"numpy": 1}}, "package_sync_level"),
        ({"package_sync_extras": "cupy"}, "package_sync_extras"),
        ({"package_sync_conda_extras": "cuda"}, "package_sync_conda_extras"),
    ],
)
def test_arguments_of_a_wrong_kind(arguments: dict[str, Any], where: str) -> None:
    """They are refused where the cluster takes them, by their own names."""
    with pytest.raises(UsageError) as caught:
        PackageSync.take(arguments)
    assert caught.value.where == where


def test_what_a_cluster_takes_reaches_the_plan() -> None:
    """Every argument; what is not given is left to the settings."""
    given = {"package_sync_level": {"numpy": "any"}, "package_sync_extras": ["cupy"], "package_sync_ignore": ["x"]}
    given["package_sync_conda_extras"] = ["cuda-version=12"]
    with dask.config.set({"likewise.plan": {"fail-on": "any", "ignore": ["y"]}}):
        options = plan_options(**PackageSync.take(given).plan_options)
    assert options == PlanOptions(
        fail_on="any",
        ignore=("x",),
        levels=(("numpy", "any"),),
        extras=("cupy",),
        conda_extras=("cuda-version=12",),
    )
    assert given == {}


def wishes(*arguments: str) -> dict[str, Any]:
    """What a command with the shared options gets."""
    seen: dict[str, Any] = {}

    @click.command()
    @planning
    def command(wishes: dict[str, Any]) -> None:
        seen.update(wishes)

    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception:
        raise result.exception
    return seen


def test_the_command_line_says_only_what_was_said() -> None:
    """So that the settings hold for the rest; an ``=`` in a requirement is none of a level."""
    assert wishes() == {}
    line = ["--level", "numpy=any", "--level", "lxml = exact", "--extra", "cupy==13.3.0", "--ignore", "a", "--strict"]
    assert wishes(*line) == {
        "strict": True,
        "ignore": ("a",),
        "level": {"numpy": "any", "lxml": "exact"},
        "extras": ("cupy==13.3.0",),
    }


@pytest.mark.parametrize("text", ["numpy", "=any", "numpy=", ""])
def test_a_level_that_is_none(text: str) -> None:
    """The text is repeated, and how to write it."""
    with pytest.raises(UsageError, match="--level numpy=any"):
        parse_levels([text])


def test_two_levels_for_one_name() -> None:
    """Neither is taken."""
    with pytest.raises(UsageError, match="both any and exact for numpy"):
        parse_levels(["numpy=any", "numpy=exact"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"ignore": ["numpy"], "only": ["NumPy"]},
        {"ignore": ["cupy"], "extras": ["cupy>=13"]},
        {"strict": True, "level": {"numpy": "any"}},
        {"level": {"dask": "minor"}},
        {"fail_on": "never"},
    ],
)
def test_what_excludes_each_other_is_refused_before_anything_is_installed(arguments: dict[str, Any]) -> None:
    """No snapshot is needed to know it."""
    with pytest.raises(UsageError) as caught:
        plan_options(**arguments)
    assert caught.value.todo


@pytest.mark.parametrize("moment", ["2026-11-20", "2026-11-20T10:00:00Z", "2026-11-20t10:00:00.5+02:00"])
def test_moments(moment: str) -> None:
    """A date, and times as RFC 3339 has them."""
    check_moment(moment)


@pytest.mark.parametrize(
    "moment", ["yesterday", "P1D", "3 days", "2026-02-30", "20261120", "2026-11-20T25:00:00Z", " "]
)
def test_no_moments(moment: str) -> None:
    """What is another one tomorrow is none, nor what never was."""
    with pytest.raises(UsageError, match="no date or time"):
        check_moment(moment)
