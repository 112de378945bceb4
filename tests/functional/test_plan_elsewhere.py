"""Plans for another platform: real questions to uv about a real index on loopback."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from likewise.errors import PlanError, UnsupportedError
from likewise.model.plan import Action, Decision, Level, LockedFile, Plan
from likewise.model.snapshot import OriginKind, Severity, Snapshot
from likewise.model.target import Platform
from likewise.planner.elsewhere import plan_elsewhere
from likewise.planner.options import PlanOptions
from likewise.planner.resolver import Question, Unsolvable, Wanted
from likewise.planner.targets import parse_target
from support.indexes import IndexServer, dead_url, offer, offer_sdist, serve_index
from support.plans import (
    LINUX,
    LINUX_TAG,
    MAC_TAG,
    Asked,
    decided,
    installed,
    plan_with,
    pure,
    said,
    snapshot_of,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the index offers."""
    return tmp_path / "offered"


@pytest.fixture
def index(folder: Path) -> Iterator[IndexServer]:
    """An index that answers well."""
    folder.mkdir(exist_ok=True)
    with serve_index(folder) as server:
        yield server


@pytest.fixture
def resolver(tmp_path: Path, index: IndexServer) -> Asked:
    """uv, asking `index`."""
    return Asked(tmp_path, index.url)


def linux(folder: Path, name: str, *versions: str, requires: tuple[str, ...] = (), tag: str = LINUX_TAG) -> None:
    """Wheels for Linux."""
    for version in versions:
        offer(folder, name, version, tag=tag, requires=requires)


# ---- exactly


def test_compiled_is_fetched_exactly_and_pure_is_copied(folder: Path, index: IndexServer, resolver: Asked) -> None:
    """One question settles it; nobody asks the index about what is copied."""
    linux(folder, "fast", "1.2.3", "1.2.4", "2.0.0", requires=("plain>=1",))
    offer(folder, "plain", "9.0.0")
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3", "plain>=1"), pure("plain", "1.5.0", "fast")))
    fast, plain = decided(plan, "fast"), decided(plan, "plain")
    assert (fast.action, fast.version, fast.installed, fast.level) == (Action.FETCH, "1.2.3", "", Level.MINOR)
    assert fast.file is not None
    assert fast.file.filename == f"fast-1.2.3-{LINUX_TAG}.whl"
    assert fast.file.url == f"{index.files_url}{fast.file.filename}"
    assert fast.file.sha256 == _sha256(folder / fast.file.filename)
    assert (plain.action, plain.version, plain.file) == (Action.COPY, "1.5.0", None)
    assert len(resolver.questions) == 1
    assert index.asked_for("plain") == 0
    assert plan.problems == ()
    assert plan.target == LINUX


def test_files_elsewhere_are_all_fetched(folder: Path, resolver: Asked) -> None:
    """Without the snapshot's files even what is pure comes from the index; likewise alone never does."""
    linux(folder, "fast", "1.2.3")
    for name, version in (("plain", "1.5.0"), ("distributed", "2024.8.0"), ("msgspec", "0.18.6")):
        offer(folder, name, version)
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3"), pure("plain", "1.5.0")), here=False)
    actions = {d.name: d.action for d in plan.decisions}
    assert actions.pop("likewise") is Action.COPY
    assert set(actions.values()) == {Action.FETCH}
    assert plan.kit == ("distributed", "likewise", "msgspec")


def test_files_elsewhere_need_no_kit(folder: Path, resolver: Asked) -> None:
    """A list of what somebody else has installed is planned although no cluster could run it; it says so."""
    linux(folder, "fast", "1.2.3")
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3"), kit=False), here=False)
    assert decided(plan, "fast").version == "1.2.3"
    assert said(plan, "kit-missing") == [
        "Nodes need distributed, likewise and msgspec to join a cluster, which this environment does not have."
    ]


def test_kit_has_to_be_installed_here(folder: Path, resolver: Asked) -> None:
    """The client itself can't do without."""
    linux(folder, "fast", "1.2.3")
    with pytest.raises(PlanError, match="lacks what every node needs"):
        plan_with(resolver, snapshot_of(installed("fast", "1.2.3"), kit=False))


def test_best_wheel_is_taken(folder: Path, resolver: Asked) -> None:
    """Of several that fit: compiled for the newest system that the target has."""
    for tag in ("py3-none-any", "cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_28_x86_64"):
        offer(folder, "fast", "1.2.3", tag=tag)
    offer(folder, "fast", "1.2.3", tag="cp311-cp311-manylinux_2_34_x86_64")
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3")))
    file = decided(plan, "fast").file
    assert file is not None
    assert file.filename == "fast-1.2.3-cp311-cp311-manylinux_2_28_x86_64.whl"


