"""Walking through a code root: which of its files go along, without reading any of them."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from likewise.errors import ScanError
from likewise.model.secrets import secret_file, secret_path
from likewise.scanner.code_ignore import Ignores, ignores_above
from likewise.scanner.code_roots import Candidate, is_beneath

SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})
SKIPPED_SUFFIXES = (".egg-info", ".dist-info", ".egg")
BUILD_OUTPUT = frozenset({"build", "dist"})
FOREIGN_MARKS = frozenset({"pyvenv.cfg", "conda-meta", "CACHEDIR.TAG"})
"""What a prefix has in it, or a cache (the Cache Directory Tagging Specification): ours, and those of other tools."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much loose code one root may hold: a notebook started in the home folder must not ship the home folder.

    Attributes
    ----------
    max_bytes : int
        Bytes of the files that go along.
    max_entries : int
        Files and folders looked at, whether they go along or not.
    """

    max_bytes: int = 200 * 2**20
    max_entries: int = 50_000


@dataclass(frozen=True)
class Found:
    """A file that goes along: its ``/``-separated path in the root, where to read it, its stat facts."""

    relative: str
    path: str
    facts: os.stat_result


@dataclass
class Walked:
    """What a walk found."""

    files: list[Found] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)  # relative paths of what would have gone along
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # relative path, reason; files
    closed: list[tuple[str, str]] = field(default_factory=list)  # the same for folders: nobody here imports from them


@dataclass(frozen=True)
class _Folder:
    path: str  # beneath the real root, through links
    real: str
    relative: str  # "" for the root itself
    ignores: Ignores
    chain: frozenset[tuple[int, int]]  # (device, inode) of itself and the folders above it: ends symlink loops
    in_package: bool = False  # has an __init__.py or lies beneath one: everything in it is the package's data
    only_loaded: bool = False  # ignored, and entered only for the modules in it that are imported already


def walk_root(candidate: Candidate, *, loaded: frozenset[str], limits: Limits) -> Walked:
    """Find the files of a root that go along: Python files, and importable packages with their data.

    Parameters
    ----------
    candidate : Candidate
    loaded : frozenset of str
        Real paths of the modules that are imported already: they go along even when ignored.
    limits : Limits

    Raises
    ------
    ScanError
        When the root is beyond its limits; it names the biggest folders and files.
    """
    walk = _Walk(candidate, loaded, limits)
    walk.run()
    return walk.walked


def is_module(name: str) -> bool:
    """Whether a file of this name is imported by name: source, bytecode without source, or an extension module."""
    if name.endswith(".so"):
        return not name.startswith("lib")
    return name.endswith((".py", ".pyc"))


class _Walk:
    def __init__(self, candidate: Candidate, loaded: frozenset[str], limits: Limits) -> None:
        self.candidate = candidate
        self.root = os.path.realpath(candidate.path)
        self.limits = limits
        self.loaded = loaded
        self.loaded_folders = _folders_above(loaded)
        self.walked = Walked()
        self.count = 0
        self.counts: Counter[str] = Counter()  # entries by folder, down to the second level

    def run(self) -> None:
        try:
            facts = os.stat(self.root)
        except OSError as error:
            self.walked.closed.append(("", error.strerror or str(error)))
            return
        chain = frozenset({(facts.st_dev, facts.st_ino)})
        pending = [_Folder(self.root, self.root, "", ignores_above(self.root), chain)]
        while pending:
            pending += self._open(pending.pop())
        self.walked.files.sort(key=lambda f: f.relative)
        if sum(f.facts.st_size for f in self.walked.files) > self.limits.max_bytes:
            raise too_big(self.candidate.path, self.walked.files, self.limits.max_bytes)

    def _open(self, folder: _Folder) -> list[_Folder]:
        """Take the files in `folder`; return the folders in it that are to be opened, the last one first."""
        try:
            with os.scandir(folder.path) as listing:
                entries = sorted(listing, key=lambda e: e.name, reverse=True)
        except OSError as error:
            self.walked.closed.append((folder.relative, error.strerror or str(error)))
            return []
        self._tally(folder.relative, len(entries))
        names = {e.name for e in entries}
        if folder.relative and names & FOREIGN_MARKS:
            return []  # another prefix, or a cache
        if ".gitignore" in names:
            folder = replace(folder, ignores=folder.ignores.within(folder.path))
        has_code = any(is_module(name) for name in names)
        below = []
        for entry in entries:
            if _is_dir(entry):
                child = self._subfolder(entry, folder)
                below += [child] if child else []
            elif self._wanted(entry, folder, names, has_code=has_code):
                self._take(entry, folder)
        return below

    def _tally(self, relative: str, amount: int) -> None:
        """Count `amount` entries of the folder `relative`."""
        self.count += amount
        parts = relative.split("/")
        for depth in range(1, min(len(parts), 2) + 1):
            self.counts["/".join(parts[:depth])] += amount
        if self.count > self.limits.max_entries:
            raise too_many(self.candidate.path, self.counts, self.limits.max_entries)

    def _subfolder(self, entry: os.DirEntry[str], folder: _Folder) -> _Folder | None:
        """What to open for the folder `entry`, None when nothing in it goes along."""
        name, relative = entry.name, f"{folder.relative}/{entry.name}".lstrip("/")
        if name.startswith(".") or name in SKIPPED_FOLDERS or name.endswith(SKIPPED_SUFFIXES):
            return None
        real = self._follow(entry, relative) if entry.is_symlink() else os.path.join(folder.real, name)
        if not real or real in self.candidate.excluded:
            return None
        package = os.path.exists(os.path.join(entry.path, "__init__.py")) and "." not in name
        loaded = real in self.loaded_folders
        if not (folder.in_package or package):
            importable = name.isidentifier() and (name not in BUILD_OUTPUT or loaded)
            if not importable or not is_beneath(real, self.root):  # a link out of the root must lead to a package
                return None
        ignored = folder.only_loaded or folder.ignores.match(entry.path, folder=True)
        if ignored and not loaded:
            return None
        try:
            facts = os.stat(entry.path)
        except OSError:
            return None  # gone meanwhile
        identity = (facts.st_dev, facts.st_ino)
        if identity in folder.chain:
            return None  # a link to a folder above
        return _Folder(
            entry.path,
            real,
            relative,
            Ignores() if ignored else folder.ignores,
            folder.chain | {identity},
            in_package=folder.in_package or package,
            only_loaded=ignored and not package,
        )

    def _wanted(self, entry: os.DirEntry[str], folder: _Folder, names: set[str], *, has_code: bool) -> bool:
        """Whether the file `entry` goes along."""
        name, relative = entry.name, f"{folder.relative}/{entry.name}".lstrip("/")
        # Data goes along in packages, and beside the modules of a namespace folder; never in the root itself.
        module = is_module(name) or os.path.join(folder.real, name) in self.loaded
        if not (module or folder.in_package or (folder.relative and has_code)):
            return False
        if secret_file(name):
            self.walked.secrets.append(relative)
            return False
        if name.startswith(".") or (name.endswith(".pyc") and name[:-1] in names):
            return False
        real = self._follow(entry, relative) if entry.is_symlink() else os.path.join(folder.real, name)
        if not real or real in self.candidate.excluded:
            return False
        if real in self.loaded:
            return True
        return not (folder.only_loaded or folder.ignores.match(entry.path, folder=False))

    def _follow(self, entry: os.DirEntry[str], relative: str) -> str:
        """Where the link `entry` leads, "" when it may not be followed.

        Within the root any link may. Out of it only those to Python packages and modules, and none to a secret.
        """
        real = os.path.realpath(entry.path)
        inside = is_beneath(real, self.root)
        if secret_path(os.path.relpath(real, self.root) if inside else real):
            self.walked.secrets.append(relative)
            return ""
        if inside:
            parts = os.path.relpath(real, self.root).split(os.sep)
            return "" if any(p != "." and (p.startswith(".") or p in SKIPPED_FOLDERS) for p in parts) else real
        if os.path.isdir(real):
            return real if os.path.exists(os.path.join(real, "__init__.py")) else ""
        return real if is_module(os.path.basename(real)) else ""

    def _take(self, entry: os.DirEntry[str], folder: _Folder) -> None:
        relative = f"{folder.relative}/{entry.name}".lstrip("/")
        try:
            facts = os.stat(entry.path)
        except OSError as error:
            if not entry.is_symlink():  # a dangling link, or one that leads to itself, is nothing
                self.walked.unreadable.append((relative, error.strerror or str(error)))
            return
        if stat.S_ISREG(facts.st_mode):  # reading a pipe would wait for ever
            self.walked.files.append(Found(relative, entry.path, facts))


def too_big(root: str, files: Sequence[Found], limit: int) -> ScanError:
    """The error for a root whose files are too large, naming the biggest."""
    total = sum(f.facts.st_size for f in files)
    folders: Counter[str] = Counter()
    for file in files:
        if "/" in file.relative:
            folders[file.relative.split("/")[0]] += file.facts.st_size
    largest = sorted(files, key=lambda f: -f.facts.st_size)[:5]
    named = [f"{name}/ ({human(size)})" for name, size in folders.most_common(3)]
    named += [f"{f.relative} ({human(f.facts.st_size)})" for f in largest[:3]]
    return ScanError(
        f"The Python code here comes to {human(total)}, and the limit is {human(limit)}. Biggest: {', '.join(named)}.",
        where=root,
        todo=_TODO.format(setting="max-bytes"),
        details={
            "bytes": total,
            "limit": limit,
            "folders": dict(folders.most_common(5)),
            "files": {f.relative: f.facts.st_size for f in largest},
        },
    )


def too_many(root: str, counts: Counter[str], limit: int) -> ScanError:
    """The error for a root with too many files and folders, naming the fullest."""
    total = sum(n for name, n in counts.items() if "/" not in name)
    fullest = [(name, n) for name, n in counts.most_common(8) if name][:5]
    named = ", ".join(f"{name}/ ({n:,})" for name, n in fullest) or "the folder itself"
    return ScanError(
        f"Looking for Python code stopped after {total:,} files and folders; the limit is {limit:,}. "
        f"Most were in: {named}.",
        where=root,
        todo=_TODO.format(setting="max-entries"),
        details={"entries": total, "limit": limit, "folders": dict(fullest)},
    )


_TODO = (
    "Start from a folder of its own for this project, add what is not code to .gitignore, or raise "
    "likewise.code.{setting} in Dask's configuration."
)


def human(size: int) -> str:
    """`size` bytes for people: ``1.5 GB``."""
    amount, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _folders_above(paths: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for path in paths:
        folder = os.path.dirname(path)
        while folder not in found:
            found.add(folder)
            folder = os.path.dirname(folder)
    return frozenset(found)
