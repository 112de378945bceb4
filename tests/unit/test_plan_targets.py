"""Names of targets, and what they mean."""

from __future__ import annotations

import pytest

from likewise.errors import UnsupportedError, UsageError
from likewise.model.target import Platform, Target
from likewise.planner.targets import DEFAULT_GLIBC, KNOWN, check_client, parse_platform, parse_target
from support.values import make_interpreter

X86 = Platform(os="linux", arch="x86_64", libc="glibc", libc_version=DEFAULT_GLIBC)
ARM = Platform(os="linux", arch="aarch64", libc="glibc", libc_version=DEFAULT_GLIBC)


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux-64", X86),
        ("linux-x86_64", X86),
        ("Linux-AMD64", X86),
        (" linux/amd64 ", X86),
        ("linux-aarch64", ARM),
        ("linux-arm64", ARM),
        ("linux-64-glibc2.17", Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.17")),
        ("linux-aarch64-musl1.1", Platform(os="linux", arch="aarch64", libc="musl", libc_version="1.1")),
        ("linux-64-musl", Platform(os="linux", arch="x86_64", libc="musl", libc_version="1.2")),
        ("linux-ppc64le", Platform(os="linux", arch="ppc64le", libc="glibc", libc_version=DEFAULT_GLIBC)),
        ("osx-arm64", Platform(os="macos", arch="aarch64")),
        ("osx-64", Platform(os="macos", arch="x86_64")),
        ("macos-aarch64", Platform(os="macos", arch="aarch64")),
        ("win-64", Platform(os="windows", arch="x86_64")),
        ("windows-arm64", Platform(os="windows", arch="aarch64")),
    ],
)
def test_platforms(text: str, platform: Platform) -> None:
    """conda's subdirs, plain words, and what may follow them; nothing said means glibc and no accelerator."""
    assert parse_platform(text) == platform
    assert parse_target(text, python="3.11.7") == Target(platform=platform, python="3.11.7")


@pytest.mark.parametrize("text", ["linux-64-cuda12.8-glibc2.34", "linux-64-glibc2.34-cuda12.8"])
def test_accelerator(text: str) -> None:
    """C library and CUDA may stand in any order."""
    platform = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.34")
    assert parse_target(text, python="3.12.1") == Target(platform=platform, python="3.12.1", cuda="12.8")


@pytest.mark.parametrize("text", KNOWN)
def test_what_errors_name_as_known_is_known(text: str) -> None:
    """Every platform that an error offers can be used."""
    assert parse_platform(text).arch


def test_an_unknown_platform_is_told_with_what_is_known() -> None:
    """The nearest one is offered, and all are named."""
    with pytest.raises(UsageError, match=r"'linx-64'.*Did you mean linux-64\?.*linux-aarch64.*win-64") as caught:
        parse_target("linx-64", python="3.11.7")
    assert caught.value.details["known"] == list(KNOWN)


@pytest.mark.parametrize("text", ["", "-", "linux", "64", "osx-ppc64le", "win-s390x", "solaris-64", "linux-sparc"])
def test_no_platform(text: str) -> None:
    """A system without an architecture, and one that does not exist."""
    with pytest.raises(UsageError, match="Known are linux-64"):
        parse_platform(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linux-64-cuda12", "cuda12"),
        ("linux-64-cuda", "'cuda'"),
        ("linux-64-glibc", "'glibc'"),
        ("linux-64-glibc2.99999999", "'glibc2.99999999'"),
        ("linux-64-glibc2.٢٨", "'glibc2.٢٨'"),
        ("linux-64-cuda12.1-cuda12.2", "'cuda12.2'"),
        ("linux-64-gpu", "'gpu'"),
        ("linux-64-glibc2.28-musl1.2", "two C libraries"),
        ("osx-arm64-glibc2.28", "C library"),
        ("osx-arm64-cuda12.8", "CUDA"),
    ],
)
def test_parts_that_make_no_sense(text: str, words: str) -> None:
    """A part that is not understood, or that the system can't have, is named."""
    with pytest.raises(UsageError, match=words):
        parse_target(text, python="3.11.7")


def test_a_client_has_no_accelerator() -> None:
    """Nothing is chosen by the client's CUDA, so naming it is a mistake."""
    with pytest.raises(UsageError, match="accelerator"):
        parse_platform("linux-64-cuda12.8")


@pytest.mark.parametrize("python", ["", "3", "three", "3.x"])
def test_no_python(python: str) -> None:
    """The nodes' Python has a major and a minor version."""
    with pytest.raises(UsageError, match="version of Python"):
        parse_target("linux-64", python=python)


@pytest.mark.parametrize(
    ("client", "what", "todo"),
    [
        ({"abiflags": "t"}, "a free-threaded Python 3.11.7", "Use the ordinary Python 3.11 on the client, or"),
        ({"abiflags": "td"}, "a free-threaded Python 3.11.7", "Use the ordinary Python 3.11 on the client, or"),
        ({"implementation": "pypy"}, "pypy 3.11.7", "Use CPython 3.11 on the client."),
    ],
)
def test_a_client_that_no_target_can_name_is_refused(client: dict[str, str], what: str, todo: str) -> None:
    """Wheels for the ordinary CPython would be planned; the error says what it is, where, and what to use instead."""
    with pytest.raises(UnsupportedError, match=f"This is {what}") as caught:
        check_client(make_interpreter(**client), Target(platform=ARM, python="3.11.7"))
    assert "linux-aarch64" in caught.value.what
    assert caught.value.where == "/venv/bin/python"
    assert caught.value.todo.startswith(todo)


@pytest.mark.parametrize("abiflags", ["", "d"])
def test_an_ordinary_client_is_fine(abiflags: str) -> None:
    """A debug build loads wheels for the ordinary one."""
    check_client(make_interpreter(abiflags=abiflags), Target(platform=ARM, python="3.11.7"))
