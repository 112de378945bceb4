"""A plan as a file for other tools, read back by our own readers and by others'."""

from __future__ import annotations

import re

import msgspec
import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

from likewise.errors import UnsupportedError, UsageError
from likewise.formats.read import pins_for, read_listing, snapshot_of
from likewise.formats.write import CONDA_FORMS, FORMS, unwritten, write
from likewise.model.markers import marker_environment
from likewise.model.plan import Action, CondaDecision, Decision, LockedFile, Plan
from likewise.model.target import Platform, Target
from likewise.planner.tags import target_tags

NODES = Target(platform=Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.28"), python="3.11.7")


def fetched(name: str, version: str, tag: str, digit: str) -> Decision:
    """A decision with a file; its sha256 is of one digit."""
    filename = f"{name}-{version}-{tag}.whl"
    file = LockedFile(filename=filename, url=f"https://index.example/{filename}", sha256=digit * 64, size=7)
    return Decision(name=name, version=version, action=Action.FETCH, reason="exact", file=file)


PLAN = Plan(
    target=NODES,
    decisions=(
        fetched("torch", "2.4.1+cpu", "cp311-cp311-manylinux_2_17_x86_64", "2"),
        fetched("six", "1.17.0", "py3-none-any", "1"),
        Decision(name="mine", version="0.1", action=Action.BUILD, reason='editable: "of\nmine"\x7f'),
        Decision(name="appnope", version="0.1.4", action=Action.DROP, reason="macOS only"),
    ),
    kit=(),
)


PACKAGE = CondaDecision(
    name="openssl",
    version="3.3.1",
    action=Action.FETCH,
    reason="the same version",
    file=LockedFile(filename="openssl-3.3.1-h0_0.conda", url="https://channel.example/x.conda", sha256="3" * 64),
    build="h0_0",
    channel="https://channel.example",
    subdir="linux-64",
)


def test_pylock_comes_back() -> None:
    """What is read from the written lock is what the plan has: versions, files, and where it may be used."""
    listing = read_listing(write(PLAN, "pylock"))
    snapshot = snapshot_of(listing, NODES)
    assert {d.name: d.version for d in snapshot.distributions} == {"six": "1.17.0", "torch": "2.4.1+cpu"}
    pins = pins_for(listing, snapshot, NODES, target_tags(NODES))
    assert pins.files == {d.name: d.file for d in PLAN.decisions if d.file}
    assert listing.requires_python == "==3.11.*"
    (marker,) = listing.environments
    assert Marker(marker).evaluate(marker_environment(NODES))
    other = msgspec.structs.replace(NODES, platform=Platform(os="linux", arch="aarch64"))
    assert not Marker(marker).evaluate(marker_environment(other))


def test_requirements_come_back() -> None:
    """Every line is one file, by version and hash; a local version is named by its URL, since only one index has it."""
    text = write(PLAN, "requirements")
    listing = read_listing(text)
    snapshot = snapshot_of(listing, NODES)
    assert {d.name: d.version for d in snapshot.distributions} == {"six": "1.17.0", "torch": "2.4.1+cpu"}
    hashes = pins_for(listing, snapshot, NODES, target_tags(NODES)).hashes
    assert hashes == {"six": ("1.17.0", frozenset({"1" * 64})), "torch": ("2.4.1+cpu", frozenset({"2" * 64}))}
    lines = [line.partition(" --hash=")[0] for line in text.splitlines() if not line.startswith("#")]
    assert [Requirement(line).url for line in lines] == [None, PLAN.decisions[0].file and PLAN.decisions[0].file.url]


def test_dockerfile() -> None:
    """The target's Python and architecture, and the same requirements, in one file."""
    text = write(PLAN, "dockerfile")
    assert re.search(r"^FROM --platform=linux/amd64 python:3\.11\.7-slim$", text, re.MULTILINE)
    inside = re.search(r"^COPY <<'REQUIREMENTS' (\S+)\n(.*?)^REQUIREMENTS$", text, re.MULTILINE | re.DOTALL)
    assert inside is not None
    assert inside[2].splitlines() == [
        line for line in write(PLAN, "requirements").splitlines() if not line.startswith("#")
    ]
    assert f"--require-hashes -r {inside[1]}" in text


def test_what_can_not_be_written_is_named() -> None:
    """In each format a comment of one line names what lies on the client alone; what is dropped is not spoken of."""
    assert [d.name for d in unwritten(PLAN)] == ["mine"]
    for form in FORMS:
        plan = msgspec.structs.replace(PLAN, conda=(PACKAGE,)) if form in CONDA_FORMS else PLAN
        text = write(plan, form)
        comments = [line for line in text.splitlines() if line.startswith("# Not in here")]
        assert len(comments) == 1 and "mine 0.1" in comments[0], form
        assert "appnope" not in text


@pytest.mark.parametrize("form", CONDA_FORMS)
def test_what_is_condas_needs_conda_packages(form: str) -> None:
    """A plan of wheels alone is no list of conda packages."""
    with pytest.raises(UnsupportedError, match="no conda packages"):
        write(PLAN, form)


def test_formats_that_are_not_known() -> None:
    """The error names those that are."""
    with pytest.raises(UsageError, match="pylock, requirements, dockerfile"):
        write(PLAN, "conda")


def test_no_image_of_other_systems() -> None:
    """Only Linux has images of Python."""
    windows = msgspec.structs.replace(
        PLAN, target=Target(platform=Platform(os="windows", arch="x86_64"), python="3.11.7")
    )
    with pytest.raises(UnsupportedError, match="windows"):
        write(windows, "dockerfile")
