"""What belongs to a distribution's identity, and under which path: the rules that make its layer the same whether it
is taken from an installed prefix or from the wheel.

Installers do three things to a wheel: they add files of their own, they spread it over several directories, and they
rewrite the first line of scripts. Each is undone here, and nothing else is touched. Every function is pure.

Sources: the *binary distribution format* (wheel), *recording installed projects* (PEP 376, 627) and *direct URL*
(PEP 610) specifications; what pip and uv do beyond them is named where it matters.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable

import msgspec

GENERATED_METADATA = frozenset(
    {
        "RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json",
        "uv_build.json",
    }
)  # fmt: skip
"""Files of a dist-info that installers write, or that are about a `RECORD` which installers write anew."""

_GENERATED_ENDINGS = tuple(GENERATED_METADATA)

PLACEHOLDER = b"#!python\n"
"""First line of a Python script in a layer. Nodes put their own interpreter there, in executable files only: a script
that has been through these rules is always executable, a file that merely looks like one need not be."""

_OWN_SHEBANG = re.compile(rb"#![ \t]*(?:\"(?P<quoted>[^\"\n]+)\"|(?P<plain>[^ \t\r\n]+))[^\n]*\n")
# Written where the path is too long for the kernel or has a space (distlib, pip, uv), or where the venv is relocatable
# (uv: the interpreter is then found beside the script).
_EXEC_SHEBANG = re.compile(
    rb"#!/bin/sh\n'''exec' (?:'(?P<a>[^'\n]+)'|\"(?P<b>/[^\"$\n]+)\"|(?P<c>/[^ '\"\n]+)"
    rb"|(?P<beside>\"\$\([^\n]*\)\"/'?pythonw?[\d.]*'?)) [^\n]*\"\$@\"\n' '''\n"
)
_PYTHON_NAME = re.compile(r"(python|pypy)w?[\d.]*t?d?(\.exe)?")
_VERSIONED_INSTALLER = re.compile(r"(pip|easy_install)-?\d+(\.\d+)*")
_PYTHON_FOLDER = re.compile(r"lib(?:64)?/(?:python|pypy)[\d.]+t?/site-packages/(.+)", re.DOTALL)
_HEADER_FOLDER = re.compile(r"include/site/(?:python|pypy)[\d.]+t?/(.+)", re.DOTALL)


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where the installer of one site directory puts each scheme. Absolute, normalized; "" where there is none.

    Attributes
    ----------
    purelib : str
        The site directory (``…/site-packages``) that the distributions lie in.
    scripts : str
        ``<prefix>/bin``.
    headers : str
        ``<prefix>/include/site/python3.11`` in a venv, ``<prefix>/include/python3.11`` elsewhere.
    prefix : str
        Root of the ``data`` scheme. Nothing outside it and the three above is ever taken.
    platlib : str
        A second site directory of the same prefix (``lib64`` on some systems).
    executables : tuple of str
        Interpreters that installers write into scripts besides those in `scripts` itself.
    """

    purelib: str
    scripts: str
    headers: str
    prefix: str
    platlib: str = ""
    executables: tuple[str, ...] = ()


def layout_for(site: str, *, python: str, executables: Iterable[str] = ()) -> Layout:
    """The layout that pip and uv use for the site directory `site`, told from its path.

    ``<prefix>/lib/python3.11/site-packages`` (a venv, pyenv, user site) and Debian's
    ``/usr/lib/python3/dist-packages`` and ``/usr/local/lib/python3.11/dist-packages`` have their prefix three
    levels up. Any other directory (``pip install --target``) is its own prefix.

    Parameters
    ----------
    site : str
        Absolute.
    python : str
        ``python3.11``.
    executables : iterable of str
        See `Layout`.
    """
    site = posixpath.normpath(site)
    above, name = posixpath.split(site)
    lib, python_folder = posixpath.split(above)
    prefix, lib_name = posixpath.split(lib)
    if not (name.endswith("-packages") and python_folder.startswith(("python", "pypy")) and lib_name[:3] == "lib"):
        prefix = site
    return Layout(
        purelib=site,
        scripts=posixpath.join(prefix, "bin"),
        headers=posixpath.join(prefix, "include", "site", python),
        prefix=prefix,
        executables=tuple(executables),
    )


def installed_path(path: str, layout: Layout) -> str | None:
    """The layer path of the installed file `path` (absolute, normalized), None when it lies outside the prefix."""
    for scheme, base in (
        ("purelib", layout.purelib),
        ("purelib", layout.platlib),
        ("headers", layout.headers),
        ("scripts", layout.scripts),
        ("data", layout.prefix),
    ):
        if base and path.startswith(base if base.endswith("/") else base + "/"):
            return f"{scheme}/{path[len(base.rstrip('/')) + 1 :]}"
    return None


