"""What a script will import, told from its source."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from likewise.layers import guess
from likewise.layers.guess import guess_imports


def names(script: str | bytes, package: str = "", **modules: str | bytes) -> tuple[str, ...]:
    """What is guessed; the loose `modules` have ``__`` for dots."""
    known = {name.replace("__", ".").replace(".init.", ".__init__"): text for name, text in modules.items()}

    def read(name: str) -> bytes:
        text = known[name]
        return text.encode() if isinstance(text, str) else text

    return guess_imports(script.encode() if isinstance(script, str) else script, known, read, package=package)


def test_order_of_appearance() -> None:
    """Top-level names in the order of the source, each once, in whatever block they stand."""
    script = """
import b.c, a as z
from d.e import f
def g():
    import h
    class I:
        from j import *
try:
    import k
except ImportError:
    import l
else:
    import m
finally:
    with open(x) as y:
        import n
match x:
    case 1:
        import o
if a:
    import p
else:
    import b
"""
    assert names(script) == tuple("badhjklmnop")


def test_imports_for_type_checkers_come_last() -> None:
    """They are not executed; what stands under else is."""
    script = """
from typing import TYPE_CHECKING
import typing as t
if TYPE_CHECKING:
    import late, both
    def f(): import later
else:
    import early
if t.TYPE_CHECKING:
    import last
import both
"""
    assert names(script) == ("typing", "early", "both", "late", "later", "last")


def test_loose_modules_are_followed_where_they_are_imported() -> None:
    """The outermost package first, then the module; each of them once."""
    script = "import first\nfrom pkg.sub import thing\nimport last"
    pkg = {
        "pkg__init__": "import in_pkg",
        "pkg__sub__init__": "import in_sub, other",
        "pkg__sub__thing": "import in_thing",
        "other": "import pkg.sub.thing, in_other",
    }
    found = names(script, **pkg)
    assert found == ("first", "pkg", "in_pkg", "in_sub", "other", "in_thing", "in_other", "last")


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("from . import sibling", ("a", "in_sibling")),
        ("from .sibling import x", ("a", "in_sibling")),
        ("from .. import up", ("a", "in_up")),
        ("from ..up import x", ("a", "in_up")),
        ("from ... import x", ()),
        ("from .... import x", ()),
        ("from .nothing import x", ("a",)),
    ],
)
def test_relative_imports(statement: str, found: tuple[str, ...]) -> None:
    """They are resolved as Python does; those that lead out of the package are passed over."""
    assert names(statement, "a.b", a__b__sibling="import in_sibling", a__up="import in_up") == found


def test_a_plain_script_has_no_package() -> None:
    """A relative import in it fails when it is run, and finds nothing here."""
    assert names("from . import x\nfrom .y import z\nimport w", x="import no") == ("w",)


@pytest.mark.parametrize(
    "script",
    [
        b"import a\nthis is no Python",
        b"\xff\xfe\x00import a",
        b"# -*- coding: nothing-like-it -*-\nimport a",
        b"import a\0",
        b"x = " + b"(" * 500 + b")" * 500,
        b"",
    ],
)
def test_what_is_no_python_tells_nothing(script: bytes) -> None:
    """Neither a script nor a module that can't be parsed is an error."""
    assert names(script) == ()
    assert names("import bad, good", bad=script) == ("bad", "good")


def test_declared_encodings_count() -> None:
    """A source says in what encoding it is, by a comment or a byte order mark."""
    assert names("# -*- coding: latin-1 -*-\nname = 'é'\nimport a".encode("latin-1")) == ("a",)
    assert names(b"\xef\xbb\xbfimport a") == ("a",)
    assert names("import größe".encode()) == ("größe",)


def test_a_module_that_is_gone_tells_nothing() -> None:
    """It was there when the code was scanned."""

    def read(name: str) -> bytes:
        raise FileNotFoundError(name)

    assert guess_imports(b"import gone, here", {"gone"}, read) == ("gone", "here")


def test_it_reads_no_more_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Huge sources are passed over, and beyond a number of bytes nothing more is parsed."""
    assert names(b"import a\n" + b"#" * guess.MAX_SOURCE) == ()
    monkeypatch.setattr(guess, "MAX_BYTES", 100)
    filler = "#" * 60
    assert names("import x, y, z", x=f"import in_x {filler}", y=f"import in_y {filler}") == ("x", "in_x", "y", "z")


def test_deeply_nested_and_circular_imports_end() -> None:
    """A chain of a thousand modules that ends in its beginning."""
    chain = {f"m{n}": f"import m{(n + 1) % 1000}, t{n}" for n in range(1000)}
    found = names("import m0", **chain)
    assert len(found) == 2000 and found[:3] == ("m0", "m1", "m2") and found[1000] == "t999"


def test_a_real_script_of_the_standard_library() -> None:
    """What Python itself loads for a script is among what was guessed."""
    source = Path(sys.modules["json"].__file__ or "")
    assert {"codecs"} <= set(guess_imports(source.read_bytes(), (), lambda name: b"", package="json"))
