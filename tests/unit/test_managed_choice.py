"""Which of the Pythons that uv offers the nodes get."""

from __future__ import annotations

import pytest
import uv

from likewise.errors import LayerError, PlanError
from likewise.layers.managed import Offer, choose_python, offers
from likewise.layers.standalone import bytecode_magic
from likewise.model.digest import digest_bytes
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.target import Platform

ARM = Platform(os="linux", arch="aarch64", libc="glibc", libc_version="2.28")


def offer(version: str, arch: str = "aarch64", libc: str = "glibc") -> Offer:
    """An offer of uv's."""
    return Offer(version=version, key=f"cpython-{version}", platform=Platform(os="linux", arch=arch, libc=libc))


OFFERED = [
    offer(version)
    for version in ("3.14.0rc2", "3.14.0rc1", "3.12.1", "3.11.9", "3.11.4", "3.11.3", "3.11.1", "3.10.2", "3.10.0")
]


def chosen(wanted: str, offered: list[Offer] = OFFERED) -> tuple[str, str]:
    """Version and reason of the choice."""
    found, reason = choose_python(wanted, ARM, offered, strict=False)
    return found.version, reason


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("wanted", ["3.11.4", "3.10.0", "3.14.0rc1", "3.11.4+"])
def test_the_very_version_needs_no_reason(wanted: str, strict: bool) -> None:
    """Where it is offered it is taken; a plus sign says that it was built from a checkout."""
    found, reason = choose_python(wanted, ARM, OFFERED, strict=strict)
    assert (found.version, reason) == (wanted.rstrip("+"), "")


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [
        ("3.10.1", "3.10.2"),  # both neighbours are one away: the newer
        ("3.11.0", "3.11.1"),
        ("3.11.2", "3.11.3"),
        ("3.11.5", "3.11.4"),
        ("3.11.20", "3.11.9"),
        ("3.12.0", "3.12.1"),
        ("3.14.0b1", "3.14.0rc2"),
    ],
)
def test_the_nearest_patch_comes_with_a_reason(wanted: str, nearest: str) -> None:
    """Same major.minor, fewest patches away; the reason names both versions and the platform."""
    version, reason = chosen(wanted)
    assert version == nearest
    assert all(word in reason for word in (wanted, nearest, "linux-aarch64"))


@pytest.mark.parametrize("wanted", ["3.10.1", "3.11.0", "3.11.2"])
def test_strict_takes_no_other(wanted: str) -> None:
    """The error says which one is the nearest, and what to do."""
    with pytest.raises(PlanError, match="strict") as caught:
        choose_python(wanted, ARM, OFFERED, strict=True)
    assert caught.value.details["nearest"] in caught.value.todo


def test_no_patch_means_the_newest() -> None:
    """A file that only says 3.11 means any; even then the choice is explained."""
    assert chosen("3.11") == ("3.11.9", "3.11.9 is the newest 3.11 that uv offers for linux-aarch64")


@pytest.mark.parametrize("wanted", ["3.13.1", "3.13", "2.7.18", "3.14.0", "3.14.1", "4.0.0"])
@pytest.mark.parametrize("strict", [True, False])
def test_an_unknown_minor_version_is_an_error_that_says_what_there_is(wanted: str, strict: bool) -> None:
    """Another minor version never serves, nor does a prerelease for a release."""
    with pytest.raises(PlanError, match=r"3\.10, 3\.11, 3\.12") as caught:
        choose_python(wanted, ARM, OFFERED, strict=strict)
    assert wanted in caught.value.what


@pytest.mark.parametrize("other", [offer("3.11.2", arch="x86_64"), offer("3.11.2", libc="musl")])
def test_offers_for_other_platforms_do_not_count(other: Offer) -> None:
    """Neither another processor's nor another C library's."""
    assert chosen("3.11.2", [other, *OFFERED])[0] == "3.11.3"
    with pytest.raises(PlanError, match="none"):
        choose_python("3.11.2", ARM, [other], strict=False)


@pytest.mark.parametrize("wanted", ["", "three", "3.11.x"])
def test_what_is_no_version_is_said_to_be_none(wanted: str) -> None:
    """A snapshot may say anything."""
    with pytest.raises(PlanError, match="no version"):
        choose_python(wanted, ARM, OFFERED, strict=False)


def layer_with(path: str, content: bytes) -> LayerSource:
    """An interpreter layer that holds one file."""
    entry = FileEntry(path=path, sha256=digest_bytes(content), size=len(content))
    return layer_source(LayerKind.INTERPRETER, "cpython", "3.14.1", [SourceFile(entry=entry, data=content)])


def test_a_newer_python_has_its_magic_number_in_a_header() -> None:
    """As CPython 3.14 writes it."""
    header = b"#define PYC_MAGIC_NUMBER 3627\n/* This is equivalent to converting PYC_MAGIC_NUMBER to 2 bytes */\n"
    layer = layer_with("interpreter/include/python3.14/internal/pycore_magic_number.h", header)
    assert bytecode_magic(layer) == "2b0e0d0a"


def test_a_python_without_a_magic_number_is_named() -> None:
    """A layer that lacks both places gives an error, not a guess."""
    with pytest.raises(LayerError, match=r"cpython 3\.14\.1"):
        bytecode_magic(layer_with("interpreter/lib/python3.14/os.py", b""))


def test_a_uv_that_cant_be_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong, and what to do."""
    monkeypatch.setattr(uv, "find_uv_bin", lambda: "/nowhere/uv")
    with pytest.raises(LayerError, match="can't be run") as caught:
        offers(ARM)
    assert caught.value.todo
