"""What belongs to the layer of a conda package, and under which path: the rules that make it the same whether it is
taken from a prefix or from the package's archive. Every function is pure.

A package's files lie where they lie in a prefix: its modules in the site directory (``purelib/``), all else as it is
(``data/``), scripts too, because libraries find each other by paths relative to themselves. What names the
prefix has the placeholder of the package (`likewise.model.placeholders`).

Source: the conda package specification (``info/paths.json``, ``info/link.json``), and what conda and rattler do.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from likewise.model.identity import is_content

PYTHON = "python"
"""The name of the package that is the interpreter."""

ENTRY_LINE = b"#!python of conda\n"
"""First line of an entry point's script in a layer: conda's installers name the interpreter by another path than pip
does, and write a line that is too long for the kernel in another way."""

_ENTRY_BODY = """\
# -*- coding: utf-8 -*-
import re
import sys

from {module} import {top}

if __name__ == '__main__':
\tsys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
\tsys.exit({attribute}())
"""
"""What conda, mamba and rattler write for an entry point (conda documentation, "Noarch Python"); as rattler indents."""

_SITE = re.compile(r"lib/python\d+\.\d+t?/site-packages/")
_IMPORT = re.compile(rb"^from (?P<module>\w+(?:\.\w+)*) import \w+$", re.MULTILINE)
_CALL = re.compile(rb"sys\.exit\((?P<attribute>\w+(?:\.\w+)*)\(\)\)")


def site_folder(python: str) -> str:
    """Where modules lie in a conda prefix: ``lib/python3.11/site-packages/``."""
    return f"lib/{python}/site-packages/"


def conda_path(path: str, python: str) -> str:
    """The layer path of the file at `path` in the prefix."""
    site = site_folder(python)
    return f"purelib/{path[len(site) :]}" if path.startswith(site) else f"data/{path}"


def archive_path(path: str, *, noarch: bool) -> str:
    """The layer path of the file at `path` in an archive; a Python package for any platform has folders of its own."""
    if noarch and path.startswith("site-packages/"):
        return f"purelib/{path[len('site-packages/') :]}"
    if noarch and path.startswith("python-scripts/"):
        return f"data/bin/{path[len('python-scripts/') :]}"
    site = _SITE.match(path)
    return f"purelib/{path[site.end() :]}" if site else f"data/{path}"


def belongs(path: str, exists: Callable[[str], bool]) -> bool:
    """Whether the file at this layer path is content: installers generate some, and bytecode has its source.

    Hidden files of the prefix itself are none: it may be a home, where they are somebody's own.

    Parameters
    ----------
    path : str
    exists : callable
        Whether the package has a file at another layer path.
    """
    return not is_hidden(path) and is_content(path, (), exists)


def is_hidden(path: str) -> bool:
    """Whether a layer path is that of a hidden file of the prefix itself."""
    return path.startswith("data/.") and path.count("/") == 1


def entry_script(module: str, attribute: str) -> bytes:
    """The script of an entry point of a package for any platform, as it is in a layer."""
    body = _ENTRY_BODY.format(module=module, top=attribute.partition(".")[0], attribute=attribute)
    return ENTRY_LINE + body.encode()


def entry_script_of(script: bytes) -> bytes | None:
    """The same, of a script that an installer of conda's has written; None when it is none, or was changed since.

    They differ in their indentation: the layer has one of them, so that it is the archive's.
    """
    module, call = _IMPORT.search(script), _CALL.search(script)
    if module is None or call is None:
        return None
    made = entry_script(module["module"].decode(), call["attribute"].decode())
    body = made.removeprefix(ENTRY_LINE).split()
    return made if script.split()[-len(body) :] == body else None
