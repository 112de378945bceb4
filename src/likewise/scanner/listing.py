"""Which files a distribution has, before any of them is read: from its `RECORD`, or from other traces of an install."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from likewise.errors import ScanError
from likewise.model.digest import Digest
from likewise.model.identity import Layout, bytecode_source, entry_points, installed_path, is_generated
from likewise.model.layer import path_problem
from likewise.model.record import Claim, parse_record
from likewise.model.snapshot import Problem, Severity
from likewise.scanner.beliefs import Beliefs, Voucher


class Found(NamedTuple):
    """A file on the disk: absolute path, stat facts, the sha256 that `RECORD` claims; target when kept as a link.

    `believed` says whether the claim is taken for the truth until the file is read.
    """

    path: str
    stat: os.stat_result
    claim: Digest | None = None
    link: str = ""
    believed: bool = False


@dataclass(slots=True)
class Listing:
    """The files of one distribution, found and not yet read. `find_unlisted` and `settle` complete it.

    Attributes
    ----------
    name : str
        For messages: file name of the dist-info.
    site : str
        The directory that its `RECORD` is relative to.
    layout : Layout
    scripts : frozenset of str
        Generated scripts, see `identity.entry_points`.
    files : dict of str to Found
        By layer path; content only.
    claimed : set of str
        Absolute paths of everything it owns, generated files and missing ones included.
    missing : list of str
        Layer paths.
    unlisted : list of str
        Layer paths in `files` that `RECORD` does not list.
    tops : frozenset of str
        Without a file list: names in `site` that are this distribution's as far as nobody else owns them.
    voucher : Voucher, optional
        Which claims are believed; None: none is.
    linked : bool
        Whether links stand for what they lead to.
    problems : list of Problem
    """

    name: str
    site: str
    layout: Layout
    scripts: frozenset[str] = frozenset()
    files: dict[str, Found] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    tops: frozenset[str] = frozenset()
    voucher: Voucher | None = None
    linked: bool = False
    problems: list[Problem] = field(default_factory=list)

    def problem(self, code: str, message: str, severity: Severity = Severity.ERROR) -> None:
        """Note a problem of this distribution."""
        self.problems.append(Problem(code=code, subject=self.name, message=message, severity=severity))


_BYTECODE = (".pyc", ".pyo")
_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def list_files(
    dist_info: Path, *, layout: Layout, owned: Sequence[str] | None = None, beliefs: Beliefs | None = None
) -> Listing:
    """Find the files of one distribution. Looks at each (lstat), reads none but the lists of names.

    Parameters
    ----------
    dist_info : Path
        A ``.dist-info``, an ``.egg-info`` (directory or file), or the ``EGG-INFO`` of an egg.
    layout : Layout
        Of the site directory it lies in.
    owned : sequence of str, optional
        Absolute paths that a system package manager or conda owns on its behalf; used in place of `RECORD`.
    beliefs : Beliefs, optional
        Whether its `RECORD` is believed; without, it is not.
    """
    folder = os.path.abspath(dist_info)
    site = os.path.dirname(folder)
    if os.path.basename(folder) == "EGG-INFO":
        site = os.path.dirname(site)
    listing = Listing(name=os.path.basename(folder), site=site, layout=layout)
    listing.scripts = entry_points(_text(os.path.join(folder, "entry_points.txt")))
    if owned is not None:
        _from_owned(listing, owned)
    elif not _from_record(listing, folder, beliefs):
        _from_traces(listing, folder)
    return listing


def _from_record(listing: Listing, folder: str, beliefs: Beliefs | None) -> bool:
    if not folder.endswith(".dist-info"):
        return False
    path = os.path.join(folder, "RECORD")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            listing.voucher = beliefs.voucher(path, os.fstat(file.fileno())) if beliefs else None
            claims = parse_record(file.read())
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        listing.problem("record-unreadable", f"{path} can't be read ({error}); its files are taken from the disk.",
                        Severity.WARNING)  # fmt: skip
        return False
    if not claims:
        return False
    add_claims(listing, claims)
    return True


def add_claims(listing: Listing, claims: Iterable[Claim]) -> None:
    """Look up every claimed path (relative to the site directory, or absolute)."""
    files, claimed = listing.files, listing.claimed
    base = listing.site.rstrip("/") + "/"
    prefix = (installed_path(base + "x", listing.layout) or "x")[:-1]
    bytecode: list[tuple[str, str, Digest | None, int]] = []
    for name, claim, size in claims:
        # Quick for what is plainly a file beneath the site directory, careful with all others.
        if not prefix or name[0] in "/." or "/." in name or "//" in name or "\0" in name or not name.isascii():
            path = os.path.normpath(os.path.join(base, name))
            layer_path = _checked(listing, path, name)
            if not layer_path:
                continue
        else:
            path, layer_path = base + name, prefix + name
        claimed.add(path)
        if layer_path.endswith(_BYTECODE):
            bytecode.append((layer_path, path, claim, size))
        elif layer_path in files:
            if files[layer_path].claim != claim:  # listed twice with two hashes: no usable claim
                files[layer_path] = files[layer_path]._replace(claim=None, believed=False)
        elif not is_generated(layer_path, listing.scripts):
            add_file(listing, layer_path, path, claim, size)
    for layer_path, path, claim, size in bytecode:
        if not _has_source(layer_path, path, listing):
            add_file(listing, layer_path, path, claim, size)


def _has_source(layer_path: str, path: str, listing: Listing) -> bool:
    """Whether a bytecode file is only a by-product. One in a ``__pycache__`` is never imported without its source."""
    source = bytecode_source(path) or ""
    return bytecode_source(layer_path) in listing.files or source in listing.claimed or os.path.exists(source)


def _checked(listing: Listing, path: str, name: str) -> str:
    """Layer path of a path that isn't plainly harmless, "" when it is refused."""
    layer_path = installed_path(path, listing.layout)
    if layer_path is None:
        listing.problem(
            "path-escapes",
            f"RECORD names {name!r}, which lies outside {listing.layout.prefix}; it is neither read nor shipped. "
            "Reinstall the distribution from a source you trust.",
        )
        return ""
    if layer_path.startswith("data/."):  # the prefix may be a home directory
        listing.problem(
            "private-path",
            f"RECORD names {name!r}, a hidden file or folder of {listing.layout.prefix} itself, where people keep keys "
            "and passwords; it is neither read nor shipped. Reinstall the distribution from a source you trust.",
        )
        return ""
    reason = path_problem(layer_path)
    if reason:
        listing.problem("bad-path", f"The file name {name!r} {reason}; it is not shipped. Rename it.")
        return ""
    return layer_path


