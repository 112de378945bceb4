"""What sysconfig reads, made independent of the place it was built for.

``_sysconfigdata_….py`` is a Python module with one dictionary, so its copy can compute paths at import. A Makefile
can't; the prefix it names becomes ``/install``, as in python-build-standalone's own.
"""

from __future__ import annotations

import ast
import pprint
import re
from collections.abc import Iterable, Mapping

from likewise.errors import LayerError
from likewise.model.syntax import parse

_MARK = "@base_prefix@"
SYSTEM_PREFIXES = frozenset({"/usr", "/usr/local"})
"""Prefixes that hold the machine's own tools and data too: not every path beneath one is the interpreter's."""

_OWN = re.compile(
    r"(exec_)?prefix|base|platbase|installed_\w+|\w*LIBDEST|DEST\w+|CONFINCLUDE\w+|INCLUDE(DIR|PY)|INCLDIRSTOMAKE|BINDIR"
    r"|LIB(DIR|PC|PL)|SCRIPTDIR|MANDIR|datarootdir|WASM_\w+|projectbase|srcdir"
)
"""Variables that name folders of the interpreter itself, by the names that CPython's Makefile.pre.in gives them."""

_HEAD = """# Written by likewise from the module of the same name: folders are where this interpreter lies.
build_time_vars = """
_TAIL = """


def _relocate():
    import sys

    for name, value in build_time_vars.items():
        if isinstance(value, str) and "{mark}" in value:
            build_time_vars[name] = value.replace("{mark}", sys.base_prefix)


_relocate()
del _relocate
"""


def relocate_sysconfigdata(text: str, prefixes: Iterable[str], *, wheels: str, libdir: str, where: str) -> str:
    """The source of a ``_sysconfigdata`` module that computes its paths.

    Parameters
    ----------
    text : str
        The original source.
    prefixes : iterable of str
        Prefixes of the original.
    wheels : str
        Where ensurepip's wheels lie relative to the new prefix, "" when they are bundled.
    libdir : str
        Where libpython lies relative to the new prefix.

    Raises
    ------
    LayerError
        When the text is not what CPython's build writes.
    """
    variables = _read_variables(text, where)
    prefixes = _longest_first(prefixes)
    moved = {name: _moved(name, value, prefixes) for name, value in variables.items()}
    moved |= {"WHEEL_PKG_DIR": f"{_MARK}/{wheels}"} if wheels else {}
    moved |= {"LIBDIR": f"{_MARK}/{libdir}"} if "LIBDIR" in moved else {}
    return _HEAD + pprint.pformat(moved, width=120) + _TAIL.format(mark=_MARK)


def relocate_makefile(text: str, prefixes: Iterable[str]) -> str:
    """The Makefile without the prefixes of the original, except where they are the machine's own (``/usr``)."""
    for prefix in _longest_first(prefixes):
        if prefix not in SYSTEM_PREFIXES:
            text = _whole(prefix).sub("/install", text)
    return text


def _longest_first(prefixes: Iterable[str]) -> list[str]:
    """Without the empty one and the root, which occur everywhere."""
    return sorted({p.rstrip("/") for p in prefixes} - {""}, key=lambda p: (-len(p), p))


def _read_variables(text: str, where: str) -> Mapping[str, object]:
    try:
        module = parse(text)
        value = next(
            node.value
            for node in module.body
            if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["build_time_vars"]
        )
        variables = ast.literal_eval(value)
    except (SyntaxError, ValueError, StopIteration) as error:
        raise LayerError(f"The interpreter's build variables can't be read ({error}).", where=where) from error
    if not isinstance(variables, dict):
        raise LayerError("The interpreter's build variables are no dictionary.", where=where)
    return variables


def _moved(name: str, value: object, prefixes: Iterable[str]) -> object:
    if not isinstance(value, str):
        return value
    for prefix in prefixes:
        if prefix not in SYSTEM_PREFIXES or _OWN.fullmatch(name):
            value = _whole(prefix).sub(lambda _: _MARK, value)
    return value


def _whole(prefix: str) -> re.Pattern[str]:
    """`prefix` where it is a whole path or the beginning of one; ``-L`` and the like may stand before it."""
    before = r"(?<![\w/.-])" if prefix in SYSTEM_PREFIXES else ""
    return re.compile(before + re.escape(prefix) + r"(?![\w.-])")
