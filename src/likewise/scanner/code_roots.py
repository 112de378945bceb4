"""Which directories hold loose code: those on ``sys.path`` that neither Python nor a distribution put there."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from likewise.model.editable import Editable
from likewise.model.snapshot import CodePosition
from likewise.scanner.probe import MainModule, Probe

PREFIX_FOLDERS = frozenset(
    {"bin", "sbin", "lib", "lib32", "lib64", "libexec", "include", "share", "etc", "games", "conda-meta", "pkgs"}
)
"""Folders of a prefix that are Python's or a package manager's. Others beneath it may be the user's: with Debian's
Python the prefix is ``/usr``, and container images keep their application in ``/usr/src/app``."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A directory that may hold loose code; `excluded` are paths beneath it that belong to something else."""

    path: str
    why: str
    position: CodePosition
    excluded: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class Territory:
    """What is not loose code.

    Attributes
    ----------
    taken : frozenset of str
        Real paths of directories that are owned with everything beneath them.
    prefixes : frozenset of str
        Real paths of prefixes, of which only `PREFIX_FOLDERS` are owned.
    editable_roots : frozenset of str
        Import roots of editables. One is loose code only where the user stands in it: started there, or named it.
    editable_content : frozenset of str
        What the editables ship themselves: their import packages and modules.
    """

    taken: frozenset[str]
    prefixes: frozenset[str]
    editable_roots: frozenset[str] = frozenset()
    editable_content: frozenset[str] = field(default_factory=frozenset)

    def owns(self, path: str) -> bool:
        """Whether the directory `path` (real) belongs to Python or to something installed."""
        if any(is_beneath(path, owner) for owner in self.taken):
            return True
        for prefix in self.prefixes:
            if path != prefix and is_beneath(path, prefix):
                first = os.path.relpath(path, prefix).split(os.sep)[0]
                if first in PREFIX_FOLDERS:
                    return True
        return False

    def excluded(self, root: str) -> frozenset[str]:
        """Real paths that a walk through `root` must leave alone."""
        own = {os.path.join(root, name) for name in PREFIX_FOLDERS} if root in self.prefixes else set()
        return frozenset(own | self.taken | self.editable_content)


def territory(probe: Probe, skip: Collection[str], editables: Iterable[Editable]) -> Territory:
    """What belongs to the interpreter, the prefixes and the editables."""
    editables = tuple(editables)
    prefixes = {os.path.realpath(p) for p in (probe.interpreter.prefix, probe.interpreter.base_prefix)}
    roots = {os.path.realpath(root) for e in editables for root in e.roots}
    content = {os.path.realpath(path) for editable in editables for path in _content(editable)}
    trees = {os.path.realpath(e.path) for e in editables}
    taken = {os.path.realpath(path) for path in skip} - prefixes - roots - trees
    taken |= {
        os.path.realpath(probe.paths[key])
        for key in ("stdlib", "platstdlib", "purelib", "platlib")
        if key in probe.paths
    }
    if probe.user_site:  # <user base>/lib/python3.11/site-packages, and <user base>/bin for its console scripts
        base = os.path.realpath(os.path.join(probe.user_site, "..", "..", ".."))
        taken |= {os.path.realpath(probe.user_site), os.path.join(base, "bin")}
    return Territory(
        taken=frozenset(taken),
        prefixes=frozenset(prefixes),
        editable_roots=frozenset(roots),
        editable_content=frozenset(content),
    )


def candidates(probe: Probe, *, land: Territory, pth_dirs: Sequence[tuple[str, str]]) -> list[Candidate]:
    """The directories that may hold loose code, in the order of ``sys.path``; those of ``.pth`` files last.

    Parameters
    ----------
    probe : Probe
    land : Territory
    pth_dirs : sequence of (directory, name of the .pth file)
    """
    found: dict[str, Candidate] = {}

    def add(path: str, why: str, position: CodePosition, *, explicit: bool = True) -> None:
        real = os.path.realpath(path)
        if real in found or land.owns(real) or not os.path.isdir(real):
            return
        if not explicit and real in land.editable_roots:
            return
        found[real] = Candidate(path=path, why=why, position=position, excluded=land.excluded(real))

    from_pth = {os.path.realpath(path) for path, _ in pth_dirs}
    boundary = _stdlib_index(probe)
    for index, entry in enumerate(probe.sys_path):
        why = _why(entry, index, probe)
        if why == "sys.path":
            if os.path.realpath(entry) in from_pth or os.path.basename(entry).startswith("."):
                continue  # `.pth` directories come last; ~/.ipython and the like are settings, not code
            add(entry, why, CodePosition.BEFORE if index < boundary else CodePosition.AFTER, explicit=False)
        else:
            add(entry, why, CodePosition.BEFORE)
        if index == 0 and (parent := package_parent(probe.main)):
            add(parent, "package of __main__", CodePosition.BEFORE)
    if probe.main.interactive and probe.cwd and not probe.safe_path:
        add(probe.cwd, "working directory", CodePosition.BEFORE)
    before = [c for c in found.values() if c.position is CodePosition.BEFORE]
    for path, pth in pth_dirs:
        add(path, pth, CodePosition.AFTER, explicit=False)
    return before + [c for c in found.values() if c.position is CodePosition.AFTER]


def package_parent(main: MainModule) -> str:
    """The directory from which the package of ``__main__`` was imported, "" when it is in no package.

    ``-m pkg.mod`` tells the module's dotted name; a script that uses ``from . import x`` has a ``__package__``.
    """
    folder = os.path.dirname(main.file)
    package = main.spec_name.rpartition(".")[0] or main.package
    if not main.file or not package:
        return ""
    for part in reversed(package.split(".")):
        if os.path.basename(folder) != part:
            return ""
        folder = os.path.dirname(folder)
    return folder


def is_beneath(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies beneath it. Both absolute and normalised."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _content(editable: Editable) -> Iterator[str]:
    """Where the import packages and modules of `editable` lie.

    Besides where it says so, directly in the tree: hooks that tell no places (meson-python) take them from there, and
    without what was compiled a source folder must not come before the wheel on the nodes.
    """
    yield from editable.mapping.values()
    for root in (*editable.roots, editable.path, os.path.join(editable.path, "src")):
        for name in editable.imports:
            path = os.path.join(root, *name.split("."))
            yield from (path, path + ".py")


def _why(entry: str, index: int, probe: Probe) -> str:
    """What put `entry` on ``sys.path``."""
    if entry == probe.cwd and (probe.main.interactive or probe.main.spec_name):
        return "working directory"
    if index == 0 and not probe.safe_path:
        return "sys.path[0]"
    if probe.main.file and entry == os.path.dirname(os.path.realpath(probe.main.file)):
        return "folder of __main__"
    return "PYTHONPATH" if entry in probe.pythonpath else "sys.path"


def _stdlib_index(probe: Probe) -> int:
    """Where the standard library begins on ``sys.path``."""
    stdlib = os.path.realpath(probe.paths.get("stdlib", ""))
    return next((i for i, p in enumerate(probe.sys_path) if os.path.realpath(p) == stdlib), len(probe.sys_path))
