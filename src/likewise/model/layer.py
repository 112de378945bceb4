"""A layer: the content-addressed files of one distribution, interpreter or code tree.

The identity of a layer is the digest of its *listing*: a canonical text with one line per file. The same text
opens the layer's archive and lies beside its unpacked tree on a node, so whoever holds a layer can check it
against its digest without trusting anybody.

Paths are relative and begin with a *scheme* (the wheel specification's install schemes, and four of ours), so
that a layer says nothing about where it was taken from or where it will lie.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

import msgspec

from likewise.errors import LayerError
from likewise.model.digest import EMPTY, Digest, digest_bytes

SCHEMES = frozenset({"purelib", "scripts", "data", "headers", "code", "interpreter", "native", "outline"})
"""First component of every path. ``platlib`` is ``purelib`` here: on Linux they are one directory. What lies beneath
``outline`` is for the node itself and has no place in a prefix."""

LISTING_MAGIC = "likewise-layer 1\n"


class LayerKind(str, enum.Enum):
    """What a layer holds."""

    DISTRIBUTION = "distribution"
    CODE = "code"
    INTERPRETER = "interpreter"
    NATIVE = "native"
    BYTECODE = "bytecode"
    OUTLINE = "outline"
    CONDA = "conda"  # a conda package without a Python distribution
    RECORDS = "records"  # what conda-meta says of all conda packages


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One file of a layer.

    Attributes
    ----------
    path : str
        Relative, ``/``-separated, beginning with a scheme: ``purelib/numpy/__init__.py``.
    sha256 : Digest
        Of the content; of nothing for a symbolic link.
    size : int
        Bytes; 0 for a symbolic link.
    executable : bool
    link : str
        Target of a relative symbolic link that stays inside the layer's scheme directory (that of a module: inside the
        prefix, see `stays_inside`), else "".
    placeholder : str
        A folder that the content names where it means its prefix (conda's *prefix placeholder*), else "". The layer has
        the file as it was built; whoever lays it out puts the prefix there (`likewise.model.placeholders`).
    binary : bool
        Whether the placeholder stands in C strings, which keep their length.
    """

    path: str
    sha256: Digest
    size: int
    executable: bool = False
    link: str = ""
    placeholder: str = ""
    binary: bool = False


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What makes the content of an entry of a file that the client has: another beginning, and a piece replaced.

    Attributes
    ----------
    head : bytes
        In place of as many bytes.
    start, stop : int
        Where the piece is, as for slices.
    instead : bytes
        What stands in its place.
    """

    head: bytes
    start: int
    stop: int
    instead: bytes

    def apply(self, data: bytes) -> bytes:
        """The content, made of the file's."""
        return b"".join((self.head, data[len(self.head) : self.start], self.instead, data[self.stop :]))


class SourceFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where the client can read the content of `entry`: a file of its own, part of a file, or `data` made in memory.

    This is a fact about the client and never leaves it.

    Attributes
    ----------
    entry : FileEntry
    path : str
    data : bytes, optional
    offset : int, optional
        Where in the file the content begins; None: it is all of the file.
    believed : str
        Not "" when the content was not read yet, but is what an installer wrote down: the path of the file to make when
        it turns out to be another (see `likewise.layers.content`).
    prefix : str
        Not "" when an installer has put this folder in the place of the entry's placeholder in the file at `path`.
    change : Change, optional
        What makes the content of the file at `path`.
    """

    entry: FileEntry
    path: str = ""
    data: bytes | None = None
    offset: int | None = None
    believed: str = ""
    prefix: str = ""
    change: Change | None = None


class LazyFiles(Sequence[SourceFile]):
    """The files of a layer that is known already: made when somebody looks at one, which few do in a warm start.

    Parameters
    ----------
    make : callable
        Gives the files, sorted by path.
    count, size : int
        How many they are; bytes of content.
    """

    def __init__(self, make: Callable[[], tuple[SourceFile, ...]], *, count: int, size: int) -> None:
        self._make = make
        self._made: tuple[SourceFile, ...] | None = None
        self._count = count
        self.size = size

    def _all(self) -> tuple[SourceFile, ...]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int, /) -> SourceFile: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[SourceFile, ...]: ...
    def __getitem__(self, index: int | slice, /) -> SourceFile | tuple[SourceFile, ...]:
        return self._all()[index]

    def __iter__(self) -> Iterator[SourceFile]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __reduce__(self) -> tuple[object, ...]:
        return tuple, (self._all(),)


class LayerSource(msgspec.Struct, frozen=True, kw_only=True):
    """All files of one layer as they lie on the client; `digest` is the identity they amount to."""

    kind: LayerKind
    name: str
    version: str
    files: Sequence[SourceFile]
    digest: Digest

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.files.size if isinstance(self.files, LazyFiles) else sum(f.entry.size for f in self.files)


def layer_source(kind: LayerKind, name: str, version: str, files: Iterable[SourceFile]) -> LayerSource:
    """Sort `files`, check their paths and compute the digest.

    Raises
    ------
    LayerError
        When a path may not be shipped (see `check_entries`).
    """
    ordered = tuple(sorted(files, key=lambda f: f.entry.path))
    entries = [f.entry for f in ordered]
    check_entries(entries, where=f"{name} {version}".strip())
    return LayerSource(kind=kind, name=name, version=version, files=ordered, digest=layer_digest(entries))


def encode_listing(entries: Sequence[FileEntry]) -> bytes:
    """The canonical listing of sorted `entries`. NUL separates fields: it can't occur in a path.

    A placeholder takes the field of a link's target, since no file has both; ``t`` (text) or ``b`` (binary) says so.
    """
    lines = [LISTING_MAGIC]
    lines += [
        f"{e.path}\0{e.sha256}\0{e.size}\0{'x' if e.executable else '-'}\0{e.link}\0\n"
        if not e.placeholder
        else f"{e.path}\0{e.sha256}\0{e.size}\0{'x' if e.executable else '-'}{'b' if e.binary else 't'}"
        f"\0{e.placeholder}\0\n"
        for e in entries
    ]
    return "".join(lines).encode("utf-8")


def decode_listing(data: bytes, *, where: str = "layer") -> tuple[FileEntry, ...]:
    """Read a listing back, refusing everything that `encode_listing` would not have written.

    Raises
    ------
    LayerError
        When the text is malformed, unsorted, or names a path that may not be shipped.
    """
    try:
        text = data.decode("utf-8")
        head, body = text[: len(LISTING_MAGIC)], text[len(LISTING_MAGIC) :]
        if head != LISTING_MAGIC or (body and not body.endswith("\0\n")):
            raise ValueError("not a layer listing")
        entries = _decode_lines(body)
    except (UnicodeDecodeError, ValueError) as error:
        raise LayerError(f"The layer's listing is damaged ({error}).", where=where) from error
    paths = [e.path for e in entries]
    if paths != sorted(paths):
        raise LayerError("The layer's listing is not in canonical order.", where=where)
    check_entries(entries, where=where)
    return entries


_LINE = re.compile(r"([^\0]+)\0([0-9a-f]{64})\0(0|[1-9][0-9]{0,18})\0([x-][bt]?)\0([^\0]*)\0\n")


def _decode_lines(body: str) -> tuple[FileEntry, ...]:
    """All lines at once: that takes half the time, and a node reads many listings before it can start."""
    found = _LINE.findall(body)
    if 5 * len(found) != body.count("\0"):  # whatever lies between two matches has a NUL, or the next path begins there
        raise ValueError(f"{body.count(chr(10))} lines, {len(found)} good ones")
    return tuple(
        FileEntry(path=path, sha256=Digest(sha256), size=int(size), executable=flag == "x", link=link)
        if len(flag) == 1
        else FileEntry(
            path=path,
            sha256=Digest(sha256),
            size=int(size),
            executable=flag[0] == "x",
            placeholder=link,
            binary=flag[1] == "b",
        )
        for path, sha256, size, flag, link in found
    )


def layer_digest(entries: Sequence[FileEntry]) -> Digest:
    """The identity of the layer with these sorted entries."""
    return digest_bytes(encode_listing(entries))


def check_entries(entries: Sequence[FileEntry], *, where: str) -> None:
    """Refuse paths that escape, collide, or can't be represented; all problems in one error.

    Raises
    ------
    LayerError
        With every offending path in ``details["paths"]``.
    """
    if _plainly_safe(entries):
        return
    problems: dict[str, str] = {}
    seen: dict[str, str] = {}
    leaves = {_folded(e.path) for e in entries}
    for entry in entries:
        reason = path_problem(entry.path) or _link_problem(entry) or _placeholder_problem(entry)
        folded = _folded(entry.path)
        if not reason and folded in seen:
            reason = f"collides with {seen[folded]!r} where case is ignored"
        if not reason and any(parent in leaves for parent in _parents(folded)):
            reason = "lies beneath another file"
        if reason:
            problems[entry.path] = reason
        seen[folded] = entry.path
    if problems:
        listed = "; ".join(f"{p!r} {r}" for p, r in list(problems.items())[:5])
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise LayerError(
            f"The file list names paths that may not be shipped: {listed}{more}.",
            where=where,
            todo="Reinstall the distribution, or leave it out with package_sync_ignore.",
            details={"paths": problems},
        )


_UNSAFE = ("//", "/./", "/../", "/\0", "/.\0", "/..\0")


def _plainly_safe(entries: Sequence[FileEntry]) -> bool:
    """Whether nothing in `entries` can be a problem. Says no when in doubt; all paths at once, so that it is quick."""
    paths = [e.path for e in entries]
    joined = "\0".join([*paths, ""])
    folded = joined.casefold().split("\0")[:-1]
    if len(folded) != len(paths):  # a NUL in a path
        return False
    folded = [path if path.startswith("data/") else fold for path, fold in zip(paths, folded, strict=True)]
    leaves = set(folded)
    folders = {path.rpartition("/")[0] for path in folded}
    return (
        len(leaves) == len(paths)  # no two that collide
        and _is_unicode(joined)
        and not any(part in joined for part in _UNSAFE)
        and {path.partition("/")[0] for path in paths} <= SCHEMES
        and "" not in folders
        and leaves.isdisjoint(folders)
        and leaves.isdisjoint(parent for folder in folders for parent in _parents(folder))
        and not any(_link_problem(e) or _placeholder_problem(e) for e in entries if e.link or e.placeholder)
    )


def _folded(path: str) -> str:
    """What must not occur twice: names that differ in case only are one where case is ignored.

    ``data/`` is apart: terminfo has ``E/Eterm`` and ``e/eterm``, and nobody imports it. Nodes run Linux.
    """
    return path if path.startswith("data/") else path.casefold()


def path_problem(path: str) -> str:
    """Why `path` may not be in a layer, or ""."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in parts[0] or ":" in parts[0]:
        return "is absolute"
    if parts[0] not in SCHEMES or len(parts) < 2:
        return "has no known scheme"
    if any(part in ("", ".", "..") for part in parts):
        return "escapes its directory"
    if "\0" in path:
        return "contains a NUL"
    return "" if _is_unicode(path) else "is not valid Unicode"


