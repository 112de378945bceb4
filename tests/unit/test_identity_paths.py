"""Which layer path a file gets, on either side, and which files are left out."""

from __future__ import annotations

import pytest

from likewise.model.identity import (
    Layout,
    bytecode_source,
    entry_points,
    installed_path,
    is_content,
    is_generated,
    layout_for,
    wheel_path,
)

SITE = "/p/lib/python3.11/site-packages"
LAYOUT = Layout(purelib=SITE, scripts="/p/bin", headers="/p/include/site/python3.11", prefix="/p")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{SITE}/numpy/__init__.py", "purelib/numpy/__init__.py"),
        ("/p/bin/f2py", "scripts/f2py"),
        ("/p/bin/sub/tool", "scripts/sub/tool"),
        ("/p/include/site/python3.11/greenlet/greenlet.h", "headers/greenlet/greenlet.h"),
        ("/p/include/other.h", "data/include/other.h"),
        ("/p/share/man/man1/x.1", "data/share/man/man1/x.1"),
        ("/p/etc/jupyter/a.json", "data/etc/jupyter/a.json"),
        ("/p/lib/python3.11/site-packages-2/x.py", "data/lib/python3.11/site-packages-2/x.py"),
        ("/p/binary", "data/binary"),
        ("/p2/share/x", None),
        ("/root/.ssh/id_rsa", None),
        ("/p", None),
        (SITE, "data/lib/python3.11/site-packages"),
    ],
)
def test_an_installed_file_gets_the_path_of_the_innermost_scheme(path: str, expected: str | None) -> None:
    """Site directory, headers and scripts come before the prefix, and what is outside has no path at all."""
    assert installed_path(path, LAYOUT) == expected


def test_a_second_site_directory_of_the_prefix_is_purelib_too() -> None:
    """Where a system has lib64, files in either of the two directories get the same path."""
    layout = Layout(purelib=SITE, platlib="/p/lib64/python3.11/site-packages", scripts="", headers="", prefix="/p")
    assert installed_path("/p/lib64/python3.11/site-packages/a.so", layout) == "purelib/a.so"
    assert installed_path("/p/bin/x", layout) == "data/bin/x"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("numpy/__init__.py", "purelib/numpy/__init__.py"),
        ("my_pkg-1.0.dist-info/METADATA", "purelib/my_pkg-1.0.dist-info/METADATA"),
        ("my_pkg-1.0.data/purelib/a.py", "purelib/a.py"),
        ("my_pkg-1.0.data/platlib/a/b.so", "purelib/a/b.so"),
        ("my_pkg-1.0.data/scripts/tool", "scripts/tool"),
        ("my_pkg-1.0.data/headers/a.h", "headers/my-pkg/a.h"),
        ("my_pkg-1.0.data/data/share/a", "data/share/a"),
        ("my_pkg-1.0.data/data/bin/a", "scripts/a"),
        ("my_pkg-1.0.data/data/lib/python3.11/site-packages/a.py", "purelib/a.py"),
        ("my_pkg-1.0.data/data/include/site/python3.11/x/a.h", "headers/x/a.h"),
        ("my_pkg-1.0.data/data/lib/python3.11/other/a.py", "data/lib/python3.11/other/a.py"),
        ("my_pkg-1.0.data/unknown/a", None),
        ("my_pkg-1.0.data/stray", None),
        ("my_pkg-1.0.database/a", "purelib/my_pkg-1.0.database/a"),
    ],
)
def test_a_member_of_a_wheel_gets_the_path_that_it_has_once_installed(name: str, expected: str | None) -> None:
    """The folders of the wheel's .data lead to the schemes, also where one lies inside another."""
    assert wheel_path(name, data_folder="my_pkg-1.0.data", headers="my-pkg") == expected


