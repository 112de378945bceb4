"""The native layer: libraries that the prefix loads from outside of itself, and what it needs of a node's own.

What is served is decided where the replica will lie (an object's search paths, followed through the layers' files);
where a missing library comes from is decided here, as this machine's dynamic linker would. The libraries are found on a
node through the ``DT_RPATH`` of the replica's interpreter. That reaches every object without a ``DT_RUNPATH``; for one
that has it, and for programs, the library is put where the object looks, if that is inside the prefix.

Libraries that a program opens by itself (``dlopen``, ``ctypes``) can't be seen by reading files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import msgspec

from likewise.errors import LayerError
from likewise.layers.elf import Elf, Known, parse_elf, read_elf
from likewise.layers.loader import (
    Loader,
    expand,
    is_glibc,
    is_left_alone,
    is_platform,
    is_private,
    read_cache,
    stays_with_node,
)
from likewise.layers.relocate import Derived, Facts, file_digest, set_rpath, source_file
from likewise.model.digest import EMPTY, Digest
from likewise.model.layer import FileEntry, LayerKind, LayerSource, SourceFile, layer_source
from likewise.model.manifest import ROOT_BASE, prefix_path, scheme_dirs
from likewise.model.snapshot import Interpreter, Problem, Severity

_ROOT = "/@prefix"  # stands for the replica's prefix; what leaves it no longer begins with it
_NATIVE = "native"
_SHARED = (_NATIVE, "interpreter/lib")  # the folders that the interpreter's DT_RPATH names
_ROOT_LIB = "lib"  # the one that a conda prefix's own interpreter has there, if any
_VERSION = re.compile(r"(GLIBC|GLIBCXX|CXXABI|GCC)_(\d+(?:\.\d+)*)")
_ABI = {"GLIBC_ABI_DT_RELR": "GLIBC_2.36"}
"""Markers by which glibc says what it understands; the version is the one that introduced it (glibc's NEWS)."""

_PROBLEMS = {
    "damaged-elf": (Severity.NOTE, "{who} begins as an ELF file does and is damaged; it is shipped as it is."),
    "library-not-here": (
        Severity.NOTE,
        "{who} needs {library}, which is not here either; it works no less on the nodes than here.",
    ),
    "library-on-nodes": (
        Severity.NOTE,
        "{who} needs {library}, which no layer has; it works where the nodes have it themselves.",
    ),
    "library-out-of-reach": (
        Severity.WARNING,
        "{who} needs {library} from outside the prefix and would not find a shipped copy (it has search paths of its "
        "own, or is a program); install {library} on the nodes.",
    ),
}


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """What `examine` found.

    Attributes
    ----------
    source : LayerSource or None
        The native layer; None when nothing outside the prefix is needed.
    needs : dict
        Version family → lowest version that a node must have: ``{"GLIBC": "2.34", "GLIBCXX": "3.4.30"}``. Of
        ``GLIBCXX``, ``CXXABI`` (libstdc++) and ``GCC`` (libgcc) only what no layer brings itself.
    needed_by : dict
        Version family → path in the replica's prefix of a file that needs it.
    problems : tuple of Problem
    loads : dict
        Name of a layer → names of the others in which its libraries look for those that they load.
    """

    source: LayerSource | None
    needs: dict[str, str]
    needed_by: dict[str, str]
    problems: tuple[Problem, ...]
    loads: dict[str, tuple[str, ...]] = {}


def examine(
    sources: Iterable[LayerSource],
    *,
    interpreter: Interpreter,
    facts: Facts,
    work: Path,
    environ: Mapping[str, str] | None = None,
    here: bool = True,
    unread: Collection[Digest] = (),
) -> Native:
    """Read every ELF file of `sources` and collect the libraries from outside that they load.

    Parameters
    ----------
    sources : iterable of LayerSource
        All layers of the environment, the interpreter's among them.
    interpreter : Interpreter
        The one that the replica has. Files for another processor than its own are ignored; so are, with `here`, needs
        that its own C library can't meet, since such a file does not load here either.
    facts : Facts
        Known digests of libraries of this machine.
    work : Path
        Folder for patched copies and remembered facts, kept from one call to the next.
    environ : mapping, optional
        Whose ``LD_LIBRARY_PATH`` counts; the process's own by default.
    here : bool, default True
        Whether the environment runs on this machine. If not, none of this machine's libraries goes with it: one that
        no layer has is expected of the nodes, and named as a problem.
    unread : collection of Digest
        Layers whose files are not here: the names of their libraries count, and nothing is known of what these need.

    Raises
    ------
    LayerError
        When a library that is needed can't be read or patched.
    """
    examination = _Examination(interpreter, facts, work, os.environ if environ is None else environ, here)
    examination.run(list(sources), unread)
    files = list(examination.files(Derived(work / "derived", facts)))
    return Native(
        source=layer_source(LayerKind.NATIVE, "native", "", files) if files else None,
        needs={family: _dotted(version) for family, (version, _) in sorted(examination.needs.items())},
        needed_by={family: path for family, (_, path) in sorted(examination.needs.items())},
        problems=tuple(examination.problems()),
        loads={name: tuple(sorted(others)) for name, others in sorted(examination.loads.items())},
    )


class _Content(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer brings: layer paths of files named like libraries, its dynamic ELF files, its damaged ones.

    It depends on the layer's content alone, so it is remembered by the layer's digest. What was told from files whose
    content was only believed is forgotten when there is a file at `note` (see `likewise.model.layer.SourceFile`).
    """

    libraries: list[str]
    elfs: dict[str, Elf]
    damaged: list[str]
    note: str = ""


def highest(*needs: Mapping[str, str]) -> dict[str, str]:
    """Of each version family the highest that any of `needs` has."""
    families = sorted({family for one in needs for family in one})
    return {family: max((one[family] for one in needs if family in one), key=_numbers) for family in families}


def _unread(source: LayerSource) -> _Content:
    paths = (file.entry.path for file in source.files)
    return _Content(libraries=[path for path in paths if ".so" in path[path.rfind("/") + 1 :]], elfs={}, damaged=[])


def _read_layer(source: LayerSource) -> _Content:
    note = next((file.believed for file in source.files if file.believed), "")
    content = _Content(libraries=[], elfs={}, damaged=[], note=note)
    for file in source.files:
        path = file.entry.path
        name = path[path.rfind("/") + 1 :]
        if ".so" in name:
            content.libraries.append(path)
        if not _may_be_elf(file.entry, name):
            continue
        try:
            elf = read_elf(file.path) if file.data is None else parse_elf(file.data, where=path)
        except LayerError:
            content.damaged.append(path)
            continue
        if elf and elf.dynamic:
            content.elfs[path] = elf
    return content


def _may_be_elf(entry: FileEntry, name: str) -> bool:
    """Whether a file is worth opening: libraries and programs have telling names or the executable bit."""
    if entry.link or (entry.path.startswith("interpreter/") and is_left_alone(name)):
        return False
    if ".so" in name or entry.executable:
        return True
    return "." not in name and "-info/" not in entry.path  # nobody loads dist-info/LICENSE


class _Object(msgspec.Struct, frozen=True, kw_only=True):
    """One ELF file that the replica will load.

    `path` and `looks_in` (the folders where the dynamic linker will search on its behalf) are relative to the replica's
    prefix; `origin` (gives its folder) and `inherited` (what those that load it pass on) are of this machine.
    """

    path: str
    elf: Elf
    looks_in: tuple[str, ...]
    origin: Callable[[], str]
    inherited: tuple[str, ...] = ()

    def passes_on(self) -> tuple[str, ...]:
        """The folders of this machine that libraries loaded by this object are searched in too."""
        return self.inherited if self.elf.runpath else (*expand(self.elf.rpath, self.origin()), *self.inherited)


class _Examination:
    """Follows every need to where it ends: in a layer, on the node, in the native layer, or nowhere."""

    def __init__(
        self, interpreter: Interpreter, facts: Facts, work: Path, environ: Mapping[str, str], here: bool
    ) -> None:
        self.here = here
        self.python = interpreter.python
        self.arch = interpreter.platform.arch
        self.facts = facts
        self.layers: Known[_Content] = Known(work / "elf-layers", _Content)
        self.elfs: Known[Elf | None] = Known(work / "elf-outside", Elf | None)
        self.loader = Loader(self.read, environ=environ, cache=read_cache())
        self.folders: dict[str, set[str]] = {}  # library name -> folders of the replica's prefix that have it
        self.owners: dict[str, str] = {}  # path in the replica's prefix -> layer
        self.loads: dict[str, set[str]] = {}
        self.outside: dict[str, str] = {}  # path in the replica's prefix -> path of the library here
        self.needs: dict[str, tuple[tuple[int, ...], str]] = {}
        self.trouble: dict[tuple[str, str], list[str]] = {}  # code and library -> who is concerned
        self.shared: tuple[str, ...] = _SHARED  # folders where the interpreter has everything looked for
        self.libc = _numbers(interpreter.platform.libc_version) if here else ()

    def read(self, path: str) -> Elf | None:
        """The facts of a library of this machine; a damaged one counts as none, as it does for the linker."""
        try:
            return self.elfs.get(file_digest(path, self.facts)[0], partial(read_elf, path))
        except LayerError:
            return None

    def run(self, sources: Sequence[LayerSource], unread: Collection[Digest]) -> None:
        """Examine everything that is here."""
        contents = [(one, _unread(one) if one.digest in unread else self._content(one)) for one in sources]
        self._find_shared(contents)
        for source, content in contents:
            for path in content.libraries:
                folder, name = os.path.split(self._place(path))
                self.folders.setdefault(name, set()).add(folder)
            for path in {*content.libraries, *content.elfs}:
                self.owners.setdefault(self._place(path), source.name)
        queue = [item for source, content in contents for item in self._objects(source, content)]
        while queue:
            item = queue.pop()
            self._count(item)
            queue += [library for name in item.elf.needed if (library := self._follow(name, item))]
        self.layers.save()
        self.elfs.save()

    def _find_shared(self, contents: Sequence[tuple[LayerSource, _Content]]) -> None:
        """Where the interpreter lies at the root of the prefix, it is as its packager has made it."""
        program = f"{ROOT_BASE}/bin/{self.python}"
        elf = next((content.elfs[program] for _, content in contents if program in content.elfs), None)
        if elf is not None:
            folders = [] if elf.runpath else expand(elf.rpath, f"{_ROOT}/bin")
            self.shared = (_ROOT_LIB,) if f"{_ROOT}/{_ROOT_LIB}" in map(os.path.normpath, folders) else ()

    def _content(self, source: LayerSource) -> _Content:
        known = self.layers.get(source.digest, partial(_read_layer, source))
        if not known.note or not os.path.exists(known.note):
            return known
        self.layers.forget(source.digest)
        return self.layers.get(source.digest, partial(_read_layer, source))

    def _place(self, path: str) -> str:
        return prefix_path(path, self.python)

    def _objects(self, source: LayerSource, content: _Content) -> Iterator[_Object]:
        for path in content.damaged:
            self._report("damaged-elf", path, path)
        for path, elf in content.elfs.items():
            if elf.machine == self.arch:
                yield self._object(path, elf, source)

    def _object(self, layer_path: str, elf: Elf, source: LayerSource) -> _Object:
        path = self._place(layer_path)
        own = expand(elf.runpath or elf.rpath, f"{_ROOT}/{os.path.dirname(path)}")
        inside = tuple(folder[len(_ROOT) + 1 :] for folder in own if folder.startswith(_ROOT + "/"))
        program = bool(elf.interpreter) and ".so" not in os.path.basename(path)
        looks_in = inside if elf.runpath or program else (*inside, *self.shared)
        return _Object(path=path, elf=elf, looks_in=looks_in, origin=partial(_folder_of, layer_path, source))

    def _served(self, base: str, folders: Iterable[str]) -> bool:
        return not self.folders.get(base, set()).isdisjoint(folders)

    def _follow(self, name: str, item: _Object) -> _Object | None:
        """The library `name` as a new object, when it comes from outside and was not met before."""
        base = os.path.basename(name)
        folders = (*item.looks_in, *self._named_folders(name, item))
        if stays_with_node(base) or self._served(base, folders):
            self._load(base, folders, item)
            return None
        if not self.here:
            if base not in self.folders:
                self._report("library-on-nodes", base, item.path)
            return None
        found = self.loader.find(name, item.elf, item.origin(), inherited=item.inherited)
        library = self.read(found) if found else None
        if library is None and base not in self.folders:
            self._report("library-not-here", base, item.path)
        # Not found, but shipped: something that loads before, or that loads this object, finds it.
        if library is None or is_private(library):
            return None
        if not item.looks_in:
            self._report("library-out-of-reach", base, item.path)
            return None
        return self._bring(base, found, library, item)

    def _named_folders(self, name: str, item: _Object) -> Iterator[str]:
        """A need with a slash is a path, possibly relative to ``$ORIGIN`` (python-build-standalone has one)."""
        folders = expand(os.path.dirname(name), f"{_ROOT}/{os.path.dirname(item.path)}")
        return (folder[len(_ROOT) + 1 :] for folder in folders if folder.startswith(_ROOT + "/"))

    def _load(self, base: str, folders: Iterable[str], item: _Object) -> None:
        """Note whose library `base` is that the object loads, when it is another layer's."""
        user = self.owners.get(item.path)
        owner = next((found for folder in folders if (found := self.owners.get(f"{folder}/{base}"))), None)
        if user and owner and owner != user:
            self.loads.setdefault(user, set()).add(owner)

    def _bring(self, base: str, found: str, library: Elf, item: _Object) -> _Object:
        home = next(iter(self.shared), "")
        folder = home if home in item.looks_in else item.looks_in[0]
        path = f"{folder}/{base}"
        self.folders.setdefault(base, set()).add(folder)
        self.outside[path] = found
        return _Object(
            path=path,
            elf=library,
            looks_in=tuple(dict.fromkeys((folder, *self.shared))),
            origin=partial(os.path.dirname, os.path.realpath(found)),
            inherited=item.passes_on(),
        )

    def _report(self, code: str, library: str, concerned: str) -> None:
        self.trouble.setdefault((code, library), []).append(concerned)

    def _count(self, item: _Object) -> None:
        """Raise `needs` to what this object asks of the node."""
        for library, versions in item.elf.versions.items():
            if not is_glibc(library) and (not is_platform(library) or self._served(library, item.looks_in)):
                continue
            for family, version in filter(None, map(_version, versions)):
                beyond = family == "GLIBC" and self.libc and version > self.libc
                if not beyond and version > self.needs.get(family, ((), ""))[0]:
                    self.needs[family] = (version, item.path)

    def files(self, derived: Derived) -> Iterator[SourceFile]:
        """The libraries from outside, as copies that find each other."""
        first: dict[tuple[str, str], str] = {}
        for path, found in sorted(self.outside.items()):
            folder, name = os.path.split(path)
            twin = first.setdefault((folder, os.path.realpath(found)), name)
            if twin != name:  # two names of one file stay one file: it must not be loaded twice
                entry = FileEntry(path=layer_path(path, self.python), sha256=EMPTY, size=0, link=twin)
                yield SourceFile(entry=entry)
            else:
                yield self._copy(path, found, derived)

    def _copy(self, path: str, found: str, derived: Derived) -> SourceFile:
        target = layer_path(path, self.python)
        elf = self.read(found)
        rpath = _copy_rpath(os.path.dirname(path), self.shared)
        beside = elf is not None and any(not stays_with_node(name) for name in elf.needed)
        if elf is None or not (beside or elf.rpath or elf.runpath):
            return source_file(found, target, self.facts, executable=False)
        digest, _ = file_digest(found, self.facts)
        made = derived.file("rpath", digest, rpath, make=partial(set_rpath, found, rpath=rpath))
        return source_file(made, target, self.facts, executable=False)

    def problems(self) -> Iterator[Problem]:
        """What a person should know, one problem per library."""
        for (code, library), concerned in sorted(self.trouble.items()):
            severity, text = _PROBLEMS[code]
            who = concerned[0] + (f" and {len(concerned) - 1} more" if len(concerned) > 1 else "")
            yield Problem(code=code, subject=library, message=text.format(who=who, library=library), severity=severity)


def layer_path(path: str, python: str) -> str:
    """The layer path of the file at `path` (relative) in a prefix: the inverse of `prefix_path`."""
    schemes = sorted(scheme_dirs(python).items(), key=lambda item: -len(item[1]))
    scheme, folder = next((s, f) for s, f in schemes if not f or path.startswith(f + "/"))
    return f"{scheme}/{path[len(folder) + 1 :] if folder else path}"


def _folder_of(path: str, source: LayerSource) -> str:
    """The folder on this machine of the file at `path` in a layer; one that isn't there for content made in memory."""
    return os.path.dirname(next(f.path for f in source.files if f.entry.path == path)) or _ROOT


def _copy_rpath(folder: str, shared: Sequence[str]) -> str:
    """The ``DT_RPATH`` of a copy in `folder` of the prefix: its own folder, then the shared ones."""
    if folder in shared[:1]:
        return "$ORIGIN"  # the program's DT_RPATH adds the rest
    return ":".join(["$ORIGIN", *(f"$ORIGIN/{os.path.relpath(other, folder)}" for other in shared)])


@cache
def _version(symbol: str) -> tuple[str, tuple[int, ...]] | None:
    """Family and number of a symbol version (``GLIBC_2.34``), None for one that says nothing of a node."""
    match = _VERSION.fullmatch(_ABI.get(symbol, symbol))
    return (match[1], _numbers(match[2])) if match else None


@cache
def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
