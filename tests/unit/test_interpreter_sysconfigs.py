"""Build variables and Makefiles without the place they were made for."""

from __future__ import annotations

import sys

import pytest

from likewise.errors import LayerError
from likewise.layers.sysconfigs import relocate_makefile, relocate_sysconfigdata


def variables(text: str) -> dict[str, object]:
    """What the module's source defines when imported."""
    names: dict[str, object] = {}
    exec(text, names)
    found = names["build_time_vars"]
    assert isinstance(found, dict)
    assert set(names) == {"__builtins__", "build_time_vars"}
    return found


def relocated(prefix: str, given: dict[str, object], *, wheels: str = "") -> dict[str, object]:
    """`given` after relocation from `prefix`, as seen by this Python."""
    source = f"# generated\nbuild_time_vars = {given!r}\n"
    return variables(relocate_sysconfigdata(source, [prefix], wheels=wheels, libdir="lib", where="x"))


def test_paths_of_a_private_prefix_become_the_running_pythons() -> None:
    """Each occurrence is replaced, glued to an option or not; numbers and other text stay."""
    found = relocated(
        "/opt/py",
        {"BINDIR": "/opt/py/bin", "LDFLAGS": "-L/opt/py/lib -Wl,-rpath,/opt/py/lib -lm", "N": 3, "prefix": "/opt/py"},
    )
    base = sys.base_prefix
    assert found == {
        "BINDIR": f"{base}/bin",
        "LDFLAGS": f"-L{base}/lib -Wl,-rpath,{base}/lib -lm",
        "N": 3,
        "prefix": base,
    }


def test_a_longer_name_is_not_mistaken_for_the_prefix() -> None:
    """/opt/py-other and /opt/py.old are not /opt/py."""
    given = {"A": "/opt/py-other/lib", "B": "/opt/py.old", "C": "/opt/python"}
    assert relocated("/opt/py", given) == given


def test_of_a_system_prefix_only_the_interpreters_own_folders_move() -> None:
    """Tools and time zones of the machine keep their paths though they lie beneath /usr too."""
    given: dict[str, object] = {
        "prefix": "/usr",
        "INCLUDEPY": "/usr/include/python3.11",
        "INSTALL": "/usr/bin/install -c",
        "TZPATH": "/usr/share/zoneinfo:/usr/lib/zoneinfo",
    }
    base = sys.base_prefix
    assert relocated("/usr", given) == {**given, "prefix": base, "INCLUDEPY": f"{base}/include/python3.11"}


def test_ensurepips_wheels_and_libpython_are_where_the_layer_has_them() -> None:
    """Debian's two special folders point into the copy."""
    given: dict[str, object] = {"LIBDIR": "/usr/lib/x86_64-linux-gnu", "WHEEL_PKG_DIR": "/usr/share/python-wheels/"}
    found = relocated("/usr", given, wheels="share/python-wheels")
    assert found == {"LIBDIR": f"{sys.base_prefix}/lib", "WHEEL_PKG_DIR": f"{sys.base_prefix}/share/python-wheels"}


@pytest.mark.parametrize("prefix", ["/", ""])
def test_a_prefix_that_occurs_everywhere_changes_nothing(prefix: str) -> None:
    """The root folder is not a prefix that could be replaced."""
    assert relocated(prefix, {"A": "/bin/sh"}) == {"A": "/bin/sh"}


@pytest.mark.parametrize(
    "text", ["", "build_time_vars = [1]", "build_time_vars = open('x')", "build_time_vars = {", "other = {}"]
)
def test_unknown_sources_are_refused_by_name(text: str) -> None:
    """What CPython's build does not write is neither run nor guessed at."""
    with pytest.raises(LayerError, match=r"some/data\.py"):
        relocate_sysconfigdata(text, ["/opt/py"], wheels="", libdir="lib", where="some/data.py")


def test_a_makefile_names_a_neutral_prefix_instead() -> None:
    """A private prefix becomes /install; the machine's own stays."""
    text = "prefix=\t/opt/py\nLIBDIR=\t/opt/py/lib\nINSTALL=\t/usr/bin/install\n"
    assert (
        relocate_makefile(text, ["/opt/py"]) == "prefix=\t/install\nLIBDIR=\t/install/lib\nINSTALL=\t/usr/bin/install\n"
    )
    assert relocate_makefile(text, ["/usr"]) == text