@pytest.mark.parametrize(
    ("site", "prefix"),
    [
        ("/p/lib/python3.11/site-packages", "/p"),
        ("/usr/lib/python3/dist-packages", "/usr"),
        ("/usr/local/lib/python3.11/dist-packages", "/usr/local"),
        ("/home/u/.local/lib/python3.11/site-packages", "/home/u/.local"),
        ("/p/lib64/python3.11/site-packages", "/p"),
        ("/work/vendored", "/work/vendored"),
        ("/work/lib/site-packages", "/work/lib/site-packages"),
    ],
)
def test_the_prefix_of_a_site_directory_is_told_from_its_path(site: str, prefix: str) -> None:
    """Three levels up in every known layout; any other directory is a prefix of its own, so nothing outside counts."""
    layout = layout_for(site, python="python3.11")
    assert (layout.prefix, layout.scripts, layout.purelib) == (prefix, f"{prefix}/bin", site)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("purelib/a/__pycache__/b.cpython-311.pyc", "purelib/a/b.py"),
        ("purelib/a/__pycache__/b.cpython-311.opt-2.pyc", "purelib/a/b.py"),
        ("purelib/a/__pycache__/b.c.cpython-311.pyc", "purelib/a/b.c.py"),
        ("__pycache__/b.cpython-311.pyc", "b.py"),
        ("purelib/a/b.pyc", "purelib/a/b.py"),
        ("purelib/a/b.pyo", "purelib/a/b.py"),
        ("purelib/a/b.py", None),
        ("purelib/a/__pycache__/notes.txt", None),
    ],
)
def test_bytecode_knows_its_source(path: str, expected: str | None) -> None:
    """PEP 3147 and 488 names, and the old place beside the source."""
    assert bytecode_source(path) == expected


@pytest.mark.parametrize(
    ("path", "generated"),
    [
        ("purelib/a-1.dist-info/RECORD", True),
        ("purelib/a-1.dist-info/RECORD.jws", True),
        ("purelib/a-1.dist-info/INSTALLER", True),
        ("purelib/a-1.dist-info/REQUESTED", True),
        ("purelib/a-1.dist-info/direct_url.json", True),
        ("purelib/a-1.dist-info/uv_cache.json", True),
        ("purelib/a-1.dist-info/METADATA", False),
        ("purelib/a-1.dist-info/licenses/RECORD", False),
        ("purelib/a/RECORD", False),
        ("purelib/INSTALLER", False),
        ("purelib/vendored/a-1.dist-info/RECORD", False),
        ("data/a-1.dist-info/RECORD", False),
        ("scripts/tool", True),
        ("scripts/tool.exe", True),
        ("scripts/tool-script.py", True),
        ("scripts/other", False),
        ("scripts/pip3.11", True),
        ("scripts/pip-3.11", True),
        ("scripts/tool3", False),
        ("data/tool", False),
    ],
)
def test_what_installers_generate_is_told_by_its_path(path: str, generated: bool) -> None:
    """Only in a distribution's own dist-info, and scripts only by the names of its entry points."""
    assert is_generated(path, frozenset({"tool", "pip"})) is generated


def test_versioned_names_count_for_pip_alone() -> None:
    """A script named pip3.11 belongs to whoever ships it, unless the distribution has the entry point pip."""
    assert not is_generated("scripts/pip3.11", frozenset({"tool"}))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("purelib/a/b.pyc", True),
        ("purelib/a/c.pyc", False),
        ("purelib/a/__pycache__/c.cpython-311.pyc", False),
        ("purelib/a/c.py", True),
        ("purelib/a-1.dist-info/RECORD", False),
    ],
)
def test_bytecode_is_content_when_its_source_is_not_there(path: str, content: bool) -> None:
    """With the source it is a by-product, without it is the module."""
    assert is_content(path, frozenset(), {"purelib/a/c.py"}.__contains__) is content


def test_entry_points_of_both_script_groups_are_found_and_no_others() -> None:
    """Comments, other groups, odd spacing and names that are paths are passed over."""
    text = """
    [other]
    no = a:b
    [console_scripts]
    # not = this:one
    ; nor = this:one
    one=a:main
    two words = a:main [extra]
    ../evil = a:main

    [ gui_scripts ]
    three= b:main
    """
    assert entry_points(text) == {"one", "two words", "three"}
    assert entry_points("") == frozenset()
