"""Scripts of entry points that conda's installers write: known in a layer, and written again in a prefix."""

from __future__ import annotations

import ast

import pytest

from likewise.model.conda_identity import ENTRY_LINE, entry_script, entry_script_of
from likewise.model.digest import digest_to_record
from likewise.node.generated import Generated, Place, digest_of, layer_files
from support.nodes import distribution, manifest_of

BODY = """\
# -*- coding: utf-8 -*-
import re
import sys

from pkg.cli import App

if __name__ == '__main__':
{indent}sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
{indent}sys.exit(App.run())
"""
RATTLERS = BODY.format(indent="\t").encode()
PLACE = Place(prefix="/c/prefixes/0123456789abcdef", cache="/c", python="python3.11")
FAR = Place(prefix="/c/" + "far/" * 40, cache="/c", python="python3.13t")


def made(place: Place) -> dict[str, Generated]:
    """What is generated for a package with such a script, whose metadata has the entry point as well."""
    files = {"scripts/tool": (entry_script("pkg.cli", "App.run"), True)}
    source = distribution("pkg", files, entry_points="[console_scripts]\ntool = pkg.cli:App.run\nmore = pkg.cli:more\n")
    content = {file.entry.path: file.data or b"" for file in source.files}
    own, scripts = layer_files(
        manifest_of(source).layers[0],
        [file.entry for file in source.files],
        lambda path, size: content[path][: None if size < 0 else size],
        place,
    )
    assert [file.path for file in scripts] == ["bin/more"]
    return {file.path: file for file in own}


@pytest.mark.parametrize("indent", ["\t", "    "])
@pytest.mark.parametrize(
    "line", ["#!/opt/env/bin/python3.11", "#!/bin/sh\n'''exec' \"/o e/bin/python\" \"$0\" \"$@\" #'''"]
)
def test_what_installers_write_is_the_archives(indent: str, line: str) -> None:
    """rattler indents by a tab, conda and mamba by spaces: the layer is the same."""
    script = f"{line}\n{BODY.format(indent=indent)}".encode()
    assert entry_script_of(script) == entry_script("pkg.cli", "App.run") == ENTRY_LINE + RATTLERS


@pytest.mark.parametrize(
    "change", [(b"sys.exit(", b"exit("), (b"import re\n", b"import re, os\n"), (b"())", b"())  #")]
)
def test_what_somebody_changed_is_none_of_theirs(change: tuple[bytes, bytes]) -> None:
    """It is shipped as it is, then."""
    assert entry_script_of(b"#!/p/bin/python\n" + RATTLERS.replace(*change)) is None


def test_a_prefix_has_what_rattler_writes_there() -> None:
    """The interpreter by its version, byte for byte; and RECORD, too, says that of it and not of pip's script."""
    files = made(PLACE)
    assert files["bin/tool"].data == b"#!/c/prefixes/0123456789abcdef/bin/python3.11\n" + RATTLERS
    assert files["bin/tool"].executable
    record = files["lib/python3.11/site-packages/pkg-1.0.dist-info/RECORD"].data.decode()
    (row,) = (line for line in record.splitlines() if line.startswith("../../../bin/tool,"))
    assert digest_to_record(digest_of(files["bin/tool"])) in row


def test_a_path_that_is_too_long_for_the_kernel() -> None:
    """sh starts that Python, for which the lines are a string, as in other scripts of conda's."""
    script = made(FAR)["bin/tool"].data
    first, second, rest = script.split(b"\n", 2)
    assert (first, rest) == (b"#!/bin/sh", RATTLERS)
    assert second == f"'''exec' \"{FAR.prefix}/bin/python3.13\" \"$0\" \"$@\" #'''".encode()
    ast.parse(script)