@pytest.mark.parametrize(("name", "tag"), [("linux-64-glibc2.17", "2_17_x86_64"), ("linux-aarch64", "2_28_aarch64")])
def test_target_decides_about_wheels(folder: Path, resolver: Asked, name: str, tag: str) -> None:
    """An older C library and another architecture get other files of the same version."""
    for each in ("2_17_x86_64", "2_28_x86_64", "2_28_aarch64"):
        offer(folder, "fast", "1.2.3", tag=f"cp311-cp311-manylinux_{each}")
    target = parse_target(name, python="3.11.7")
    file = decided(plan_with(resolver, snapshot_of(installed("fast", "1.2.3")), target=target), "fast").file
    assert file is not None
    assert file.filename.endswith(f"{tag}.whl")


def test_prerelease_stays_one(folder: Path, resolver: Asked) -> None:
    """What is installed is asked for, whatever it is called."""
    linux(folder, "fast", "1.2.3rc1", "1.2.3", "1.2.4")
    assert decided(plan_with(resolver, snapshot_of(installed("fast", "1.2.3rc1"))), "fast").version == "1.2.3rc1"


def test_file_of_own_lock_is_taken(folder: Path, resolver: Asked) -> None:
    """A lock of the user's says which file it is, hash included; for another version it says nothing."""
    linux(folder, "fast", "1.2.3")
    linux(folder, "other", "1.0.0")
    own = {
        name: LockedFile(filename=f"{name}-1.2.3-{LINUX_TAG}.whl", url="https://files.example/a.whl", sha256="ab" * 32)
        for name in ("fast", "other")
    }
    snapshot = snapshot_of(installed("fast", "1.2.3"), installed("other", "1.0.0"))
    plan = plan_elsewhere(snapshot, LINUX, PlanOptions(), resolver, here=True, locked=own)
    assert decided(plan, "fast").file == own["fast"]
    assert decided(plan, "other").file != own["other"]


# ---- nearest


@pytest.mark.parametrize(
    ("offered", "taken", "reason"),
    [
        (
            ("1.2.1", "1.2.5", "1.2.9", "1.3.0"),
            "1.2.5",
            "there is no wheel of 1.2.3 for linux-x86_64; the next higher one within 1.2",
        ),
        (
            ("1.2.3.post1", "1.2.4"),
            "1.2.3.post1",
            "there is no wheel of 1.2.3 for linux-x86_64; the next higher one within 1.2",
        ),
        (
            ("1.2.0", "1.2.2", "1.3.0", "1.2.4rc1"),
            "1.2.2",
            "there is no wheel of 1.2.3 for linux-x86_64; the next lower one within 1.2, since there is no higher one",
        ),
    ],
)
def test_nearest_within_minor(folder: Path, resolver: Asked, offered: tuple[str, ...], taken: str, reason: str) -> None:
    """The next higher version of the same major.minor, else the next lower; no prerelease that nobody asked for."""
    linux(folder, "fast", *offered)
    offer(folder, "fast", "1.2.3", tag=MAC_TAG)
    linux(folder, "other", "3.0.0", "3.0.1")
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3"), installed("other", "3.0.0", "fast")))
    fast = decided(plan, "fast")
    assert (fast.version, fast.installed, fast.reason) == (taken, "1.2.3", reason)
    assert decided(plan, "other").version == "3.0.0"


def test_any_takes_the_nearest_of_all(folder: Path, resolver: Asked) -> None:
    """By the user's wish, across major.minor."""
    linux(folder, "fast", "1.0.0", "2.1.0", "3.0.0")
    snapshot = snapshot_of(installed("fast", "1.2.3"))
    fast = decided(plan_with(resolver, snapshot, levels=(("fast", "any"),)), "fast")
    assert (fast.version, fast.level, fast.reason) == (
        "2.1.0",
        Level.ANY,
        "there is no wheel of 1.2.3 for linux-x86_64; the next higher one",
    )


