"""The plan: what is kept, what is left out, and what refuses to start."""

from __future__ import annotations

import pytest

from likewise.errors import PlanError, UnsupportedError, UsageError
from likewise.model.digest import EMPTY
from likewise.model.plan import Action
from likewise.model.snapshot import (
    Distribution,
    Origin,
    OriginKind,
    Problem,
    Severity,
    Snapshot,
)
from likewise.model.target import Platform, Target
from likewise.planner.plans import PlanOptions, critical_distributions, make_plan
from support.values import make_code, make_interpreter

BASE = {
    "dask": ("cloudpickle",),
    "distributed": ("dask", "tornado", "msgpack", "cloudpickle", "zict; python_version < '4'"),
    "tornado": (),
    "msgpack": (),
    "cloudpickle": (),
    "zict": (),
    "likewise": ("dask", "distributed", "msgspec", "uv", "backports.zstd; python_version < '3.14'"),
    "msgspec": (),
    "backports-zstd": (),
    "uv": (),
}


def dist(name: str, *requires: str, origin: OriginKind = OriginKind.INDEX, **more: object) -> Distribution:
    fields = {"version": "1.0", "content": EMPTY, "origin": Origin(kind=origin), **more}
    return Distribution(name=name, requires=requires, **fields)  # type: ignore[arg-type]


def snapshot(*extra: Distribution, without: str = "", problems: tuple[Problem, ...] = ()) -> Snapshot:
    base = [dist(name, *requires) for name, requires in BASE.items() if name != without]
    return Snapshot(
        interpreter=make_interpreter(),
        distributions=tuple(sorted([*base, *extra], key=lambda d: d.name)),
        code=(make_code(),),
        problems=problems,
    )


def actions(plan: object) -> dict[str, Action]:
    return {d.name: d.action for d in plan.decisions}  # type: ignore[attr-defined]


def test_everything_is_copied_by_default() -> None:
    """On the same platform each distribution is an exact copy and loose code is shipped."""
    plan = make_plan(snapshot(dist("numpy")))
    assert set(actions(plan).values()) == {Action.COPY, Action.SHIP}
    assert plan.get("numpy").reason.startswith("exact copy")  # type: ignore[union-attr]


def test_kit_is_the_closure_of_distributed_and_the_node_side() -> None:
    """The kit holds what distributed requires, likewise and its node side, and nothing else."""
    plan = make_plan(snapshot(dist("numpy")))
    assert set(plan.kit) == set(BASE) - {"uv"}


@pytest.mark.parametrize("name", ["dask", "distributed", "tornado", "cloudpickle", "msgpack", "likewise", "zict"])
def test_missing_critical_distribution_refuses_and_names_it(name: str) -> None:
    """A critical or kit distribution that is not installed stops the launch, by name."""
    with pytest.raises(PlanError, match=name) as caught:
        make_plan(snapshot(without=name))
    assert name in caught.value.details["missing"]


def test_ignored_is_left_out_and_what_it_requires_stays() -> None:
    """Ignoring leaves out exactly the named distribution."""
    plan = make_plan(snapshot(dist("jupyter", "jedi"), dist("jedi")), options=PlanOptions(ignore=("Jupyter",)))
    assert actions(plan)["jupyter"] is Action.DROP
    assert actions(plan)["jedi"] is Action.COPY


def test_ignored_but_required_is_shipped_and_says_by_whom() -> None:
    """An ignored distribution that a shipped one requires is shipped, and the plan names the requirer."""
    shot = snapshot(dist("pandas", "numpy"), dist("numpy"))
    decision = make_plan(shot, options=PlanOptions(ignore=("numpy",))).get("numpy")
    assert decision is not None and decision.action is Action.COPY
    assert "required by pandas" in decision.reason


def test_ignored_chain_is_left_out_together() -> None:
    """Two ignored distributions that require each other are both left out."""
    shot = snapshot(dist("a", "b"), dist("b", "a"))
    plan = make_plan(shot, options=PlanOptions(ignore=("a", "b")))
    assert {actions(plan)["a"], actions(plan)["b"]} == {Action.DROP}


def test_ignored_comes_back_through_another_ignored_one() -> None:
    """An ignored distribution required by an ignored one that had to come back comes back as well."""
    shot = snapshot(dist("top", "mid"), dist("mid", "low"), dist("low"))
    plan = make_plan(shot, options=PlanOptions(ignore=("mid", "low")))
    assert actions(plan)["mid"] is Action.COPY and actions(plan)["low"] is Action.COPY


def test_ignore_cannot_take_from_critical_or_kit() -> None:
    """Ignoring a critical or kit distribution does nothing, and the plan says so."""
    plan = make_plan(snapshot(), options=PlanOptions(ignore=("dask", "zict", "likewise")))
    assert {actions(plan)[name] for name in ("dask", "zict", "likewise")} == {Action.COPY}
    assert "not left out" in plan.get("dask").reason  # type: ignore[union-attr]


def test_ignoring_what_is_not_there_is_a_note() -> None:
    """An unknown name in ignore is noted, not fatal."""
    plan = make_plan(snapshot(), options=PlanOptions(ignore=("nosuch",)))
    assert [(p.code, p.severity) for p in plan.problems] == [("ignored-unknown", Severity.NOTE)]


def test_only_keeps_the_closure_and_what_is_critical() -> None:
    """With only, the named distributions, their requirements and the critical ones are shipped."""
    shot = snapshot(dist("pandas", "numpy"), dist("numpy"), dist("jupyter"))
    plan = make_plan(shot, options=PlanOptions(only=("pandas",)))
    dropped = {name for name, action in actions(plan).items() if action is Action.DROP}
    assert dropped == {"jupyter"}