def _is_unicode(text: str) -> bool:
    """Whether `text` is free of what stands for undecodable bytes in file names."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _link_problem(entry: FileEntry) -> str:
    if not entry.link:
        return ""
    if entry.size or entry.sha256 != EMPTY or entry.executable:
        return "is a link with content"
    if entry.link.startswith("/") or "\0" in entry.link:
        return "is an absolute link"
    if not _is_unicode(entry.link):
        return "is a link whose target is not valid Unicode"
    return "" if stays_inside(entry.path, entry.link) else "is a link that leaves the layer"


_BENEATH_PREFIX = {"purelib": 3}
"""How many folders of a prefix those schemes lie beneath whose links may lead to its other folders."""


def stays_inside(path: str, link: str) -> bool:
    """Whether the relative link at a layer path stays in its scheme directory, all of its way as it is written.

    One in ``purelib`` may leave that for another place in the prefix (``lib/python3.11/site-packages`` is three folders
    deep), if every ``..`` comes first: then none of them can follow another link, which may lead to somewhere else.

    >>> stays_inside("purelib/torch/lib/libtorch.so", "../../../../libtorch.so"), stays_inside("data/l", "../x")
    (True, False)
    """
    depth = path.count("/") - 1  # components between the scheme directory and the link itself
    parts = link.split("/")
    if climbs(link) > depth:
        deeper = _BENEATH_PREFIX.get(path.partition("/")[0], 0)
        return climbs(link) == parts.count("..") <= depth + deeper
    for part in parts:
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return True


def climbs(link: str) -> int:
    """How many folders a link goes up before it goes down: 2 for ``../../a/../b``."""
    parts = (part for part in link.split("/") if part not in ("", "."))
    return sum(1 for _ in itertools.takewhile(lambda part: part == "..", parts))


def _placeholder_problem(entry: FileEntry) -> str:
    placeholder = entry.placeholder
    if not placeholder:
        return ""
    if entry.link or not entry.size:
        return "has a placeholder and no content"
    if len(placeholder) < 2 or not placeholder.startswith("/") or "\n" in placeholder or not _is_unicode(placeholder):
        return "has a placeholder that is no path"
    return ""


def _parents(path: str) -> Iterable[str]:
    cut = path.rfind("/")
    while cut > 0:
        yield path[:cut]
        cut = path.rfind("/", 0, cut)
