"""What is generated in a prefix: pure text from a manifest, a listing and a place."""

from __future__ import annotations

import ast
import csv
import io

import pytest

from likewise.errors import NodeError
from likewise.model.layer import LayerKind
from likewise.node.generated import Generated, Place, entry_scripts, environment_files, layer_files, shebang
from support.nodes import Content, distribution, layer, manifest_of

PLACE = Place(prefix="/c/prefixes/0123456789abcdef", cache="/c", python="python3.11")


def generated_for(name: str, files: dict[str, Content], entry_points: str = "") -> dict[str, Generated]:
    source = distribution(name, files, entry_points=entry_points)
    content = {file.entry.path: file.data or b"" for file in source.files}
    ref = manifest_of(source).layers[0]
    own, scripts = layer_files(
        ref, [f.entry for f in source.files], lambda path, size: content[path][: None if size < 0 else size], PLACE
    )
    return {file.path: file for file in [*own, *scripts]}


def test_short_path_gets_a_plain_shebang() -> None:
    """A path that the kernel can read stands in the first line as it is."""
    assert shebang("/p/bin/python") == b"#!/p/bin/python\n"


@pytest.mark.parametrize("length, plain", [(125, True), (126, False)])
def test_shebang_limit(length: int, plain: bool) -> None:
    """A first line of 127 bytes is still plain, one of 128 is not."""
    path = "/" + "x" * (length - 1)
    assert (shebang(path) == f"#!{path}\n".encode()) is plain


def test_the_limit_counts_bytes() -> None:
    """Characters outside ASCII count as the bytes they are."""
    assert shebang("/" + "🚀" * 31) == b"#!/" + "🚀".encode() * 31 + b"\n"
    assert shebang("/" + "🚀" * 32).startswith(b"#!/bin/sh\n")


@pytest.mark.parametrize(
    "path", ["/a b/python", "/it's a/python", '/a "b" $HOME `x`/python', "/" + "y" * 200, "/'''/p y"]
)
def test_long_form_is_also_python(path: str) -> None:
    """For Python the long form is a string that it skips, whatever the path contains."""
    module = ast.parse(shebang(path) + b"x = 1\n")
    assert isinstance(module.body[0], ast.Expr) and isinstance(module.body[0].value, ast.Constant)
    assert isinstance(module.body[1], ast.Assign)


def test_backslash_is_refused() -> None:
    """A path that neither sh nor Python could read back is an error, not a broken script."""
    with pytest.raises(NodeError, match="such a path"):
        shebang("/a\\b/python")


def test_console_and_gui_scripts() -> None:
    """Both kinds of entry point become scripts; extras, comments and other groups don't matter."""
    text = """\
[console_scripts]
# a comment = x:y
one = pkg.mod:main
two = pkg:Class.run [extra]

[gui_scripts]
three=pkg:gui
[other.group]
four = pkg:no
"""
    scripts = {file.path: file for file in entry_scripts(text, PLACE)}
    assert set(scripts) == {"bin/one", "bin/two", "bin/three"}
    assert b"from pkg import Class\n" in scripts["bin/two"].data
    assert b"sys.exit(Class.run())" in scripts["bin/two"].data
    assert all(file.executable for file in scripts.values())


@pytest.mark.parametrize("line", ["../evil = a:b", "x = a", "x = a:b; import os", "python3 = a:b", ". = a:b", "= a:b"])
def test_impossible_entry_points_are_left_out(line: str) -> None:
    """What is no script name, no reference to a function, or would hide the interpreter, makes no script."""
    assert entry_scripts(f"[console_scripts]\n{line}\n", PLACE) == []


def test_pip_has_versioned_names() -> None:
    """pip's installer writes pip3 and pip3.11 beside pip, so a replica has them too."""
    scripts = entry_scripts("[console_scripts]\npip = pip:main\npip3 = pip:main\n", PLACE)
    assert [file.path for file in scripts] == ["bin/pip", "bin/pip3", "bin/pip3.11"]


