"""Snapshots, plans and reports as text for people."""

from __future__ import annotations

import click

from likewise.cli import answer
from likewise.cli import scan as scan_command
from likewise.cli.checks import Check, Status
from likewise.cli.doctor import describe as describe_checks
from likewise.console.reports import describe_launch, describe_verify
from likewise.model.digest import digest_bytes
from likewise.model.plan import Action, Decision, Plan
from likewise.model.report import LaunchReport, Stage
from likewise.model.snapshot import (
    Distribution,
    Origin,
    OriginKind,
    Problem,
    Severity,
    Snapshot,
)
from likewise.model.verify import Difference, DifferenceKind, NodeReport, VerifyReport
from support.values import TARGET, make_code, make_interpreter

DIGEST = digest_bytes(b"x")


def distribution(name: str, kind: OriginKind = OriginKind.INDEX, **more: object) -> Distribution:
    return Distribution(
        name=name, version="1.0", origin=Origin(kind=kind, path="/src" if kind is OriginKind.EDITABLE else ""), **more
    )  # type: ignore[arg-type]


SNAPSHOT = Snapshot(
    interpreter=make_interpreter(),
    distributions=(
        distribution("alpha", files=3, size=2000, content=DIGEST),
        distribution("beta", files=1, size=500, content=DIGEST, modified=("purelib/beta.py",)),
        distribution("gamma", OriginKind.EDITABLE),
        Distribution(
            name="delta",
            version="2",
            origin=Origin(kind=OriginKind.VCS, url="https://example.invalid/delta", commit="0123456789abcdef"),
        ),
    ),
    code=(make_code(name="code-work", files=2, size=10, content=DIGEST),),
    problems=(
        Problem(code="a", subject="alpha", message="is odd.", severity=Severity.NOTE),
        Problem(code="b", subject="beta", message="is broken.", severity=Severity.ERROR),
    ),
)


def decision(name: str, action: Action, reason: str) -> Decision:
    return Decision(name=name, version="1.0", action=action, reason=reason)


PLAN = Plan(
    target=TARGET,
    decisions=(
        decision("alpha", Action.COPY, "exact copy; same platform"),
        decision("beta", Action.COPY, "exact copy; same platform, 1 file modified since"),
        decision("gamma", Action.BUILD, "editable: a wheel is built from /src"),
        decision("code-work", Action.SHIP, "loose code"),
    ),
    kit=("alpha",),
)


def test_a_scan_shows_every_distribution_and_where_it_came_from() -> None:
    """Interpreter, totals, one line per distribution with origin and state, loose code, problems gravest first."""
    text = "\n".join(scan_command.describe(SNAPSHOT))
    assert "Python 3.11.7 (venv of uv) on linux-x86_64 (glibc 2.36)" in text
    assert "4 distributions, 4 files, 2.50 kB" in text
    assert "1 modified" in next(line for line in text.splitlines() if line.startswith("beta"))
    assert "editable /src" in next(line for line in text.splitlines() if line.startswith("gamma"))
    assert "https://example.invalid/delta@0123456789ab" in text
    assert "code-work  /work  sys.path[0]" in text
    assert text.index("is broken.") < text.index("is odd.")


def test_a_plan_leads_with_the_sum_and_hides_what_is_plain() -> None:
    """The sum comes first; an unmodified release that is simply copied is only counted."""
    lines = list(answer.describe(SNAPSHOT, PLAN, verbose=False))
    assert "2 copied, 1 built, 1 shipped; 2.51 kB for linux-x86_64" in lines[0]
    assert not any("alpha" in line for line in lines)
    assert all(any(name in line for line in lines) for name in ("beta", "gamma", "code-work"))
    assert any("1 more distribution copied exactly; -v lists it too" in line for line in lines)


def test_a_verbose_plan_hides_nothing() -> None:
    """-v lists every decision with its reason."""
    text = "\n".join(answer.describe(SNAPSHOT, PLAN, verbose=True))
    assert all(d.name in text and d.reason in text for d in PLAN.decisions)
    assert "-v" not in text


def test_what_somebody_asked_for_is_never_plain() -> None:
    """A copy that was to be ignored and is shipped all the same is shown."""
    kept = decision("alpha", Action.COPY, "not left out: required by beta; exact copy; same platform")
    assert not answer.is_ordinary(kept, SNAPSHOT)
    assert answer.is_ordinary(PLAN.decisions[0], SNAPSHOT)


def test_a_launch_report_has_one_line_per_stage() -> None:
    """Each stage with its time and what it did."""
    report = LaunchReport(stages=(Stage(name="scan", seconds=0.31, summary="160 distributions"),))
    assert describe_launch(report).splitlines() == ["stage    time  what it did", "scan   0.31 s  160 distributions"]


def node(name: str, *differences: Difference) -> NodeReport:
    return NodeReport(
        node=name,
        prefix=f"/cache/{name}",
        executable="python",
        python="3.11.7",
        manifest=DIGEST,
        distributions={"alpha": "1.0"},
        files=30_189,
        size=1_400_000_000,
        seconds=1.5,
        differences=differences,
    )


def test_a_verify_report_says_so_when_all_is_well() -> None:
    """One line per node, and the verdict at the end."""
    text = describe_verify(VerifyReport(manifest=DIGEST, nodes=(node("one"), node("two")), differences=()))
    assert text.count("identical") == 2
    assert text.endswith("every file is what the manifest says")
    assert "30,189" in text and "1.40 GB" in text


def test_a_verify_report_names_what_differs() -> None:
    """A tampered file is named with node, file, distribution, expected and found; very many are counted."""
    changed = Difference(
        node="two", kind=DifferenceKind.CHANGED, layer="alpha", subject="purelib/alpha.py", expected="aa", actual="bb"
    )
    many = (changed,) * 25
    text = describe_verify(VerifyReport(manifest=DIGEST, nodes=(node("one"), node("two", *many)), differences=many))
    assert "two: changed: purelib/alpha.py (of alpha): expected aa, found bb" in text
    assert "… and 5 more" in text and text.endswith("25 differences")
    assert [line.split()[0] for line in text.splitlines() if "differs" in line] == ["two"]


def test_a_check_shows_what_to_do_beneath_it() -> None:
    """The advice of a failed check stands on a line of its own."""
    checks = [
        Check(name="uv", status=Status.OK, message="uv 1"),
        Check(name="space", status=Status.ERROR, message="none", todo="Make room."),
    ]
    lines = click.unstyle(describe_checks(checks)).splitlines()
    assert [line.split() for line in lines] == [["ok", "uv", "uv", "1"], ["error", "space", "none"], ["Make", "room."]]
