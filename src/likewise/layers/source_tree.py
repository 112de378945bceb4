"""The files of a source tree that a build can see: listing them, their digest, and a copy to build from.

In a git checkout these are the tracked files, the untracked ones that are not ignored, and what is ignored but lies in
an import package (generated modules, libraries made by hand: back ends such as setuptools and flit take them from the
disk). Elsewhere everything but caches, build outputs, dot-folders and other prefixes.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from likewise.errors import BuildError
from likewise.model.digest import Digest, digest_bytes
from likewise.model.secrets import secret_file, secret_path

MAX_FILES = 100_000
"""More files than any project has: somebody's data lies in the tree."""

LARGE = 50 * 2**20
"""Bytes from which on a file that git does not track is data, not source. It is left out, and named."""

SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "_skbuild", "htmlcov"})
BUILD_OUTPUT = frozenset({"build", "dist"})
BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "CMakeLists.txt", "meson.build", "Cargo.toml")
_REACHES_UP = re.compile(r"\.\./|[\"']\.\.[\"']")


class StatFacts(Protocol):
    """Digests known from stat facts (`likewise.scanner.facts.Facts`)."""

    def digest(self, path: str, stat: os.stat_result, /) -> Digest | None: ...
    def remember(self, path: str, stat: os.stat_result, digest: Digest, /) -> None: ...


class TreeChangedError(Exception):
    """A file changed between looking at the tree and copying it."""


@dataclass(frozen=True)
class TreeFile:
    """One file: ``/``-separated path beneath the tree's base, and what it contains (links are followed)."""

    path: str
    sha256: Digest
    size: int
    executable: bool


@dataclass(frozen=True, kw_only=True)
class SourceTree:
    """A source tree as a build sees it.

    Attributes
    ----------
    base : str
        The directory that `files` are relative to: the project's, or the top of its checkout where a build file
        names a parent folder.
    project : str
        The project's folder beneath `base`, "" when they are the same.
    files : tuple of TreeFile
        Sorted by path.
    large : tuple of str
        Untracked files that are too large to be source.
    build_text : str
        What the project's build files say, to look for words in.
    checkout : str
        Top of the git checkout, "" when there is none.
    """

    base: str
    project: str
    files: tuple[TreeFile, ...]
    large: tuple[str, ...]
    build_text: str
    checkout: str

    @property
    def digest(self) -> Digest:
        """Identity of the content."""
        lines = [f"{f.path}\0{f.sha256}\0{'x' if f.executable else '-'}\n" for f in self.files]
        return digest_bytes((self.project + "\n" + "".join(lines)).encode("utf-8", "surrogateescape"))


def read_tree(root: str, *, packages: Sequence[str] = (), facts: StatFacts | None = None) -> SourceTree:
    """Look at the source tree of the project in `root`.

    Parameters
    ----------
    root : str
    packages : sequence of str
        Directories of its import packages, absolute.
    facts : StatFacts, optional
        Saves reading files that did not change.

    Raises
    ------
    BuildError
        When there is no such tree, it holds too many files, or one can't be read.
    """
    root = os.path.realpath(root)
    if not os.path.isdir(root):
        raise BuildError("The source tree is gone.", where=root, todo="Install the package anew, or uninstall it.")
    build_text = _build_text(root)
    checkout = _checkout(root)
    base = checkout if checkout and _REACHES_UP.search(build_text) else root
    tracked, others = _git_files(base, packages) if checkout else ([], list(islice(_walk(base), MAX_FILES + 1)))
    if len(tracked) + len(others) > MAX_FILES:
        raise _too_many(base, tracked + others)
    large: list[str] = []
    files = {file.path: file for path in tracked for file in _files_at(base, path, facts, None)}
    files |= {file.path: file for path in others for file in _files_at(base, path, facts, large)}
    return SourceTree(
        base=base,
        project=os.path.relpath(root, base).replace(os.sep, "/") if base != root else "",
        files=tuple(sorted(files.values(), key=lambda f: f.path)),
        large=tuple(large),
        build_text=build_text,
        checkout=checkout,
    )


def copy_tree(tree: SourceTree, to: Path) -> Path:
    """Copy the tree's files beneath `to`; returns the project's folder there.

    Raises
    ------
    TreeChangedError
        When a file no longer has the content that `tree` says.
    """
    for file in tree.files:
        target = to / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            content = Path(tree.base, file.path).read_bytes()
        except OSError as error:
            raise TreeChangedError(file.path) from error
        if digest_bytes(content) != file.sha256:
            raise TreeChangedError(file.path)
        target.write_bytes(content)
        if file.executable:
            target.chmod(0o755)
    return to / tree.project


def _too_many(base: str, paths: Iterable[str]) -> BuildError:
    fullest = Counter(path.split("/")[0] for path in paths).most_common(3)
    return BuildError(
        f"The source tree has more than {MAX_FILES:,} files; most are in "
        f"{', '.join(f'{name!r} ({count:,})' for name, count in fullest)}.",
        where=base,
        todo="Move data out of it, or make it a git checkout whose .gitignore names the data.",
        details={"folders": dict(fullest)},
    )


