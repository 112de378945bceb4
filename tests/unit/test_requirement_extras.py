"""Requirements that belong to an extra are not even parsed while nobody asks for it; the answer is the same."""

from __future__ import annotations

import itertools

import pytest
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from likewise.model.markers import marker_environment
from likewise.model.snapshot import Distribution, Origin, OriginKind, Snapshot
from likewise.model.target import Platform, Target
from likewise.planner import requirements
from likewise.planner.requirements import RequirementGraph
from support.values import make_interpreter

PLATFORM = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.36")
TARGET = Target(platform=PLATFORM, python="3.11.7")
EXTRAS = ("x", "a-b", "or")
WRITTEN = (
    "plain",
    "plain-if ; python_version > '3'",
    "never ; python_version < '3'",
    "for-x ; extra == 'x'",
    'double ; extra == "x"',
    "tight;extra=='x'",
    "reversed ; 'x' == extra",
    "spelled ; extra == 'A_B'",
    "both ; python_version > '3' and extra == 'x'",
    "not-here ; sys_platform == 'win32' and extra == 'x'",
    "either ; python_version > '3' or extra == 'x'",
    "either-extra ; extra == 'x' or extra == 'a-b'",
    "two ; extra == 'x' and extra == 'a-b'",
    "in-brackets ; (python_version > '3' or os_name == 'nt') and extra == 'x'",
    "without ; extra != 'x'",
    "called-or ; extra == 'or'",
    "elsewhere ; platform_machine not in 'arm' and extra == 'x'",
    "url @ https://host.test/a;extra=='x'",
    "url-for-x @ https://host.test/a ; extra == 'x'",
    "with-extras[y]>=1.0 ; extra == 'x'",
    "broken >> 1 ; extra == 'x'",
)


def snapshot(asked: tuple[str, ...]) -> Snapshot:
    """One distribution with all of `WRITTEN`, and another that asks for some of its extras."""
    interpreter = make_interpreter(platform=PLATFORM)
    asking = f"one[{','.join(asked)}]" if asked else "one"
    distributions = [
        Distribution(
            name=name, version="1", origin=Origin(kind=OriginKind.INDEX), requires=requires, provides_extras=EXTRAS
        )
        for name, requires in (("one", WRITTEN), ("two", (asking,)))
    ]
    return Snapshot(interpreter=interpreter, distributions=tuple(distributions), code=(), problems=())


def parsed(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def expected(asked: tuple[str, ...]) -> frozenset[str]:
    """What packaging says of every requirement."""
    found = set()
    for requirement in filter(None, map(parsed, WRITTEN)):
        environments = [{**marker_environment(TARGET), "extra": extra} for extra in ("", *asked)]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            found.add(canonicalize_name(requirement.name))
    return frozenset(found)


@pytest.mark.parametrize("asked", [c for n in range(4) for c in itertools.combinations(EXTRAS, n)])
def test_the_answer_is_that_of_packaging(asked: tuple[str, ...]) -> None:
    """Whatever extras are asked for, the same requirements apply as when each is parsed and evaluated."""
    assert RequirementGraph(snapshot(asked), TARGET).requires("one") == expected(asked)


def test_what_nobody_asks_for_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most requirements of a large environment are for extras, and parsing them takes longer than all the rest."""
    texts: list[str] = []
    monkeypatch.setattr(requirements, "Requirement", lambda text: texts.append(text) or Requirement(text))
    RequirementGraph(snapshot(()), TARGET)
    assert "plain" in texts
    assert not {"for-x ; extra == 'x'", "spelled ; extra == 'A_B'"} & set(texts)


def test_what_mentions_a_name_is_found_without_parsing_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However a name is written and whatever follows it; the answer is that of parsing every requirement."""
    names = {"spelled", "url", "url-for-x", "with-extras", "broken", "tight", "never", "nobody"}
    assert RequirementGraph(snapshot(()), TARGET).mentions("one", names) == expected(EXTRAS) & names
    graph = RequirementGraph(snapshot(()), TARGET)
    texts: list[str] = []
    monkeypatch.setattr(requirements, "Requirement", lambda text: texts.append(text) or Requirement(text))
    assert graph.mentions("one", {"double"}) == {"double"}
    assert texts == ['double ; extra == "x"']
