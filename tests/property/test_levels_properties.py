"""Levels of whatever distributions, with whatever options, for whatever targets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from likewise.errors import UsageError
from likewise.model.plan import Level
from likewise.model.snapshot import Distribution, Origin, OriginKind, Snapshot
from likewise.planner.levels import local_for, platform_only, rule_for, specifier
from likewise.planner.options import LEVELS, PlanOptions, check_options
from likewise.planner.tables import critical_distributions, rows
from likewise.planner.tags import fits, is_pure, target_tags
from likewise.planner.targets import KNOWN, parse_platform, parse_target
from support.values import make_interpreter

NUMBER = st.integers(0, 9).map(str)
RELEASE = st.lists(NUMBER, min_size=1, max_size=4).map(".".join)
LOCAL = st.sampled_from(["", "+cpu", "+cu118", "+cu124", "+cu130", "+rocm6.2", "+pt25cu124", "+gabc", "+1"])
VERSION = st.builds(
    "".join, st.tuples(st.sampled_from(["", "1!"]), RELEASE, st.sampled_from(["", "rc1", ".post2", ".dev3"]), LOCAL)
)
TEXT = st.text("abc123.-+_", max_size=6)
CRITICAL = tuple(critical_distributions())
NAME = st.sampled_from([*CRITICAL, *(name.upper() for name in CRITICAL), "numpy", "tzdata", "Scikit_Learn", "x"])
OPTIONS = st.builds(
    PlanOptions,
    strict=st.booleans(),
    ignore=st.lists(NAME, max_size=2).map(tuple),
    levels=st.lists(st.tuples(NAME, st.sampled_from(LEVELS)), max_size=3).map(tuple),
)
TARGET = st.builds(
    lambda platform, cuda, python: parse_target(platform + cuda, python=python),
    st.sampled_from([name for name in KNOWN if name.startswith("linux")]),
    st.sampled_from(["", "-cuda11.8", "-cuda12.1", "-cuda12.8", "-cuda13.0"]),
    st.sampled_from(["3.10.4", "3.11.7", "3.14.0rc1"]),
)


def distribution(name: str, version: str) -> Distribution:
    return Distribution(name=name, version=version, origin=Origin(kind=OriginKind.INDEX))


@given(NAME, VERSION | TEXT, TARGET, OPTIONS)
def test_critical_is_exact_and_so_is_everything_strict(
    name: str, version: str, target: object, options: PlanOptions
) -> None:
    """Whatever is asked; and every rule has a reason."""
    rule = rule_for(distribution(name, version), target, options)  # type: ignore[arg-type]
    critical = name.lower() in CRITICAL
    assert rule.reason
    assert rule.level is Level.EXACT or not (critical or options.strict)
    assert rule.level is not Level.IGNORE


@given(OPTIONS)
def test_options_take_nothing_from_critical_ones(options: PlanOptions) -> None:
    """Where they would, they are refused; what passes has no level for a critical one but exact."""
    snapshot = Snapshot(interpreter=make_interpreter(), distributions=(), code=())
    try:
        check_options(snapshot, options)
    except UsageError as error:
        assert error.todo
    else:
        assert all(options.level_of(name) in (None, Level.EXACT) for name in CRITICAL)
        assert not (options.strict and any(level != "exact" for _, level in options.levels))


@given(st.sampled_from(list(Level)), VERSION, VERSION)
def test_a_level_allows_the_installed_version_and_what_shares_major_minor(
    level: Level, version: str, other: str
) -> None:
    """EXACT allows no other public version, MINOR no other major.minor and no other epoch."""
    allowed = SpecifierSet(specifier(level, version))
    assert allowed.contains(Version(version).public, prereleases=True)
    one, two = Version(version), Version(other)
    if allowed.contains(two.public, prereleases=True):
        if level is Level.EXACT:
            assert Version(one.public) == Version(two.public)
        if level is Level.MINOR:
            assert (one.epoch, one.major, one.minor) == (two.epoch, two.major, two.minor)


@given(VERSION | TEXT, TARGET)
def test_a_target_is_content_with_what_it_wants(version: str, target: object) -> None:
    """The label that a target wants is the one that it then keeps, and without CUDA it wants none for CUDA."""
    local = local_for(version, target)  # type: ignore[arg-type]
    public = version.partition("+")[0]
    if local:
        assert local_for(f"{public}+{local}", target) == local  # type: ignore[arg-type]
    assert "cu1" not in local or target.cuda  # type: ignore[attr-defined]


@given(st.sampled_from(KNOWN), st.sampled_from(KNOWN), st.data())
def test_whatever_exists_on_both_stays(client: str, target: str, data: st.DataObject) -> None:
    """A distribution vanishes only from a platform that its line does not name, and never on the client's own."""
    name, systems = data.draw(
        st.sampled_from([(n, s) for names, (s, _) in rows("platform_only.txt", 3) for n in names])
    )
    name = name.replace("*", "x")
    here, there = parse_platform(client), parse_platform(target)
    gone = bool(platform_only(name, here, there))

    def among(platform: object) -> bool:
        return bool({platform.os, f"{platform.os}-{platform.arch}"} & set(systems.split()))  # type: ignore[attr-defined]

    assert gone == (among(here) and not among(there))
    assert not platform_only(name, here, here)


@given(TARGET, st.data())
def test_every_tag_of_a_target_fits_it(target: object, data: st.DataObject) -> None:
    """And pure ones are those for any platform without an ABI."""
    tag = data.draw(st.sampled_from(target_tags(target)))  # type: ignore[arg-type]
    assert fits([tag, "cp27-cp27m-win32"], target)  # type: ignore[arg-type]
    assert is_pure([tag]) == (tag.split("-")[1:] == ["none", "any"])