def test_only_with_an_unknown_name_is_a_usage_error_with_a_suggestion() -> None:
    """A misspelled name in only stops the launch and suggests the nearest."""
    with pytest.raises(UsageError, match="pandas"):
        make_plan(snapshot(dist("pandas")), options=PlanOptions(only=("pandsa",)))


def test_ignore_and_only_of_one_name_contradict() -> None:
    """The same name in ignore and only is a usage error."""
    with pytest.raises(UsageError, match="both"):
        make_plan(snapshot(dist("pandas")), options=PlanOptions(ignore=("pandas",), only=("pandas",)))


def test_requirements_of_extras_count_when_somebody_asks_for_the_extra() -> None:
    """``a[x]`` required by a shipped distribution brings in what the extra requires."""
    shot = snapshot(dist("user", "a[x]"), dist("a", "b; extra == 'x'"), dist("b"))
    plan = make_plan(shot, options=PlanOptions(only=("user",)))
    assert actions(plan)["b"] is Action.COPY
    without = make_plan(shot, options=PlanOptions(only=("a",)))
    assert actions(without)["user"] is Action.DROP


@pytest.mark.parametrize("marker", ["os_name ~= 'posix'", "'a' in extras"])
def test_a_marker_that_means_nothing_is_passed_over(marker: str) -> None:
    """It is legacy metadata or a mistake of somebody else's, and no reason to fail."""
    plan = make_plan(snapshot(dist("odd", f"absent; {marker}")))
    assert actions(plan)["odd"] is Action.COPY


def test_markers_are_evaluated_for_the_target_not_for_this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """No marker falls back to the running interpreter: its defaults are poisoned here."""
    import packaging.markers

    def poisoned() -> dict[str, str]:
        return dict.fromkeys(
            [
                "implementation_name",
                "implementation_version",
                "os_name",
                "platform_machine",
                "platform_release",
                "platform_system",
                "platform_version",
                "python_full_version",
                "platform_python_implementation",
                "python_version",
                "sys_platform",
            ],
            "0",
        )

    monkeypatch.setattr(packaging.markers, "default_environment", poisoned)
    shot = snapshot(
        dist("a", "b; sys_platform == 'linux' and python_version >= '3.11' and platform_machine == 'x86_64'"),
        dist("b"),
        dist("c"),
    )
    plan = make_plan(shot, options=PlanOptions(only=("a",)))
    assert actions(plan)["b"] is Action.COPY and actions(plan)["c"] is Action.DROP


def test_other_platform_is_refused_with_a_sentence() -> None:
    """A target that is not the client's platform is not supported."""
    target = Target(platform=Platform(os="linux", arch="aarch64"), python="3.11.7")
    with pytest.raises(UnsupportedError, match="aarch64"):
        make_plan(snapshot(), target)


def error(subject: str, severity: Severity = Severity.ERROR) -> Problem:
    return Problem(code="x", subject=subject, message="is broken.", severity=severity)


def test_unshippable_distribution_is_dropped_unless_told_otherwise() -> None:
    """A non-critical distribution whose files can't be shipped is dropped with a reason; fail_on="any" refuses."""
    shot = snapshot(dist("odd", content=None), problems=(error("odd"),))
    assert actions(make_plan(shot))["odd"] is Action.DROP
    with pytest.raises(PlanError, match="odd"):
        make_plan(shot, options=PlanOptions(fail_on="any"))


def test_unshippable_critical_distribution_always_refuses() -> None:
    """A critical distribution with an error stops the launch whatever fail_on says."""
    with pytest.raises(PlanError, match="zict"):
        make_plan(snapshot(problems=(error("zict"),)))


def test_strict_refuses_warnings() -> None:
    """With strict even a warning stops the launch; a note does not."""
    make_plan(snapshot(problems=(error("a", Severity.NOTE),)), options=PlanOptions(strict=True))
    with pytest.raises(PlanError, match="a: is broken"):
        make_plan(snapshot(problems=(error("a", Severity.WARNING),)), options=PlanOptions(strict=True))


def test_fail_on_has_two_values() -> None:
    """Another value of fail_on is a usage error that lists the values."""
    with pytest.raises(UsageError, match="critical-only"):
        make_plan(snapshot(), options=PlanOptions(fail_on="sometimes"))


def test_editable_is_built_and_code_can_be_ignored() -> None:
    """An editable is built; a code root can be ignored by its name."""
    editable = Distribution(
        name="mine", version="0.1", origin=Origin(kind=OriginKind.EDITABLE, path="/src/mine"), content=None
    )
    plan = make_plan(snapshot(editable), options=PlanOptions(ignore=("code-0",)))
    assert actions(plan)["mine"] is Action.BUILD and actions(plan)["code-0"] is Action.DROP


def test_each_critical_distribution_has_a_reason() -> None:
    """The data file gives a reason for every line."""
    table = critical_distributions()
    assert {"dask", "dask-core", "msgpack-python", "likewise"} <= set(table)
    assert all(len(reason.split()) >= 4 for reason in table.values())


def test_editable_whose_tree_is_gone_is_dropped_with_a_reason() -> None:
    """An editable that can't be built any more is dropped like anything else whose files can't be shipped."""
    gone = Distribution(name="gone", version="1", origin=Origin(kind=OriginKind.EDITABLE, path="/gone"), content=None)
    shot = snapshot(gone, problems=(error("gone"),))
    assert actions(make_plan(shot))["gone"] is Action.DROP
    with pytest.raises(PlanError, match="gone"):
        make_plan(shot, options=PlanOptions(fail_on="any"))