@pytest.mark.parametrize("level", ["1.2.3 minor", "1.2 by its form", "1.2.3 exact", "1.2.3 strict"])
def test_nothing_allowed_is_left(folder: Path, resolver: Asked, level: str) -> None:
    """Where nothing is allowed, the distribution is left out, which is an error; what helps is said."""
    version = level.partition(" ")[0]
    linux(folder, "fast", "1.3.0", "1.3.1", *(["1.2.4"] if "minor" not in level else []))
    snapshot = snapshot_of(installed("fast", version))
    if "strict" in level:
        with pytest.raises(PlanError, match=r"fast: 1\.2\.3 is not offered"):
            plan_with(resolver, snapshot, strict=True)
        return
    levels = (("fast", "exact"),) if "exact" in level else ()
    plan = plan_with(resolver, snapshot, levels=levels)
    assert decided(plan, "fast").action is Action.DROP
    (message,) = said(plan, "not-on-target")
    nearest = "1.3.0" if "minor" in level else "1.2.4"
    assert message.endswith(f"--level fast=any takes {nearest}, --ignore fast leaves it out.")
    assert decided(plan_with(resolver, snapshot, levels=(("fast", "any"),)), "fast").version == nearest
    with pytest.raises(PlanError, match="fast"):
        plan_with(resolver, snapshot, levels=levels, fail_on="any")


def test_critical_is_exact_or_refused(folder: Path, resolver: Asked) -> None:
    """msgpack may not move, however near the next version is."""
    linux(folder, "msgpack", "1.1.1", "1.1.0")
    with pytest.raises(PlanError, match=r"msgpack: 1\.1\.2 is not offered for linux-x86_64") as caught:
        plan_with(resolver, snapshot_of(installed("msgpack", "1.1.2")))
    assert "Install 1.1.1 here" in str(caught.value)
    assert "--" not in str(caught.value)


def test_moved_one_has_requirements_of_its_own(folder: Path, resolver: Asked) -> None:
    """What the new version requires counts: another has to move, too, and no further than it must."""
    linux(folder, "fast", "1.2.5", requires=("base>=2.0.4",))
    linux(folder, "base", "2.0.0", "2.0.3", "2.0.4", "2.0.9")
    linux(folder, "free", "1.0.0", "1.0.1", requires=("base>=1",))
    snapshot = snapshot_of(
        installed("fast", "1.2.3", "base>=2"), installed("base", "2.0.3"), installed("free", "1.0.0", "base>=1")
    )
    plan = plan_with(resolver, snapshot)
    assert _versions(plan, "fast", "base", "free") == ["1.2.5", "2.0.4", "1.0.0"]
    assert decided(plan, "base").reason == "2.0.3 does not go with fast there; the next higher one within 2.0"


def test_a_copied_one_holds_others_back(folder: Path, resolver: Asked) -> None:
    """What pure distributions require counts for what moves, although they come from no index."""
    linux(folder, "fast", "1.2.2", "1.2.4", "1.2.5")
    snapshot = snapshot_of(installed("fast", "1.2.3"), pure("plain", "1.0.0", "fast<1.2.4"))
    plan = plan_with(resolver, snapshot)
    fast = decided(plan, "fast")
    assert fast.version == "1.2.2"
    assert decided(plan, "plain").action is Action.COPY


def test_moves_are_minimal(folder: Path, resolver: Asked) -> None:
    """Restoring any single one that moved leaves a question without an answer; tried."""
    linux(folder, "a", "1.0.5", requires=("b>=1.0.2",))
    linux(folder, "b", "1.0.0", "1.0.2", "1.0.3", requires=("c>=1.0.1",))
    linux(folder, "c", "1.0.0", "1.0.1", "1.0.2")
    linux(folder, "d", "1.0.0", "1.0.1", requires=("c",))
    offer(folder, "b", "1.0.1", tag=LINUX_TAG)
    snapshot = snapshot_of(
        installed("a", "1.0.0", "b"), installed("b", "1.0.1"), installed("c", "1.0.0"), installed("d", "1.0.0", "c")
    )
    plan = plan_with(resolver, snapshot)
    assert _versions(plan, "a", "b", "c", "d") == ["1.0.5", "1.0.2", "1.0.1", "1.0.0"]
    _assert_minimal(plan, snapshot, resolver)


def _assert_minimal(plan: Plan, snapshot: Snapshot, resolver: Asked) -> None:
    """Ask for each moved one as it is installed, with all others free within major.minor if they moved, else fixed."""
    fetched = [d for d in plan.decisions if d.action is Action.FETCH and not d.new]
    moved = {d.name for d in fetched if d.installed}
    assert moved
    for restored in moved:
        wanted = tuple(
            Wanted(name=d.name, specifier=f"=={d.installed}" if d.name == restored else _range(d)) for d in fetched
        )
        with pytest.raises(Unsolvable):
            resolver.resolve(Question(target=LINUX, wanted=wanted))


def _range(d: Decision) -> str:
    major, minor = d.version.split(".")[:2]
    return f"=={major}.{minor}.*" if d.installed else f"=={d.version}"


