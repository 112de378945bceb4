"""The interpreter layer: a copy of the base Python that runs from any folder and takes nothing from its original.

Three kinds come out alike: a relocatable build (python-build-standalone, as uv manages them), one built for its
prefix (pyenv: absolute library search paths, a shared libpython), and a distribution's (Debian: the standard library
split from its data, libraries of the system). On a node it is run as the base of a venv, so that Debian's
``dist-packages`` and ``posix_local`` logic stays out of the way.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from likewise.errors import LayerError, UnsupportedError
from likewise.layers.binaries import Binaries
from likewise.layers.layout import Layout, base_layout
from likewise.layers.relocate import Derived, Facts, file_digest, source_data, source_file
from likewise.layers.sysconfigs import relocate_makefile, relocate_sysconfigdata
from likewise.model.digest import EMPTY
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.snapshot import Interpreter, PrefixKind, Problem, Severity

_DROPPED_DIRS = frozenset({
    "__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "idle_test",
})  # fmt: skip
_DROPPED_FILES = re.compile(
    r".*\.(a|o|pyc|pyo|exe)|(site|user)customize\.py|EXTERNALLY-MANAGED|build-details\.json|_sysconfig_vars_.*\.json"
    r"|_test\w*\..*\.so|_ctypes_test\..*\.so|_?xx(limited|testfuzz)\w*\..*\.so"
)
_WHEELS = "share/python-wheels"
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
_CERTIFICATE = re.compile(rb"-----BEGIN ((?:TRUSTED |X509 )?CERTIFICATE)-----[^-]+-----END \1-----")


def interpreter_source(
    interpreter: Interpreter, *, facts: Facts, work: Path
) -> tuple[LayerSource, tuple[Problem, ...]]:
    """The interpreter layer for `interpreter`.

    Parameters
    ----------
    interpreter : Interpreter
        Of the client's prefix; its base Python is what is copied.
    facts : Facts
        Known digests of unchanged files.
    work : Path
        Folder for patched copies, kept from one call to the next.

    Returns
    -------
    LayerSource
        Paths begin with ``interpreter/``: ``bin/python3.11``, ``lib/…``, ``include/…``, ``ssl/cert.pem``.
    tuple of Problem

    Raises
    ------
    UnsupportedError
        For a conda prefix (its Python is a conda package like others), another operating system than Linux, or when
        patchelf is missing.
    LayerError
        When a part can't be read or patched.
    """
    _refuse(interpreter)
    derived = Derived(work / "derived", facts)
    layout = base_layout(interpreter.executable, derived)
    tree = _Tree(interpreter.python, layout, facts, derived)
    program = f"interpreter/bin/{interpreter.python}"
    binaries = Binaries(
        {program: layout.executable, **dict(tree.extensions())}, program, layout.base_prefix, facts, work
    )
    binaries.close()
    files = [*tree.library(), *tree.headers(), *tree.wheels(), *tree.links(), *binaries.files(derived)]
    problems = list(binaries.problems())
    bundle = certificate_bundle(layout.cafile, layout.capath, os.environ)
    if bundle:
        files.append(source_data(bundle, "interpreter/ssl/cert.pem"))
    else:
        problems.append(_no_certificates(layout))
    layer = layer_source(LayerKind.INTERPRETER, interpreter.implementation, interpreter.version, files)
    return layer, tuple(problems)


def _refuse(interpreter: Interpreter) -> None:
    if PrefixKind.CONDA in (interpreter.kind, interpreter.base_kind):
        raise UnsupportedError(
            "conda has no record of the Python of this prefix, so it is not known which files are its own.",
            where=interpreter.base_prefix,
            todo="Install it again: conda install --force-reinstall python",
        )
    if interpreter.platform.os != "linux":
        raise UnsupportedError(
            f"An interpreter for {interpreter.platform.os} can't run on Linux nodes.", where=interpreter.executable
        )


class _Tree:
    """The parts of a base Python that don't run by themselves."""

    def __init__(self, python: str, layout: Layout, facts: Facts, derived: Derived) -> None:
        self.python = python
        self.layout = layout
        self.facts = facts
        self.derived = derived
        self.stdlib = f"interpreter/{layout.libdir}/{python}"
        self.files = list(walk(layout.stdlib))
        self.wheels_there = _WHEELS if os.path.isdir(layout.wheels) else ""
        self.prefixes = [layout.base_prefix, os.path.realpath(layout.base_prefix), *layout.built_prefixes]

    def library(self) -> Iterator[SourceFile]:
        """The standard library without its extension modules."""
        for path, relative in self.files:
            name, target = os.path.basename(relative), f"{self.stdlib}/{relative}"
            if name.endswith(".so"):
                continue
            if not relative.startswith("config-"):
                rewrite = self._sysconfigdata if name.startswith("_sysconfigdata") else None
            elif name == "Makefile":
                rewrite = self._makefile
            else:
                continue
            yield self._rewritten(path, target, rewrite) if rewrite else source_file(path, target, self.facts)

    def extensions(self) -> Iterator[tuple[str, str]]:
        """Layer path and path of each extension module."""
        for path, relative in self.files:
            if relative.endswith(".so"):
                yield f"{self.stdlib}/{relative}", path
        if self.layout.dynload and not self.layout.dynload.startswith(self.layout.stdlib + "/"):
            for path, relative in walk(self.layout.dynload):
                yield f"{self.stdlib}/lib-dynload/{relative}", path

    def headers(self) -> Iterator[SourceFile]:
        """The C headers of Python itself; on Debian what depends on the machine lies in a folder apart."""
        above, name = os.path.split(self.layout.include)
        for folder in (name, f"{self.layout.multiarch}/{name}") if self.layout.multiarch else (name,):
            for path, relative in walk(f"{above}/{folder}"):
                if "/" not in relative or relative.startswith(("cpython/", "internal/")):  # others' are beside them
                    yield source_file(path, f"interpreter/include/{folder}/{relative}", self.facts)

    def wheels(self) -> Iterator[SourceFile]:
        """What ensurepip installs, where the standard library does not bundle it (Debian, Fedora)."""
        folder = self.layout.wheels
        for name in sorted(os.listdir(folder)) if self.wheels_there else ():
            if name.startswith(("pip-", "setuptools-", "wheel-")) and name.endswith(".whl"):
                yield source_file(f"{folder}/{name}", f"interpreter/{_WHEELS}/{name}", self.facts)

    def links(self) -> Iterator[SourceFile]:
        """``python`` and ``python3``, by which a venv made from the copy may look for its base."""
        for name in ("python", "python3"):
            yield SourceFile(entry=FileEntry(path=f"interpreter/bin/{name}", sha256=EMPTY, size=0, link=self.python))

    def _rewritten(self, path: str, target: str, rewrite: Callable[[str, str], str]) -> SourceFile:
        digest, _ = file_digest(path, self.facts)

        def make(result: str) -> None:
            text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
            Path(result).write_text(rewrite(text, path), encoding="utf-8", errors="surrogateescape")

        made = self.derived.file(rewrite.__name__, digest, *self.prefixes, self.wheels_there, make=make)
        return source_file(made, target, self.facts, executable=False)

    def _sysconfigdata(self, text: str, path: str) -> str:
        return relocate_sysconfigdata(text, self.prefixes, wheels=self.wheels_there, libdir="lib", where=path)

    def _makefile(self, text: str, path: str) -> str:
        return relocate_makefile(text, self.prefixes)