def test_data_script_gets_this_interpreter() -> None:
    """`#!python` becomes this prefix's interpreter; arguments go, as pip does it, and the rest stays."""
    files = generated_for(
        "pkg", {"scripts/tool": (b"#!python\nprint(1)\n", True), "scripts/native": (b"\x7fELF", True)}
    )
    assert files["bin/tool"].data == b"#!/c/prefixes/0123456789abcdef/bin/python\nprint(1)\n"
    assert files["bin/tool"].executable
    assert "bin/native" not in files


def test_record_lists_everything_once() -> None:
    """RECORD has each file of the distribution where it lies, with its digest, as the specification says."""
    files = generated_for(
        "pkg",
        {
            "purelib/pkg/a,b.py": b"x",
            "data/share/pkg/icon": b"icon",
            "headers/pkg/h.h": b"h",
            "scripts/tool": b"#!python\n",
            "purelib/pkg/link": "a,b.py",
        },
        entry_points="[console_scripts]\ncmd = pkg:main\n",
    )
    site = "lib/python3.11/site-packages"
    record = files[f"{site}/pkg-1.0.dist-info/RECORD"]
    rows = list(csv.reader(io.StringIO(record.data.decode())))
    names = [row[0] for row in rows]
    assert sorted(names) == sorted(
        [
            "pkg/a,b.py", "pkg/link", "../../../share/pkg/icon", "../../../include/site/python3.11/pkg/h.h",
            "../../../bin/tool", "../../../bin/cmd", "pkg-1.0.dist-info/METADATA", "pkg-1.0.dist-info/entry_points.txt",
            "pkg-1.0.dist-info/INSTALLER", "pkg-1.0.dist-info/RECORD",
        ]
    )  # fmt: skip
    rows_by_name = {row[0]: row for row in rows}
    assert rows_by_name["pkg-1.0.dist-info/RECORD"][1:] == ["", ""]
    assert rows_by_name["pkg/link"][1:] == ["", ""]
    assert rows_by_name["pkg/a,b.py"][1:] == ["sha256=LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE", "1"]
    assert files[f"{site}/pkg-1.0.dist-info/INSTALLER"].data == b"likewise\n"


def test_vendored_metadata_is_content() -> None:
    """A dist-info inside a package is not the distribution's own: it gets no RECORD and makes no scripts."""
    files = generated_for(
        "pkg", {"purelib/pkg/_vendor/x-1.dist-info/entry_points.txt": b"[console_scripts]\nevil = x:y\n"}
    )
    assert set(files) == {
        "lib/python3.11/site-packages/pkg-1.0.dist-info/INSTALLER",
        "lib/python3.11/site-packages/pkg-1.0.dist-info/RECORD",
    }


def test_egg_info_makes_scripts_and_no_record() -> None:
    """An old egg-info has entry points as well, and pip would not understand a RECORD in it."""
    source = layer("old", {"purelib/old.egg-info/entry_points.txt": b"[console_scripts]\nold = old:main\n"})
    own, scripts = layer_files(
        manifest_of(source).layers[0], [f.entry for f in source.files], lambda p, n: source.files[0].data or b"", PLACE
    )
    assert own == [] and [file.path for file in scripts] == ["bin/old"]


def test_environment_files() -> None:
    """The prefix is a venv on its own interpreter, and code roots after site-packages are named by a .pth file."""
    code = layer("code-1", {"code/code-1/m.py": b""}, kind=LayerKind.CODE)
    manifest = manifest_of(code, after=("code-1",))
    place = Place(prefix="/c/p", cache="/c", python=manifest.python)
    files = {file.path: file for file in environment_files(manifest, place)}
    assert files["pyvenv.cfg"].data.startswith(b"home = /c/p/interpreter/bin\ninclude-system-site-packages = false\n")
    assert files[f"bin/{manifest.python}"].link == f"../interpreter/bin/{manifest.python}"
    assert files["bin/python"].link == files["bin/python3"].link == manifest.python
    assert files["manifest.json"].data == manifest.encode()
    pth = files[f"lib/{manifest.python}/site-packages/likewise-code.pth"]
    assert pth.data == b"../../../code/code-1\n"