# ---- what the snapshot itself violates


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("holder", ["compiled", "pure"])
def test_violated_requirement_stays_violated(folder: Path, resolver: Asked, holder: str, told: bool) -> None:
    """The user lives with it, so the nodes do: a warning, no move; also where only the index knows what is required."""
    requires = ("base<2", "base2") if holder == "compiled" else ()
    linux(folder, "fast", "1.2.3", "1.2.4", requires=requires)
    linux(folder, "base", "1.9.0", "2.0.0", "2.0.1")
    linux(folder, "base2", "1.0.0")
    makers = {"compiled": installed, "pure": pure}
    mine = ("base<2", "base2") if told or holder == "pure" else ()
    snapshot = snapshot_of(
        makers[holder]("fast", "1.2.3", *mine), installed("base", "2.0.0"), installed("base2", "1.0.0")
    )
    plan = plan_with(resolver, snapshot)
    assert _versions(plan, "fast", "base") == ["1.2.3", "2.0.0"]
    (message,) = said(plan, "violated-requirement")
    assert message in (
        "fast 1.2.3 requires base<2, and 2.0.0 is installed; it stays so on the nodes.",
        "fast does not accept base 2.0.0, which is installed; it stays so on the nodes.",
    )
    assert [p.severity for p in plan.problems] == [Severity.WARNING]


def test_several_violations_are_found_by_asking(folder: Path, resolver: Asked) -> None:
    """A list of versions alone: each that others do not accept is named, and no other."""
    names = [f"n{number}" for number in range(12)]
    for name in names:
        linux(
            folder,
            name,
            "1.0.0",
            "1.0.1",
            requires=("n3<1",) if name == "n7" else ("n9>1.0.0",) if name == "n2" else (),
        )
    snapshot = snapshot_of(*(installed(name, "1.0.0") for name in names), kit=False)
    plan = plan_with(resolver, snapshot, here=False)
    assert {p.subject: p.message for p in plan.problems if p.code == "violated-requirement"} == {
        "n3": "n7 does not accept n3 1.0.0, which is installed; it stays so on the nodes.",
        "n9": "n2 does not accept n9 1.0.0, which is installed; it stays so on the nodes.",
    }
    assert set(_versions(plan, *names)) == {"1.0.0"}


def test_violated_and_lacking_at_once(folder: Path, resolver: Asked) -> None:
    """One does not hide the other."""
    linux(folder, "fast", "1.2.3", requires=("base<2",))
    linux(folder, "base", "2.0.0")
    linux(folder, "gone", "1.0.4", requires=("helper>=1.0.2",))
    linux(folder, "helper", "1.0.0", "1.0.2")
    names = {"fast": "1.2.3", "base": "2.0.0", "gone": "1.0.3", "helper": "1.0.0"}
    plan = plan_with(resolver, snapshot_of(*(installed(n, v) for n, v in names.items()), kit=False), here=False)
    assert _versions(plan, *names) == ["1.2.3", "2.0.0", "1.0.4", "1.0.2"]
    assert [p.subject for p in plan.problems if p.code == "violated-requirement"] == ["base"]


def test_conflict_on_the_target_alone_moves(folder: Path, resolver: Asked) -> None:
    """A requirement that holds on Linux only is none that the snapshot violates: what it asks for is done."""
    marked = "base<2.0.5; sys_platform == 'linux'"
    linux(folder, "fast", "1.2.3", requires=(marked,))
    linux(folder, "base", "2.0.4", "2.0.5")
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3", marked), installed("base", "2.0.5")))
    assert _versions(plan, "fast", "base") == ["1.2.3", "2.0.4"]
    assert plan.problems == ()


# ---- on one platform only


def test_platform_only_stays_behind(folder: Path, index: IndexServer, resolver: Asked) -> None:
    """With a reason, even where something else requires it without a marker, and nobody asks for it."""
    linux(folder, "fast", "1.2.3", requires=("appnope", "helper; sys_platform == 'darwin'"))
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3", "appnope"), pure("appnope", "0.1.4")))
    appnope = decided(plan, "appnope")
    assert appnope.action is Action.DROP
    assert appnope.reason.startswith("only on macOS")
    assert index.asked_for("appnope") == 0
    assert plan.get("helper") is None