def walk(folder: str) -> Iterator[tuple[str, str]]:
    """Path and ``/``-separated relative path of every file beneath `folder` that is worth shipping, links followed.

    Raises
    ------
    LayerError
        When a folder can't be read; one that is not there is empty.
    """
    stack = [""]
    while stack:
        relative = stack.pop()
        for entry in _entries(os.path.join(folder, relative)):
            name = f"{relative}/{entry.name}" if relative else entry.name
            if entry.is_dir():
                if entry.name not in _DROPPED_DIRS and not entry.is_symlink():
                    stack.append(name)
            elif entry.is_file() and not _DROPPED_FILES.fullmatch(entry.name):
                yield entry.path, name


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LayerError(f"The folder can't be read ({error.strerror}).", where=folder) from error


def certificate_bundle(cafile: str, capath: str, environ: Mapping[str, str]) -> bytes:
    """The certificate authorities that OpenSSL trusts by default, as one PEM file; empty when there are none.

    Parameters
    ----------
    cafile, capath : str
        The compiled-in file and folder.
    environ : mapping
        Whose ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` go before them, as in ``SSL_CTX_set_default_verify_paths``.

    Notes
    -----
    Only certificates are taken: a private key in the same file stays here. In a folder, only names such as
    ``5ed36f99.0`` count (``openssl rehash``); ``SSL_CERT_DIR`` may name several.
    """
    paths = [environ.get("SSL_CERT_FILE") or cafile]
    for folder in (environ.get("SSL_CERT_DIR") or capath).split(":"):
        with contextlib.suppress(OSError):
            paths += [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if _HASHED.fullmatch(name)]
    found: dict[bytes, None] = {}
    for path in filter(None, paths):
        with contextlib.suppress(OSError):
            found.update(dict.fromkeys(m.group() for m in _CERTIFICATE.finditer(Path(path).read_bytes())))
    return b"".join(certificate + b"\n" for certificate in found)


def _no_certificates(layout: Layout) -> Problem:
    return Problem(
        code="no-certificates",
        subject=layout.executable,
        message="This Python trusts no certificate authority by default, so the nodes' Python will trust none either; "
        "set SSL_CERT_FILE to a bundle to change that.",
        severity=Severity.NOTE,
    )
