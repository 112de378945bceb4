"""Which wheels fit which target."""

from __future__ import annotations

import platform
import sysconfig
from typing import Any

import packaging.tags
import pytest

from likewise.model.target import Target
from likewise.planner import tags
from likewise.planner.tags import expanded, fits, is_pure, target_tags
from likewise.planner.targets import parse_target
from likewise.scanner.probe import probe_here


def target(text: str, python: str = "3.11.7") -> Target:
    return parse_target(text, python=python)


def test_for_this_machine_they_are_its_own() -> None:
    """For a target like this machine: the tags that packaging finds by asking the running interpreter, in its order."""
    interpreter = probe_here().interpreter
    mine = target_tags(Target(platform=interpreter.platform, python=interpreter.version))
    asked = list(dict.fromkeys(map(str, packaging.tags.sys_tags())))
    assert set(mine) == set(asked)
    # Where wheels stand that are for Linux and no particular C library differs among packaging's versions.
    assert [tag for tag in mine if "-linux_" not in tag] == [tag for tag in asked if "-linux_" not in tag]


@pytest.mark.parametrize("text", ["linux-64", "linux-aarch64-musl1.2", "osx-arm64", "win-64"])
def test_nothing_is_asked_of_the_running_interpreter(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither sysconfig nor platform nor packaging's own look at the machine is called."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("asked the running interpreter")

    for module, names in (
        (platform, ("mac_ver", "machine", "system", "libc_ver", "python_version")),
        (sysconfig, ("get_config_var", "get_platform")),
        (packaging.tags, ("platform_tags", "sys_tags", "interpreter_name", "interpreter_version", "_cpython_abis")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    tags.target_tags.cache_clear()
    assert target_tags(target(text, "3.9.1"))[0].startswith("cp39-cp39-")
    tags.target_tags.cache_clear()


@pytest.mark.parametrize(
    ("text", "python", "tag"),
    [
        ("linux-64", "3.11.7", "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"),
        ("linux-64", "3.11.7", "cp311-cp311-manylinux_2_28_x86_64"),
        ("linux-64", "3.11.7", "cp39-abi3-manylinux_2_12_x86_64.manylinux2010_x86_64"),
        ("linux-64", "3.11.7", "py3-none-manylinux1_x86_64"),
        ("linux-64", "3.11.7", "cp36-abi3-linux_x86_64"),
        ("linux-64", "3.14.0rc1", "cp314-cp314-manylinux_2_28_x86_64"),
        ("linux-aarch64", "3.12.1", "cp312-cp312-manylinux2014_aarch64"),
        ("linux-64-musl", "3.11.7", "cp311-cp311-musllinux_1_1_x86_64"),
        ("osx-arm64", "3.11.7", "cp311-cp311-macosx_11_0_arm64"),
        ("osx-arm64", "3.11.7", "cp311-cp311-macosx_10_9_universal2"),
        ("osx-64", "3.11.7", "cp311-cp311-macosx_10_9_x86_64"),
        ("win-64", "3.11.7", "cp311-cp311-win_amd64"),
        ("win-64", "3.11.7", "py2.py3-none-any"),
    ],
)
def test_wheels_that_fit(text: str, python: str, tag: str) -> None:
    """Tags as real wheels have them, compressed sets among them."""
    assert fits([tag], target(text, python))


@pytest.mark.parametrize(
    ("text", "python", "tag"),
    [
        ("linux-64", "3.11.7", "cp311-cp311-manylinux_2_34_x86_64"),  # a later glibc
        ("linux-64-glibc2.12", "3.11.7", "cp311-cp311-manylinux2014_x86_64"),
        ("linux-64", "3.11.7", "cp311-cp311-manylinux_2_17_aarch64"),
        ("linux-aarch64", "3.11.7", "cp311-cp311-manylinux2010_aarch64"),  # never existed
        ("linux-64", "3.11.7", "cp312-cp312-manylinux_2_17_x86_64"),
        ("linux-64", "3.11.7", "cp312-abi3-manylinux_2_17_x86_64"),  # a stable ABI that is too new
        ("linux-64", "3.13.1", "cp313-cp313t-manylinux_2_17_x86_64"),  # free-threaded
        ("linux-64", "3.11.7", "cp311-cp311-musllinux_1_2_x86_64"),
        ("linux-64-musl", "3.11.7", "cp311-cp311-manylinux_2_17_x86_64"),
        ("linux-64", "3.11.7", "cp311-cp311-win_amd64"),
        ("linux-64", "3.11.7", "cp311-cp311-macosx_11_0_arm64"),
        ("linux-64", "3.11.7", "pp311-pypy311_pp73-manylinux_2_17_x86_64"),
        ("osx-64", "3.11.7", "cp311-cp311-macosx_11_0_arm64"),
        ("linux-64", "3.11.7", "py2-none-any"),
        ("linux-64", "3.11.7", "nonsense"),
        ("linux-64", "3.11.7", ""),
    ],
)
def test_wheels_that_do_not(text: str, python: str, tag: str) -> None:
    """Another platform, another Python, another C library or a later one, and what is no tag."""
    assert not fits([tag], target(text, python))
    assert not fits([], target(text, python))


def test_one_tag_that_fits_is_enough() -> None:
    """A wheel is for every platform that it names."""
    assert fits(["cp311-cp311-win_amd64", "cp311-cp311-manylinux_2_17_x86_64"], target("linux-64"))


def test_the_best_comes_first() -> None:
    """Made for this very Python and glibc before the stable ABI, before pure Python; no tag twice."""
    found = target_tags(target("linux-64"))
    order = [
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux2014_x86_64",
        "cp311-abi3-manylinux_2_28_x86_64",
        "cp310-abi3-manylinux_2_28_x86_64",
        "py3-none-manylinux_2_28_x86_64",
        "py3-none-any",
    ]
    assert sorted(order, key=found.index) == order
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("found", "pure"),
    [
        (("py3-none-any",), True),
        (("py2-none-any", "py3-none-any"), True),
        (("py2.py3-none-any",), True),
        (("cp311-none-any",), True),
        (("py3-none-manylinux_2_17_x86_64",), False),
        (("cp311-abi3-any",), False),
        (("py3-none-any", "cp311-cp311-linux_x86_64"), False),
        (("py3-none-any.linux_x86_64",), False),
        ((), False),
        (("nonsense",), False),
    ],
)
def test_pure(found: tuple[str, ...], pure: bool) -> None:
    """Pure is what says so in every tag; without a tag nothing is known."""
    assert is_pure(found) is pure


def test_compressed_sets() -> None:
    """Every combination (PEP 425)."""
    assert sorted(expanded(["cp310.cp311-abi3-any"])) == ["cp310-abi3-any", "cp311-abi3-any"]