def test_what_the_target_alone_requires_comes_in(folder: Path, resolver: Asked) -> None:
    """Required by something copied, by something fetched, through an extra, and by another that comes in."""
    linux(folder, "fast", "1.2.3", requires=("runtime>=1", "plain[x]"))
    linux(folder, "runtime", "1.0.0", "1.4.0", requires=("deeper",))
    for name in ("deeper", "portal", "extra-one"):
        offer(folder, name, "3.0.0")
    plan = plan_with(
        resolver,
        snapshot_of(
            installed("fast", "1.2.3", "plain[x]"),
            pure(
                "plain",
                "1.0.0",
                "portal; sys_platform == 'linux'",
                "extra-one; extra == 'x' and sys_platform == 'linux'",
                "never; extra == 'y'",
                provides_extras=("x", "y"),
            ),
        ),
    )
    new = {d.name: (d.version, d.action, d.reason) for d in plan.decisions if d.new}
    assert new == {
        "runtime": ("1.4.0", Action.FETCH, "required on linux-x86_64 by fast"),
        "deeper": ("3.0.0", Action.FETCH, "required on linux-x86_64 by runtime"),
        "portal": ("3.0.0", Action.FETCH, "required on linux-x86_64 by plain"),
        "extra-one": ("3.0.0", Action.FETCH, "required on linux-x86_64 by plain"),
    }
    assert all(d.file for d in plan.decisions if d.new)


def test_extras_for_the_cluster_alone(folder: Path, resolver: Asked) -> None:
    """The highest version that fits comes in, with what it requires."""
    linux(folder, "cupy-cuda12x", "12.0.0", "13.1.0", "14.0.0", requires=("fastrlock",))
    linux(folder, "fastrlock", "0.8.2")
    plan = plan_with(
        resolver, snapshot_of(pure("plain", "1.0.0")), extras=("cupy-cuda12x<14", "none; sys_platform=='win32'")
    )
    assert _versions(plan, "cupy-cuda12x", "fastrlock") == ["13.1.0", "0.8.2"]
    assert decided(plan, "cupy-cuda12x").reason == "asked for on the cluster alone"
    assert decided(plan, "cupy-cuda12x").new


@pytest.mark.parametrize(
    ("version", "target", "taken", "warned"),
    [
        ("2.5.1+cu124", "linux-64", "2.5.1+cpu", False),
        ("2.5.1+cu124", "linux-64-cuda12.8", "2.5.1+cu124", False),
        ("2.5.1+cpu", "linux-64-cuda11.8", "2.5.1+cu118", False),
        ("2.5.1", "linux-64-cuda12.8", "2.5.1", False),
        ("2.5.1+cu92", "linux-64-cuda10.2", "2.5.1+cu124", True),
    ],
)
def test_local_versions_follow_the_accelerator(
    folder: Path, resolver: Asked, version: str, target: str, taken: str, warned: bool
) -> None:
    """The build for what the nodes have; where no index has that, another one of the same version, and a warning."""
    linux(folder, "torch", "2.5.1", "2.5.1+cpu", "2.5.1+cu118", "2.5.1+cu124", "2.5.2+cpu")
    goal = parse_target(target, python="3.11.7")
    plan = plan_with(resolver, snapshot_of(installed("torch", version)), target=goal)
    assert decided(plan, "torch").version == taken
    assert (f"with CUDA {goal.cuda}" if goal.cuda else "with no accelerator") in decided(plan, "torch").reason or (
        warned or taken == version
    )
    assert bool(said(plan, "other-build")) == warned


@pytest.mark.parametrize(
    ("musl", "taken"), [("musllinux_1_1", True), ("musllinux_1_2", True), ("musllinux_1_3", False)]
)
def test_musl_means_musl_1_2(folder: Path, resolver: Asked, musl: str, taken: bool) -> None:
    """uv takes wheels for 1.2, and none for a later one; so what has an older one is refused."""
    linux(folder, "fast", "1.2.3", tag=f"cp311-cp311-{musl}_x86_64")
    snapshot = snapshot_of(installed("fast", "1.2.3"))
    plan = plan_with(resolver, snapshot, target=parse_target("linux-64-musl1.2", python="3.11.7"))
    assert bool(decided(plan, "fast").file) == taken
    with pytest.raises(UnsupportedError, match="can't be chosen"):
        plan_with(resolver, snapshot, target=parse_target("linux-64-musl1.1", python="3.11.7"))


@pytest.mark.parametrize(
    ("here", "there", "planned"),
    [
        ("1.0.8+mine", ("1.0.8",), False),
        ("1.0.8", ("1.0.8+x",), False),
        ("1.0.8", ("1.0.8", "1.0.8+x"), True),
        ("1.0.8+mine", ("1.0.8", "1.0.8+mine"), True),
    ],
)
def test_another_build_of_something_critical_is_refused(
    folder: Path, resolver: Asked, here: str, there: tuple[str, ...], planned: bool
) -> None:
    """Somebody's own build is what both sides speak; of other distributions the public one comes with a warning."""
    for name in ("msgpack", "speedups"):
        linux(folder, name, *there)
    plan = plan_with(resolver, snapshot_of(installed("speedups", here)))
    assert decided(plan, "speedups").version == (here if planned else there[0])
    assert bool(said(plan, "other-build")) != planned
    if planned:
        assert decided(plan_with(resolver, snapshot_of(installed("msgpack", here))), "msgpack").version == here
        return
    with pytest.raises(PlanError, match=f"No index has {re.escape(here)} for .* must be the same"):
        plan_with(resolver, snapshot_of(installed("msgpack", here)))