def wheel_path(name: str, *, data_folder: str, headers: str) -> str | None:
    """The layer path of the wheel's member `name`, None for what installers don't install.

    Parameters
    ----------
    name : str
        As in the zip file.
    data_folder : str
        ``numpy-2.0.0.data``.
    headers : str
        Folder that installers make for the distribution's header files: its name.
    """
    if not name.startswith(data_folder + "/"):
        return f"purelib/{name}"
    _, scheme, rest = (*name.split("/", 2), "", "")[:3]
    if not rest:
        return None
    if scheme in ("purelib", "platlib"):
        return f"purelib/{rest}"
    if scheme == "headers":
        return f"headers/{headers}/{rest}"
    if scheme == "scripts":
        return f"scripts/{rest}"
    return _data_path(rest) if scheme == "data" else None


def _data_path(rest: str) -> str:
    """A file of the ``data`` scheme lies where another scheme begins, and can't be told from that one's files."""
    if rest.startswith("bin/"):
        return f"scripts/{rest[4:]}"
    for pattern, scheme in ((_PYTHON_FOLDER, "purelib"), (_HEADER_FOLDER, "headers")):
        match = pattern.fullmatch(rest)
        if match:
            return f"{scheme}/{match[1]}"
    return f"data/{rest}"


def entry_points(text: str) -> frozenset[str]:
    """Names of the scripts that installers generate from ``entry_points.txt`` (console and GUI scripts).

    A name that could not be a file name in the scripts directory is none.
    """
    names: set[str] = set()
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[] \t")
        elif section in ("console_scripts", "gui_scripts") and "=" in line and line[0] not in "#;":
            names.add(line.partition("=")[0].strip())
    return frozenset(n for n in names if n and "/" not in n)


def is_generated(path: str, scripts: Collection[str]) -> bool:
    """Whether installers generate the file at this layer path, bytecode aside (see `bytecode_source`).

    Parameters
    ----------
    path : str
    scripts : collection of str
        What `entry_points` says.
    """
    if path.startswith("scripts/"):
        return _is_entry_script(path[8:], scripts)
    if not path.endswith(_GENERATED_ENDINGS):
        return False
    folder, _, name = path.rpartition("/")
    scheme, _, dist_info = folder.partition("/")
    own = scheme == "purelib" and dist_info.endswith(".dist-info") and "/" not in dist_info
    return own and name in GENERATED_METADATA


def _is_entry_script(name: str, scripts: Collection[str]) -> bool:
    for suffix in (".exe", "-script.py", "-script.pyw", ".pya"):
        name = name.removesuffix(suffix)
    # pip and uv write versioned names of their own for these two, whatever the wheel says.
    versioned = _VERSIONED_INSTALLER.fullmatch(name)
    return name in scripts or bool(versioned and versioned[1] in scripts)


def bytecode_source(path: str) -> str | None:
    """Path of the source that the bytecode file `path` would be compiled from; None when it is not bytecode.

    ``a/__pycache__/b.cpython-311.opt-1.pyc`` → ``a/b.py`` (PEP 3147, 488), ``a/b.pyc`` → ``a/b.py``.
    """
    if not path.endswith((".pyc", ".pyo")):
        return None
    folder, _, name = path.rpartition("/")
    if folder.endswith("__pycache__") and name.count(".") >= 2:
        stem = re.sub(r"\.[^.]+(\.opt-[^.]+)?$", "", name[:-4])
        folder = folder[: -len("__pycache__")].rstrip("/")
        return f"{folder}/{stem}.py" if folder else f"{stem}.py"
    return path[:-4] + ".py"


def is_content(path: str, scripts: Collection[str], exists: Callable[[str], bool]) -> bool:
    """Whether the file at this layer path belongs to the distribution's identity.

    Parameters
    ----------
    path : str
    scripts : collection of str
        What `entry_points` says.
    exists : callable
        Whether the distribution has a file at another layer path: bytecode is content when its source is missing.
    """
    source = bytecode_source(path)
    return not (source and exists(source)) and not is_generated(path, scripts)


def script_from_wheel(content: bytes) -> bytes | None:
    """`content` of a member of ``.data/scripts`` as it is in a layer, None when it is no Python script.

    Installers put their interpreter in place of a first line that begins with ``#!python``, whatever follows on it
    (an argument, the ``w`` of ``#!pythonw``, a carriage return).
    """
    return PLACEHOLDER + content.partition(b"\n")[2] if content.startswith(b"#!python") else None


def script_from_prefix(content: bytes, is_own: Callable[[str], bool]) -> bytes | None:
    """`content` of an installed script as it is in a layer, None when its first line is not an installer's.

    A literal ``#!python`` is none: no installer leaves one, so it came with the ``data`` scheme and stays as it is.

    Parameters
    ----------
    content : bytes
        The script, or as much of its beginning as holds the interpreter line.
    is_own : callable
        Whether an absolute path is the prefix's own interpreter.
    """
    match = _EXEC_SHEBANG.match(content)
    if match:
        found = match["a"] or match["b"] or match["c"]
        own = match["beside"] is not None or _own_python(found, is_own)
    else:
        match = _OWN_SHEBANG.match(content)
        own = match is not None and _own_python(match["quoted"] or match["plain"], is_own)
    return PLACEHOLDER + content[match.end() :] if match and own else None


def _own_python(raw: bytes, is_own: Callable[[str], bool]) -> bool:
    path = raw.decode("utf-8", "surrogateescape")
    return bool(_PYTHON_NAME.fullmatch(posixpath.basename(path))) and is_own(path)
