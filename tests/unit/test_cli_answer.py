"""What ``likewise plan`` says about a plan for another platform."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from likewise.cli.answer import describe, is_ordinary
from likewise.model.digest import EMPTY
from likewise.model.plan import Action, Decision, Level, LockedFile, Plan
from likewise.model.snapshot import Distribution, Origin, OriginKind, Problem, Snapshot
from likewise.model.target import Platform, Target
from support.values import LINUX, make_code, make_interpreter

MAC = Platform(os="macos", arch="aarch64")


def have(name: str, **more: Any) -> Distribution:
    return Distribution(name=name, version="1.2.3", origin=Origin(kind=OriginKind.INDEX), content=EMPTY, **more)


def decide(name: str, action: Action, reason: str = "exact", version: str = "1.2.3", **more: Any) -> Decision:
    return Decision(name=name, version=version, action=action, reason=reason, **more)


def wheel(size: int | None) -> LockedFile:
    return LockedFile(filename="w-1-py3-none-any.whl", url="https://index.invalid/w", sha256="0" * 64, size=size)


SNAPSHOT = Snapshot(
    interpreter=make_interpreter(platform=MAC),
    distributions=tuple(have(name, size=1000) for name in ("appnope", "click", "lxml", "numpy", "pandas")),
    code=(make_code(size=24),),
)
DECISIONS = (
    decide("appnope", Action.DROP, "only on macOS: keeps macOS from putting a program to sleep"),
    decide("click", Action.COPY, "exact copy; pure Python"),
    decide("jeepney", Action.FETCH, "required by secretstorage there", new=True, file=wheel(700)),
    decide("lxml", Action.FETCH, "not left out: required by pandas; exact", file=wheel(2000)),
    decide("numpy", Action.FETCH, "1.2.3 has no wheel there", "1.2.5", installed="1.2.3", file=wheel(None)),
    decide("pandas", Action.FETCH, file=wheel(3300), level=Level.MINOR),
    decide("code-0", Action.SHIP, "loose code", ""),
)


def plan(*decisions: Decision, python: str = "3.11.7", platform: Platform = LINUX, cuda: str = "") -> Plan:
    target = Target(platform=platform, python=python, cuda=cuda)
    return Plan(target=target, decisions=decisions or DECISIONS, kit=())


def lines(chosen: Plan, *, verbose: bool = False) -> list[str]:
    return [click.unstyle(line) for line in describe(SNAPSHOT, chosen, verbose=verbose)]


def test_the_answer_comes_first() -> None:
    """How much of it is the same, for which target, and where the bytes come from."""
    first, second, *_ = lines(plan())
    expected = "3 exact, 1 moved, 1 added, 1 dropped, 1 shipped; for linux-x86_64 (glibc 2.36), Python 3.11.7"
    assert first == expected
    assert second == "2 from here (1.02 kB), 4 wheels to fetch (6.00 kB or more)"


def test_another_python_and_cuda_are_said() -> None:
    """The nodes' Python beside the client's where they differ, and the nodes' CUDA."""
    assert lines(plan(python="3.11.9", cuda="12.8"))[0].endswith("Python 3.11.9 (3.11.7 here), CUDA 12.8")


def test_why_it_is_another_python_stands_at_the_end() -> None:
    """The reason beside the problems, or that it is not known yet."""
    moved = Problem(code="python-moved", subject="python", message="The nodes get Python 3.11.9: uv has no 3.11.7.")
    told = lines(msgspec.structs.replace(plan(python="3.11.9"), problems=(moved,)))
    assert "Python 3.11.9 (3.11.7 here)" in told[0]
    assert "python  The nodes get Python 3.11.9: uv has no 3.11.7." in told[-1]


def test_then_comes_what_is_not_trivially_exact() -> None:
    """What moved, with both versions, what is new, what is gone; then the rest that has something to say."""
    rows = lines(plan())[3:8]
    assert [row.split()[:2] for row in rows] == [
        ["moved", "numpy"],
        ["added", "jeepney"],
        ["dropped", "appnope"],
        ["shipped", "code-0"],
        ["fetched", "lxml"],
    ]
    assert "1.2.3 → 1.2.5  1.2.3 has no wheel there" in rows[0]


def test_what_is_exact_is_counted() -> None:
    """And listed with -v, after everything else."""
    assert lines(plan())[-1] == "2 more distributions exact (1 copied, 1 fetched); -v lists them too"
    assert lines(plan(DECISIONS[1]))[-1] == "1 distribution exact (1 copied); -v lists it too"
    rows = [row.split()[:2] for row in lines(plan(), verbose=True)[3:]]
    assert rows[-3:] == [["copied", "click"], ["fetched", "lxml"], ["fetched", "pandas"]]
    assert len(rows) == len(DECISIONS)


def test_what_was_changed_by_hand_is_never_plain() -> None:
    """A copied distribution with modified files, and one from elsewhere than an index, are shown."""
    git = Distribution(name="git", version="1.2.3", origin=Origin(kind=OriginKind.VCS, commit="abc"))
    shot = Snapshot(
        interpreter=make_interpreter(platform=MAC),
        distributions=(git, have("patched", modified=("purelib/patched.py",)), have("plain")),
        code=(),
    )
    assert [is_ordinary(decide(name, Action.COPY), shot) for name in ("git", "patched", "plain")] == [0, 0, 1]


def test_nothing_to_do_and_problems() -> None:
    """An empty plan says so; problems stand at the end."""
    empty = Plan(
        target=Target(platform=LINUX, python="3.11.7"),
        decisions=(),
        kit=(),
        problems=(Problem(code="x", subject="index", message="is slow."),),
    )
    text = lines(empty)
    assert text[0].startswith("nothing to do; for linux-x86_64")
    assert "index  is slow." in text[-1]