def add_file(listing: Listing, layer_path: str, path: str, claim: Digest | None = None, size: int = -1) -> None:
    """Look at one path and note what it is; directories are no content. Links are decided on later.

    `claim` and `size` (bytes) are what `RECORD` says of it.
    """
    link = ""
    try:
        facts = os.lstat(path)
        if stat.S_ISLNK(facts.st_mode):
            link, facts = os.readlink(path), os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        listing.missing.append(layer_path)
        return
    except OSError as error:
        refuse_shortage(error, path)
        listing.problem("unreadable-file", f"{path} can't be read ({error.strerror}); it is not shipped.")
        return
    if stat.S_ISREG(facts.st_mode) or (link and stat.S_ISDIR(facts.st_mode)):
        voucher = listing.voucher
        believed = voucher is not None and claim is not None and not link and voucher.covers(path, facts, size)
        listing.files[layer_path] = Found(path, facts, claim, link, believed)
    elif not stat.S_ISDIR(facts.st_mode):
        listing.problem("special-file", f"{path} is neither a file nor a directory; it is not shipped.",
                        Severity.WARNING)  # fmt: skip


def refuse_shortage(error: OSError, path: str) -> None:
    """Raise what says nothing of the file but of the machine: a file that is left out then would be missed on nodes.

    Raises
    ------
    ScanError
        When `error` is a shortage of file descriptors or of memory.
    """
    if error.errno in _SHORTAGE:
        raise ScanError(
            f"The file can't be looked at now ({error.strerror}).",
            where=path,
            todo="Try again when less is running on this machine, or allow more open files (ulimit -n).",
            details={"errno": errno.errorcode[error.errno]},
        ) from error