# ---- what can't be had


def test_sdist_alone_is_refused(folder: Path, resolver: Asked) -> None:
    """Nothing is built for another platform; the sentence says what to do. Nothing of the sdist ran here."""
    offer_sdist(folder, "source", "1.2.3")
    offer(folder, "source", "1.2.3", tag=MAC_TAG)
    plan = plan_with(resolver, snapshot_of(installed("source", "1.2.3")))
    assert said(plan, "not-on-target") == [
        "1.2.3 is offered as an sdist only, without a wheel for linux-x86_64. To have it, build it there "
        "(pip wheel source==1.2.3) and offer the wheel on an index; --ignore source leaves it out."
    ]


def test_each_absence_has_its_sentence(folder: Path, resolver: Asked) -> None:
    """For the client's platform only; removed; known to nobody. All in one plan, and the rest of it stands."""
    offer(folder, "maconly", "1.2.3", tag=MAC_TAG)
    linux(folder, "removed", "4.0.0")
    linux(folder, "fine", "1.0.0", requires=("nobody",))
    names = {"maconly": "1.2.3", "removed": "1.2.3", "nobody": "1.2.3", "fine": "1.0.0"}
    plan = plan_with(resolver, snapshot_of(*(installed(n, v) for n, v in names.items())))
    assert {p.subject: p.message for p in plan.problems} == {
        "maconly": "1.2.3 has wheels for macos-aarch64 and none for linux-x86_64. --ignore maconly leaves it out.",
        "removed": "1.2.3 is not offered for linux-x86_64: removed, or never on this index. --level "
        "removed=any takes 4.0.0, --ignore removed leaves it out.",
        "nobody": "No index has any version for linux-x86_64. If it came from another index, name that "
        "one as pip or uv know it (UV_INDEX, extra-index-url); --ignore nobody leaves it out.",
    }
    assert {p.severity for p in plan.problems} == {Severity.ERROR}
    assert decided(plan, "fine").version == "1.0.0"
    assert decided(plan, "nobody").action is Action.DROP


def test_first_index_that_has_a_name_decides(folder: Path, tmp_path: Path, resolver: Asked) -> None:
    """A name of one's own is never taken from a public index, but the sentence says that it is there."""
    linux(folder, "fast", "1.2.3", "1.2.4")
    linux(tmp_path / "own", "fast", "2.0.0")
    with serve_index(tmp_path / "own") as own:
        both = Asked(tmp_path, resolver.index, arguments=["--index", own.url])
        plan = plan_with(both, snapshot_of(installed("fast", "1.2.3")))
    assert decided(plan, "fast").action is Action.DROP
    assert said(plan, "not-on-target") == [
        "1.2.3 is not on the first index that has the name, only on another one. If all your indexes may "
        "be trusted with this name, ask all of them: UV_INDEX_STRATEGY=unsafe-best-match; --level fast=any takes "
        "2.0.0, --ignore fast leaves it out."
    ]


def test_yanked_stays_with_a_note(folder: Path, tmp_path: Path) -> None:
    """PEP 592: a yanked version may be used by who pins it. As a next nearest one it is none."""
    linux(folder, "fast", "1.2.3", "1.2.4")
    linux(folder, "other", "1.0.1", "1.0.2")
    yanked = {f"fast-1.2.3-{LINUX_TAG}.whl": "wrong metadata", f"other-1.0.1-{LINUX_TAG}.whl": ""}
    with serve_index(folder, yanked=yanked) as index:
        plan = plan_with(
            Asked(tmp_path, index.url), snapshot_of(installed("fast", "1.2.3"), installed("other", "1.0.0"))
        )
    assert _versions(plan, "fast", "other") == ["1.2.3", "1.0.2"]
    assert said(plan, "yanked") == [
        "fast 1.2.3 was yanked from its index (wrong metadata); the nodes get it all the same, like the client."
    ]


