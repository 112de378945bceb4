"""The files of an interpreter layer, from a python-build-standalone tree for any processor, which is not run for it.

Such a tree works in every folder: what its program and extension modules load they find relative to themselves. So
nothing needs patching but what ``sysconfig`` reads, and the client needs no tool that knows the target's format. Left
out is what `likewise.layers.interpreter` leaves out of a Python that runs here.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from likewise.errors import LayerError
from likewise.layers.elf import Elf, read_elf
from likewise.layers.interpreter import walk
from likewise.layers.loader import expand, stays_with_node
from likewise.layers.sysconfigs import relocate_makefile, relocate_sysconfigdata
from likewise.model.digest import EMPTY, digest_bytes
from likewise.model.layer import FileEntry, LayerSource, SourceFile

_SCHEME = "interpreter"
_ROOT = f"/{_SCHEME}"  # stands for the tree where search paths are followed, whatever the client's own paths look like
_BUILT_FOR = "/install"  # the prefix that python-build-standalone configures
_VERSION = re.compile(r'^#\s*define\s+PY_VERSION\s+"([^"]+)"', re.MULTILINE)
_MAGIC = {
    "/internal/pycore_magic_number.h": re.compile(rb"^#\s*define\s+PYC_MAGIC_NUMBER\s+(\d+)", re.MULTILINE),
    "/importlib/_bootstrap_external.py": re.compile(rb"^MAGIC_NUMBER = \((\d+)\)\.to_bytes\(2, ", re.MULTILINE),
}


class Standalone:
    """A tree with ``bin``, ``lib`` and ``include``.

    Parameters
    ----------
    tree : Path
    version : str
        The version that it is said to be, PEP 440.
    arch : str
        The processor that it is said to be for, as in `Platform.arch`.
    where : str
        Names it in errors.
    """

    def __init__(self, tree: Path, *, version: str, arch: str, where: str) -> None:
        self._tree = os.path.abspath(tree)
        self._real = os.path.realpath(tree)
        self._version, self._arch, self._where = version, arch, where
        self._python = "python" + ".".join(version.split(".")[:2])

    def lay_out(self, into: Path) -> list[SourceFile]:
        """Write the layer's files beneath `into`, each where its path says.

        Raises
        ------
        LayerError
            When it is another Python than it should be, or names or needs what lies outside of it.
        OSError
            When `into` can't be written.
        """
        self._check_version()
        program = f"bin/{self._python}"
        chosen = [*self._library(), *self._headers()]
        chosen += self._machine_code(program, [place for place in chosen if place.endswith(".so")])
        files = [self._written(place, into, executable=place == program) for place in sorted(set(chosen))]
        for name in ("python", "python3"):
            files.append(SourceFile(entry=_entry(f"bin/{name}", link=self._python)))
        return files

    def _check_version(self) -> None:
        place = f"include/{self._python}/patchlevel.h"
        found = _VERSION.search(self._read(place).decode(errors="replace"))
        if not found or found[1].rstrip("+") != self._version:  # a plus sign: built from a checkout (platform module)
            raise self._wrong(f"is {found[1] if found else 'of no known version'}")

    def _library(self) -> Iterator[str]:
        for _, name in walk(f"{self._tree}/lib/{self._python}"):
            if not name.startswith("config-") or name.endswith("/Makefile"):
                yield f"lib/{self._python}/{name}"

    def _headers(self) -> Iterator[str]:
        for _, name in walk(f"{self._tree}/include/{self._python}"):
            yield f"include/{self._python}/{name}"

    def _machine_code(self, program: str, modules: list[str]) -> set[str]:
        """The program, the extension `modules`, and every library of the tree that they load."""
        found = {program, *modules}
        queue = [program, *modules]
        while queue:
            place = queue.pop()
            elf = self._elf(place)
            libraries = {self._find(name, elf, place) for name in elf.needed if not stays_with_node(name)} - {""}
            queue += libraries - found
            found |= libraries
        return found

    def _elf(self, place: str) -> Elf:
        elf = read_elf(self._inside(place))
        if elf is None or elf.machine != self._arch:
            raise self._wrong(f"has {place}, which is {f'for {elf.machine}' if elf else 'no ELF file'}")
        return elf

    def _find(self, name: str, elf: Elf, place: str) -> str:
        """Place of the library `name` in the tree, "" for one that the node has to have.

        Raises
        ------
        LayerError
            When it is Python's own library: without it, that Python works in one folder alone, or not at all.
        """
        entries = posixpath.dirname(name) if "/" in name else elf.runpath or elf.rpath
        for folder in expand(entries, f"{_ROOT}/{posixpath.dirname(place)}"):
            found = f"{folder}/{posixpath.basename(name)}".removeprefix(_ROOT + "/")
            if not found.startswith("/") and os.path.isfile(f"{self._tree}/{found}"):
                return found
        if posixpath.basename(name).startswith("libpython"):
            raise self._wrong(f"has {place}, which needs {name} from outside of it")
        return ""

    def _written(self, place: str, into: Path, *, executable: bool) -> SourceFile:
        content = self._read(place)
        name = posixpath.basename(place)
        if name == "Makefile" or name.startswith("_sysconfigdata"):
            text = content.decode("utf-8", errors="surrogateescape")
            content = self._relocated(text, name).encode("utf-8", errors="surrogateescape")
        entry = _entry(place, content, executable=executable)
        target = into / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return SourceFile(entry=entry, path=str(target))

    def _relocated(self, text: str, name: str) -> str:
        prefixes = [self._tree, self._real, _BUILT_FOR]  # uv has written the tree's own place into these files
        if name == "Makefile":
            return relocate_makefile(text, prefixes)
        return relocate_sysconfigdata(text, prefixes, wheels="", libdir="lib", where=self._where)

    def _read(self, place: str) -> bytes:
        try:
            return Path(self._inside(place)).read_bytes()
        except OSError as error:
            raise self._wrong(f"has no {place} that can be read ({error.strerror})") from error

    def _inside(self, place: str) -> str:
        """The path of a file that a link may lead to, but not out of the tree."""
        path = f"{self._tree}/{place}"
        if not os.path.realpath(path).startswith(self._real + os.sep):
            raise self._wrong(f"has {place}, which is a link out of it")
        return path

    def _wrong(self, what: str) -> LayerError:
        return LayerError(
            f"The Python that was got as {self._version} for {self._arch} {what}.",
            where=self._where,
            todo="See what UV_PYTHON_INSTALL_MIRROR and UV_PYTHON_DOWNLOADS_JSON_URL name.",
        )


def _entry(place: str, content: bytes = b"", *, executable: bool = False, link: str = "") -> FileEntry:
    digest = digest_bytes(content) if content else EMPTY
    path = f"{_SCHEME}/{place}"
    return FileEntry(path=path, sha256=digest, size=len(content), executable=executable, link=link)


def bytecode_magic(source: LayerSource) -> str:
    """The bytecode magic number of the Python in an interpreter layer, which need not run here.

    Returns
    -------
    str
        Hexadecimal, as `Interpreter.magic`: ``a70d0d0a`` for Python 3.11.

    Raises
    ------
    LayerError
        When the layer doesn't say it.

    Notes
    -----
    CPython has it in ``Include/internal/pycore_magic_number.h`` from 3.14 on, before that in
    ``Lib/importlib/_bootstrap_external.py``; ``\\r\\n`` follows the number in either.
    """
    for end, pattern in _MAGIC.items():
        for file in source.files:
            if file.entry.path.endswith(end):
                match = pattern.search(Path(file.path).read_bytes() if file.data is None else file.data)
                if match:
                    return (int(match[1]).to_bytes(2, "little") + b"\r\n").hex()
    raise LayerError("This Python does not say which bytecode it reads.", where=f"{source.name} {source.version}")