def settle_links(listing: Listing) -> None:
    """Keep the links that mean the same in the layer, and put what they lead to in the place of the others.

    Wheels hold no links; conda, Debian and people make them. One is kept when it is relative and leads to a file or
    directory of the same distribution in the same scheme, without a detour over another link.
    """
    for layer_path, found in [(p, f) for p, f in listing.files.items() if f.link]:
        if any(path.startswith(layer_path + "/") for path in listing.files):
            del listing.files[layer_path]  # a directory whose files are listed by a path through the link
        elif _means_the_same(layer_path, found, listing):
            listing.files[layer_path] = found._replace(claim=None)
        elif stat.S_ISDIR(found.stat.st_mode):
            listing.linked = True
            del listing.files[layer_path]
            _add_linked_directory(listing, layer_path, found.path)
        else:
            listing.linked = True
            listing.files[layer_path] = found._replace(link="")


def _means_the_same(layer_path: str, found: Found, listing: Listing) -> bool:
    if os.path.isabs(found.link):
        return False
    scheme, _, inner = layer_path.partition("/")
    target = os.path.normpath(os.path.join(os.path.dirname(inner), found.link))
    depth = inner.count("/")
    for part in found.link.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    lexical = os.path.normpath(os.path.join(os.path.dirname(found.path), found.link))
    aim = f"{scheme}/{target}"
    owned = aim in listing.files or any(path.startswith(aim + "/") for path in listing.files)
    return owned and os.path.realpath(lexical) == os.path.realpath(found.path)


def _add_linked_directory(listing: Listing, layer_path: str, path: str) -> None:
    """A link to a directory elsewhere: its files are content at the link's own path (Debian links to /usr/share)."""
    seen = {os.path.realpath(os.path.dirname(path))}
    for folder, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a loop
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if f != "__pycache__"]
        for name in names:
            inner = layer_path + os.path.join(folder, name)[len(path) :]
            if os.path.isfile(os.path.join(folder, name)) and not path_problem(inner):
                listing.files[inner] = Found(os.path.join(folder, name), os.stat(os.path.join(folder, name)))


_NOT_CONTENT = ("share/doc/", "share/man/", "share/info/", "share/lintian/", "share/bug/", "share/doc-base/",
                "share/python3/", "share/locale/")  # fmt: skip
"""What a system package adds for the system; nothing in it is ever imported or opened by a distribution."""


def _from_owned(listing: Listing, owned: Sequence[str]) -> None:
    for path in owned:
        path = os.path.normpath(path)
        layer_path = installed_path(path, listing.layout)
        if layer_path is None or layer_path.startswith(tuple(f"data/{p}" for p in _NOT_CONTENT)):
            continue
        listing.claimed.add(path)
        source = bytecode_source(layer_path)
        if source and ("__pycache__" in layer_path or os.path.exists(path[:-4] + ".py")):
            continue
        if path_problem(layer_path):
            _checked(listing, path, path)
        elif not is_generated(layer_path, listing.scripts):
            add_file(listing, layer_path, path)


def _from_traces(listing: Listing, folder: str) -> None:
    """No `RECORD`: what setuptools, distutils and pip left instead (``installed-files.txt``, ``top_level.txt``)."""
    if os.path.basename(folder) == "EGG-INFO":
        listing.tops = frozenset({os.path.basename(os.path.dirname(folder))})
        return
    tops = {os.path.basename(folder)}
    installed = _text(os.path.join(folder, "installed-files.txt")).split("\n")
    listed = [os.path.normpath(os.path.join(folder, line.strip())) for line in installed if line.strip()]
    add_claims(listing, [(path, None, -1) for path in listed])
    if not listed:
        names = _text(os.path.join(folder, "top_level.txt")).split() or _sources(folder)
        stem = os.path.basename(folder).partition("-")[0]
        tops.update(name for name in names or [stem] if "/" not in name and not name.startswith("."))
    listing.tops = frozenset(tops)


def _sources(folder: str) -> set[str]:
    """Top-level names of the Python files in ``SOURCES.txt``, whose paths are those of the source tree."""
    lines = (line.strip() for line in _text(os.path.join(folder, "SOURCES.txt")).split("\n"))
    paths = [line.removeprefix("src/").removeprefix("lib/") for line in lines if line.endswith("/__init__.py")]
    return {path.partition("/")[0] for path in paths} - {"tests", "test", "docs", "examples"}


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
