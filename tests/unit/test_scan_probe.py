"""What is made of an interpreter's answers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from likewise.errors import UnsupportedError
from likewise.model.snapshot import PrefixKind
from likewise.model.target import Platform
from likewise.scanner.interview import interview
from likewise.scanner.probe import (
    Probe,
    full_version,
    parse_interview,
    parse_platform,
    prefix_kind,
    probe_here,
    probe_python,
)

MUSL = "musl libc (x86_64)\nVersion 1.2.4\nDynamic Program Loader\nUsage: /lib/ld-musl-x86_64.so.1 [options]\n"


def probe(**changes: Any) -> Probe:
    """This interpreter's probe, with some of its answers replaced."""
    return parse_interview({**interview(), **changes}, main={}, modules={})


@pytest.mark.parametrize(
    ("answers", "platform"),
    [
        (("Linux", "x86_64", 64, "glibc 2.36"), Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.36")),
        (("Linux", "aarch64", 64, MUSL), Platform(os="linux", arch="aarch64", libc="musl", libc_version="1.2")),
        (("Linux", "x86_64", 32, "glibc 2.31"), Platform(os="linux", arch="i686", libc="glibc", libc_version="2.31")),
        (("Darwin", "arm64", 64, ""), Platform(os="macos", arch="aarch64")),
        (("Windows", "AMD64", 64, ""), Platform(os="windows", arch="x86_64")),
    ],
)
def test_platforms(answers: tuple[str, str, int, str], platform: Platform) -> None:
    """Operating systems, architectures and C libraries have one spelling each."""
    assert parse_platform(*answers) == platform


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ([3, 11, 7, "final", 0], "3.11.7"),
        ([3, 14, 0, "candidate", 1], "3.14.0rc1"),
        ([3, 14, 0, "alpha", 2], "3.14.0a2"),
        ([3, 14, 0, "beta", 4], "3.14.0b4"),
    ],
)
def test_versions(info: list[Any], version: str) -> None:
    """Full versions as PEP 440 spells them."""
    assert full_version(info) == version


def test_sys_path_is_made_absolute_once() -> None:
    """Relative and empty entries mean the working directory; each directory appears once, in order."""
    found = probe(sys_path=["", "/a/../b", "lib", "/b", "/c/"], cwd="/here")
    assert found.sys_path == ("/here", "/b", "/here/lib", "/c")


def test_without_a_working_directory_relative_entries_mean_nothing() -> None:
    """They are dropped rather than guessed."""
    found = probe(sys_path=["", "lib", "/b"], pythonpath=["", "x", "/y"], cwd="")
    assert (found.sys_path, found.pythonpath, found.cwd) == (("/b",), ("/y",), "")


@pytest.mark.parametrize(
    ("raw", "expected"), [([""], ()), (["/a"], ("/a",)), (["/a", ""], ("/a", "/here")), (["", "/a"], ("/here", "/a"))]
)
def test_pythonpath(raw: list[str], expected: tuple[str, ...]) -> None:
    """An unset PYTHONPATH is nothing; an empty entry in a set one is the working directory."""
    assert probe(pythonpath=raw, cwd="/here").pythonpath == expected


def test_free_threading_is_known_where_abiflags_are_not() -> None:
    """Py_GIL_DISABLED counts as the flag t."""
    assert (
        probe(gil_disabled=True, abiflags="", version_info=[3, 13, 0, "final", 0]).interpreter.python == "python3.13t"
    )


def test_old_pythons_are_refused() -> None:
    """3.9 is not supported, and the error says so."""
    with pytest.raises(UnsupportedError, match=r"3\.9\.1"):
        probe(version_info=[3, 9, 1, "final", 0])


def test_kinds_that_the_path_alone_tells() -> None:
    """/usr is the system's; python-build-standalone is told by how it was configured."""
    assert prefix_kind("/usr", "") is PrefixKind.SYSTEM
    assert prefix_kind("/opt/python", "'--prefix=/install' '--with-lto'") is PrefixKind.UV
    assert prefix_kind("/opt/python", "") is PrefixKind.OTHER


def test_probing_the_running_process() -> None:
    """It knows its own executable, sys.path and modules, dotted ones included."""
    found = probe_here()
    assert found.executable == sys.executable
    assert found.interpreter.cache_tag == sys.implementation.cache_tag
    assert found.modules["likewise.scanner.probe"] == sys.modules["likewise.scanner.probe"].__file__
    main = getattr(sys.modules["__main__"], "__file__", None)  # a worker of pytest-xdist has none
    assert os.path.realpath(found.main.file) == os.path.realpath(main) if main else found.main.file == ""


def test_a_probe_leaves_nothing_in_the_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even bytecode of what Python imports when it starts: a scan changes nothing, and finds the same again."""
    (tmp_path / "sitecustomize.py").write_text("import beside\n")
    (tmp_path / "beside.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert str(tmp_path) in probe_python(sys.executable).sys_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside.py", "sitecustomize.py"]