@pytest.mark.parametrize("kind", [OriginKind.VCS, OriginKind.ARCHIVE, OriginKind.DIRECTORY, OriginKind.EDITABLE])
def test_compiled_from_no_index_is_named(folder: Path, index: IndexServer, resolver: Asked, kind: OriginKind) -> None:
    """An index may offer something else of that name and version, so it is not asked; a pure one is shipped."""
    linux(folder, "own", "1.2.3")
    plan = plan_with(resolver, snapshot_of(installed("own", "1.2.3", origin=kind), pure("mine", "1.0", origin=kind)))
    assert decided(plan, "own").action is Action.DROP
    assert decided(plan, "mine").action is (Action.BUILD if kind is OriginKind.EDITABLE else Action.COPY)
    assert index.asked_for("own") == 0
    (message,) = said(plan, "not-asked")
    assert message.startswith(("Installed from ", "An editable"))
    assert message.endswith(
        "compiled for the client. Offer a wheel for linux-x86_64 on an index and install it from there, or leave it "
        "out: --ignore own."
    )


def test_changed_files_do_not_travel(folder: Path, resolver: Asked) -> None:
    """A wheel from an index has none of what was patched here; that is said."""
    linux(folder, "fast", "1.2.3")
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3", modified=("purelib/fast.py",))))
    assert said(plan, "modified-elsewhere") == ["1 file modified here; the nodes get the wheel as it was published."]


def test_ignored_and_not_chosen_are_left_out(folder: Path, index: IndexServer, resolver: Asked) -> None:
    """As on the same platform; nobody asks for them."""
    linux(folder, "fast", "1.2.3")
    linux(folder, "slow", "1.2.3")
    snapshot = snapshot_of(installed("fast", "1.2.3"), installed("slow", "1.2.3"))
    assert decided(plan_with(resolver, snapshot, ignore=("slow",)), "slow").reason == "left out as asked"
    assert decided(plan_with(resolver, snapshot, only=("fast",)), "slow").action is Action.DROP
    assert index.asked_for("slow") == 0


# ---- conflicts


def test_conflict_names_who_requires_what_and_what_helps(folder: Path, resolver: Asked) -> None:
    """A conflict that is really there; the options that it suggests make a plan."""
    linux(folder, "fast", "1.2.5", "1.3.0", requires=("base>=3",))
    offer(folder, "fast", "1.2.9", tag=LINUX_TAG, requires=("base>=3",))
    linux(folder, "base", "2.0.3", "2.0.4")
    linux(folder, "bystander", "1.0.0", requires=("base",))
    snapshot = snapshot_of(
        installed("fast", "1.2.3", "base>=2"), installed("base", "2.0.3"), installed("bystander", "1.0.0", "base")
    )
    with pytest.raises(PlanError) as caught:
        plan_with(resolver, snapshot)
    error = caught.value
    assert error.details["conflict"] == ["fast"]
    assert "bystander" not in error.what
    assert "base>=3" in error.what
    assert error.details["helps"] == "--ignore fast"
    assert "--ignore fast" in error.todo
    assert decided(plan_with(resolver, snapshot, ignore=("fast",)), "base").version == "2.0.3"


def test_conflict_that_a_level_solves(folder: Path, resolver: Asked) -> None:
    """A wider level is suggested before leaving something out, and it helps."""
    linux(folder, "fast", "1.2.5", requires=("base>=3",))
    linux(folder, "base", "2.0.3", "3.1.0", "4.0.0")
    snapshot = snapshot_of(installed("fast", "1.2.3"), installed("base", "2.0.3"), pure("told", "1.0.0", "base"))
    with pytest.raises(PlanError) as caught:
        plan_with(resolver, snapshot)
    assert caught.value.details["helps"] == "--level base=any"
    plan = plan_with(resolver, snapshot, levels=(("base", "any"),))
    assert _versions(plan, "fast", "base") == ["1.2.5", "3.1.0"]


# ---- indexes that fail, odd and large snapshots


def test_index_that_is_down(tmp_path: Path) -> None:
    """No search begins where nobody answers."""
    resolver = Asked(tmp_path, dead_url())
    with pytest.raises(PlanError, match="could not choose versions"):
        plan_with(resolver, snapshot_of(installed("fast", "1.2.3")))
    assert len(resolver.questions) == 1


@pytest.mark.parametrize(("status", "words"), [(401, "wants a credential"), (500, "could not choose versions")])
def test_index_that_refuses(folder: Path, tmp_path: Path, status: int, words: str) -> None:
    """401 is no absence, and 500 neither."""
    linux(folder, "fast", "1.2.3")
    with serve_index(folder, fault="status", status=status) as index, pytest.raises(PlanError, match=words):
        plan_with(Asked(tmp_path, index.url), snapshot_of(installed("fast", "1.2.3")))


