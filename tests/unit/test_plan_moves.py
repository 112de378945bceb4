"""The search for what has to move, apart from any resolver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.errors import UnsupportedError
from likewise.model.plan import Level
from likewise.model.target import Platform
from likewise.planner.levels import Rule
from likewise.planner.moves import Pin, smallest
from likewise.resolution.uv import python_platform


@given(st.sets(st.integers(0, 40), max_size=6))
def test_smallest_finds_exactly_what_is_needed(needed: set[int]) -> None:
    """Any set of necessary items is found, whatever its place, with few questions where it is small."""
    items = [str(number) for number in range(41)]
    wanted = {str(number) for number in needed}
    asked: list[frozenset[str]] = []

    def works(some: frozenset[str]) -> bool:
        asked.append(some)
        return wanted <= some

    assert set(smallest(items, works)) == wanted
    assert len(asked) <= 1 + 2 * max(1, len(wanted)) * 7


@given(st.lists(st.sets(st.integers(0, 15), min_size=1, max_size=4), min_size=1, max_size=4))
def test_smallest_leaves_nothing_superfluous(ways: list[set[int]]) -> None:
    """Where several parts would do, one of them is found, and nothing of it can be left out."""
    items = tuple(str(number) for number in range(16))
    choices = [{str(number) for number in way} for way in ways]

    def works(some: frozenset[str]) -> bool:
        return any(choice <= some for choice in choices)

    found = smallest(items, works)
    assert works(frozenset(found))
    assert not any(works(frozenset(found) - {one}) for one in found)


def test_smallest_of_nothing() -> None:
    """What works without anything needs nothing."""
    assert smallest(("a", "b"), lambda some: True) == ()
    assert smallest((), lambda some: True) == ()


@pytest.mark.parametrize(
    ("version", "level", "exact", "steps"),
    [
        ("1.2.3", Level.MINOR, "==1.2.3", ((">=1.2.3,!=1.2.3,==1.2.*", True), ("<1.2.3,==1.2.*", False))),
        ("1.2.3+cu124", Level.MINOR, "==1.2.3", ((">=1.2.3,!=1.2.3,==1.2.*", True), ("<1.2.3,==1.2.*", False))),
        ("1!1.2.3", Level.MINOR, "==1!1.2.3", ((">=1!1.2.3,!=1!1.2.3,==1!1.2.*", True), ("<1!1.2.3,==1!1.2.*", False))),
        ("2024.1", Level.ANY, "==2024.1", ((">=2024.1,!=2024.1", True), ("<2024.1", False))),
        ("1.2.3", Level.EXACT, "==1.2.3", ()),
    ],
)
def test_where_a_pin_may_go(version: str, level: Level, exact: str, steps: tuple[tuple[str, bool], ...]) -> None:
    """The next higher one first, then the next lower one, within what the rule allows."""
    pin = Pin(name="fast", version=version, prefer=version, rule=Rule(level, ""))
    assert (pin.exact, pin.steps) == (exact, steps)
    assert pin.is_met_by(version.partition("+")[0])
    assert not pin.is_met_by("0.1")


@pytest.mark.parametrize(
    ("platform", "spelled"),
    [
        (("linux", "x86_64", "glibc", "2.28"), "x86_64-manylinux_2_28"),
        (("linux", "x86_64", "glibc", "2.30"), "x86_64-manylinux_2_28"),
        (("linux", "aarch64", "glibc", "2.36"), "aarch64-manylinux_2_36"),
        (("linux", "aarch64", "glibc", "2.99"), "aarch64-manylinux_2_40"),
        (("linux", "x86_64", "glibc", "2.17"), "x86_64-manylinux_2_17"),
        (("linux", "x86_64", "musl", "1.2"), "x86_64-unknown-linux-musl"),
        (("linux", "aarch64", "musl", "1.3"), "aarch64-unknown-linux-musl"),
        (("linux", "x86_64", "musl", ""), "x86_64-unknown-linux-musl"),
        (("macos", "aarch64", "", ""), "aarch64-apple-darwin"),
        (("windows", "x86_64", "", ""), "x86_64-pc-windows-msvc"),
    ],
)
def test_platforms_as_uv_spells_them(platform: tuple[str, str, str, str], spelled: str) -> None:
    """Never a newer C library than the target has."""
    os, arch, libc, version = platform
    assert python_platform(Platform(os=os, arch=arch, libc=libc, libc_version=version)) == spelled


@pytest.mark.parametrize(
    "platform",
    [
        ("linux", "x86_64", "glibc", "2.12"),
        ("linux", "s390x", "glibc", "2.28"),
        ("linux", "x86_64", "musl", "1.1"),
        ("freebsd", "x86_64", "glibc", ""),
    ],
)
def test_platforms_that_uv_does_not_know(platform: tuple[str, str, str, str]) -> None:
    """They are refused, not guessed."""
    os, arch, libc, version = platform
    with pytest.raises(UnsupportedError, match="can't be chosen"):
        python_platform(Platform(os=os, arch=arch, libc=libc, libc_version=version))