def _build_text(root: str) -> str:
    texts = []
    for name in BUILD_FILES:
        try:
            texts.append(Path(root, name).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
    return "\n".join(texts)


def _checkout(root: str) -> str:
    """Top of the git checkout that `root` is part of, "" when there is none or it ignores `root`."""
    top = git(root, "rev-parse", "--show-toplevel")
    if not top:
        return ""
    known = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *BUILD_FILES)
    return os.path.realpath(top.strip()) if known or not _build_text(root) else ""


def _git_files(base: str, packages: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths of the tracked files, and of the others that a build can see."""
    tracked = _split(git(base, "ls-files", "-z", "--cached"))
    others = _split(git(base, "ls-files", "-z", "--others", "--exclude-standard"))
    others = [
        path for path in others if not any(map(_litter, path.split("/"))) and path.split("/")[0] not in BUILD_OUTPUT
    ]
    inside = [p for p in packages if p.startswith(base + os.sep)]
    if inside:
        ignored = _split(git(base, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", *inside))
        others += [path for path in ignored if not any(map(_skipped, path.split("/")))]
    return tracked, [path for path in others if not secret_path(path)]


def _skipped(name: str) -> bool:
    return name.startswith(".") or _litter(name)


def _litter(name: str) -> bool:
    """Whether builds and runs leave a file or folder of this name; setuptools would take a stale list from there."""
    return name in SKIPPED_FOLDERS or name.endswith((".egg-info", ".pyc", ".pyo"))


def git(folder: str, *arguments: str, stdin: str | None = None) -> str:
    """Output of a git command that only looks, "" when it fails or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _split(listing: str) -> list[str]:
    return [path for path in listing.split("\0") if path]


def _walk(base: str, below: str = "", chain: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Paths of the files beneath ``base/below`` that may be source, without help from git."""
    folder = os.path.join(base, below) if below else base
    try:
        facts = os.stat(folder)
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda e: e.name)
    except OSError:
        return
    identity = (facts.st_dev, facts.st_ino)
    if identity in chain or (below and any(e.name in ("pyvenv.cfg", "conda-meta") for e in entries)):
        return
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        if not entry.is_dir():
            if not (entry.name.endswith((".pyc", ".pyo")) or entry.name == ".git" or secret_file(entry.name)):
                yield path
        elif _may_hold_source(entry, top=not below):
            yield from _walk(base, path, chain | {identity})


def _may_hold_source(entry: os.DirEntry[str], *, top: bool) -> bool:
    package = os.path.exists(os.path.join(entry.path, "__init__.py"))
    if _skipped(entry.name) or (top and entry.name in BUILD_OUTPUT and not package):
        return False
    return not entry.is_symlink() or package


def _files_at(base: str, path: str, facts: StatFacts | None, large: list[str] | None) -> Iterator[TreeFile]:
    """The file at `path`; for a folder (a submodule, a checkout in the checkout, a link) the files in it.

    Files above `LARGE` are put into `large` instead, unless that is None: what git tracks is source at any size.
    """
    path = path.rstrip("/")
    absolute = os.path.join(base, path)
    try:
        known = os.stat(absolute)
    except OSError:
        return  # deleted, or a dangling link
    if stat.S_ISDIR(known.st_mode):
        yield from _files_in(base, path, facts)
    elif not stat.S_ISREG(known.st_mode) or (os.path.islink(absolute) and secret_path(os.path.realpath(absolute))):
        return
    elif large is not None and known.st_size > LARGE:
        large.append(path)
    else:
        yield TreeFile(path, _digest(absolute, known, facts), known.st_size, bool(known.st_mode & stat.S_IXUSR))


def _files_in(base: str, path: str, facts: StatFacts | None) -> Iterator[TreeFile]:
    absolute = os.path.join(base, path)
    if os.path.islink(absolute):
        real = os.path.realpath(absolute)
        inside = real.startswith(base + os.sep)
        if base.startswith(real) or not (inside or os.path.exists(os.path.join(real, "__init__.py"))):
            return
    if os.path.exists(os.path.join(absolute, ".git")):
        tracked, others = _git_files(absolute, ())
        below = tracked + others
    else:
        below = list(_walk(absolute))
    for name in below:
        yield from _files_at(base, f"{path}/{name}", facts, [])


def _digest(path: str, known: os.stat_result, facts: StatFacts | None) -> Digest:
    digest = facts.digest(path, known) if facts else None
    if digest is None:
        hashed = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    hashed.update(block)
        except OSError as error:
            raise BuildError(
                f"A file of the source tree can't be read ({error.strerror or error}).",
                where=path,
                todo="Make it readable, or remove it.",
            ) from error
        digest = Digest(hashed.hexdigest())
        if facts:
            facts.remember(path, known, digest)
    return digest