def test_credential_stays_in_the_environment(folder: Path, tmp_path: Path) -> None:
    """An index that wants one serves; neither plan nor error nor question has it."""
    linux(folder, "fast", "1.2.3")
    with serve_index(folder, user="me", password="canary-6b1f") as index:
        resolver = Asked(tmp_path, index.url_with_credentials)
        plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3")))
        with pytest.raises(PlanError) as caught:
            plan_with(resolver, snapshot_of(installed("msgpack", "1.2.3")))
    everything = [plan, repr(resolver), str(caught.value), caught.value.details, resolver.questions]
    assert "canary" not in repr(everything)
    assert decided(plan, "fast").file is not None


@pytest.mark.parametrize("status", [401, 403, 500])
def test_token_in_a_path_is_not_repeated(folder: Path, tmp_path: Path, status: int) -> None:
    """uv's words are quoted with the index's host and without the rest of its URL."""
    linux(folder, "fast", "1.2.3")
    guarded = serve_index(folder, path_token="canary-6b1f", fault="status", status=status)
    with guarded as index, pytest.raises(PlanError) as caught:
        plan_with(Asked(tmp_path, index.url), snapshot_of(installed("fast", "1.2.3")), fail_on="any")
    assert "canary" not in repr(caught.value.as_dict())
    assert status == 403 or f"http://{index.host}:{index.port}/…" in str(caught.value)


def test_odd_names_versions_and_extras(folder: Path, resolver: Asked) -> None:
    """Circular extras, requirements that are none, URLs, versions that are none: as installed, so planned."""
    linux(folder, "fast", "1.2.3", requires=("odd[all]",))
    snapshot = snapshot_of(
        installed("fast", "1.2.3", "odd[all]"),
        pure(
            "odd",
            "2004d-custom",
            "odd[one]; extra == 'all'",
            "odd[all]; extra == 'one'",
            "what is this",
            "url-one @ https://files.example/url_one-1.tar.gz",
            provides_extras=("all", "one"),
        ),
        pure("url-one", "1.0"),
        pure("ünı", "1.0"),
        installed("öde", "1.0"),
        installed("custom", "2004d-custom"),
    )
    plan = plan_with(resolver, snapshot)
    assert {decided(plan, name).action for name in ("odd", "ünı")} == {Action.COPY}
    assert {decided(plan, name).action for name in ("öde", "custom")} == {Action.DROP}
    assert len(said(plan, "not-asked")) == 2
    assert decided(plan, "fast").version == "1.2.3"


def test_a_thousand_distributions(folder: Path, resolver: Asked) -> None:
    """One question, and what is done around it takes less than the question."""
    linux(folder, "fast", "1.2.3")
    chain = [pure(f"p{number}", "1.0.0", f"p{number + 1}" if number < 997 else "fast") for number in range(998)]
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3"), *chain))
    assert len([d for d in plan.decisions if d.action is Action.COPY]) == 1001
    assert len(resolver.questions) == 1


@pytest.mark.parametrize("platform", ["osx-arm64", "win-64"])
def test_from_linux_to_others(folder: Path, resolver: Asked, platform: str) -> None:
    """Nothing depends on where the plan is made or for what."""
    tag = {"osx-arm64": MAC_TAG, "win-64": "cp311-cp311-win_amd64"}[platform]
    offer(folder, "fast", "1.2.3", tag=tag)
    target = parse_target(platform, python="3.11.7")
    client = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.36")
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3"), platform=client), target=target)
    assert decided(plan, "fast").version == "1.2.3"


def test_clients_that_no_index_knows(folder: Path, resolver: Asked) -> None:
    """What is installed on an odd machine is planned like anything else, what is missing is named."""
    linux(folder, "fast", "1.2.3", "2.0.0")
    client = Platform(os="linux", arch="s390x", libc="glibc", libc_version="2.36")
    snapshot = snapshot_of(installed("fast", "1.2.3"), installed("gone", "1.0.0"), platform=client)
    plan = plan_with(resolver, snapshot)
    assert decided(plan, "fast").version == "1.2.3"
    assert said(plan, "not-on-target")[0].startswith("No index has any version for linux-x86_64.")


def test_python_of_the_target_counts(folder: Path, resolver: Asked) -> None:
    """Markers, tags and Requires-Python are the target's, whatever runs here."""
    offer(
        folder, "fast", "1.2.3", tag="cp312-cp312-manylinux_2_17_x86_64", requires=("late; python_version >= '3.12'",)
    )
    offer(folder, "late", "1.0.0")
    target = msgspec.structs.replace(LINUX, python="3.12.4")
    plan = plan_with(resolver, snapshot_of(installed("fast", "1.2.3")), target=target)
    assert decided(plan, "late").new


def _versions(plan: Plan, *names: str) -> list[str]:
    return [decided(plan, name).version for name in names]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
