"""Files that no `RECORD` names and that lie among a distribution's own: the replica has what the disk has.

Installers copy every file of a wheel, whether its `RECORD` lists it or not, and people drop files into installed
packages. Whose they are can be told only with all distributions of a site directory at hand.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from likewise.model.identity import bytecode_source, installed_path, is_generated
from likewise.model.layer import path_problem
from likewise.scanner.listing import Listing, add_file, refuse_shortage


@dataclass(slots=True)
class Trail:
    """What `find_unlisted` looked at, and what it gave to whom.

    Attributes
    ----------
    folders : list of str
        The directories whose names decided.
    names : list of bytes
        What `name_facts` said of each.
    given : list of (path, listing)
    complete : bool
        Whether nothing else decided, such as what a link leads to.
    """

    folders: list[str] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    given: list[tuple[str, Listing]] = field(default_factory=list)
    complete: bool = True


NAME_FACTS = 8
"""Bytes that `name_facts` gives."""


def name_facts(entries: Iterable[os.DirEntry[str]]) -> bytes:
    """Identifies the names in a directory, and which of them are directories or links: all that decides in it."""
    names = sorted(f"{_kind(entry)}{entry.name}" for entry in entries)
    return hashlib.blake2b(os.fsencode("\0".join(names)), digest_size=NAME_FACTS).digest()


def _kind(entry: os.DirEntry[str]) -> str:
    return "d" if entry.is_dir(follow_symlinks=False) else "l" if entry.is_symlink() else "f"


def find_unlisted(listings: Sequence[Listing], trail: Trail | None = None) -> tuple[str, ...]:
    """Give every unlisted file to the distribution it lies in, and return what is left over.

    A file belongs to the only distribution that has files beneath its nearest directory where anybody has any. Where
    several have, it belongs to those with files in that very directory: to the first by name, so that the answer
    does not depend on order (opencv-python and opencv-python-headless share all of ``cv2``). A directory that several
    share and none has files in, a namespace package, owns nothing. A distribution without a file list comes before all
    others beneath its own names (`Listing.tops`): they have all their files already.

    Parameters
    ----------
    listings : sequence of Listing
        All distributions, of any number of site directories. Completed in place (`files`, `unlisted`).
    trail : Trail, optional
        Is told how it was done.

    Returns
    -------
    tuple of str
        Absolute paths, sorted: directories and files directly in a site directory that nobody owns (not entered), and
        single files in namespace packages.
    """
    by_site: dict[str, list[Listing]] = defaultdict(list)
    for listing in listings:
        by_site[listing.site].append(listing)
    left: list[str] = []
    trail = trail or Trail()
    for site, members in by_site.items():
        left += _one_site(site, sorted(members, key=lambda m: m.name), trail)
    return tuple(sorted(left))


def _one_site(site: str, members: list[Listing], trail: Trail) -> list[str]:
    claimed: set[str] = set()
    for member in members:
        claimed |= member.claimed
    tops = _top_level(site, members)
    left: list[str] = []
    found: list[str] = []
    try:
        entries = _look(site, trail)
    except OSError as error:
        refuse_shortage(error, site)
        trail.complete = False
        return []
    for entry in sorted(entries, key=lambda e: e.name):
        if entry.path in claimed or entry.name == "__pycache__":
            continue
        trail.complete = trail.complete and not entry.is_symlink()
        name = entry.name if entry.name in tops or os.path.isdir(entry.path) else entry.name.partition(".")[0]
        if name not in tops:
            left.append(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            found += _walk(entry.path, claimed, trail)
        else:
            found.append(entry.path)
    return left + _hand_out(found, site, members, trail)


def _module(name: str) -> str:
    """The module that a file is: ``mod.py``, ``mod.cpython-311-x86_64-linux-gnu.so`` → ``mod``; else its name."""
    return name.partition(".")[0] if name.endswith((".py", ".pyi", ".pyc", ".so", ".pyd")) else name


def _top_level(site: str, members: list[Listing]) -> set[str]:
    """First components beneath `site` that somebody has something in (directories), or calls its own."""
    cut = len(site.rstrip("/")) + 1
    tops = {name for member in members for name in member.tops}
    for member in members:
        for path in member.claimed:
            name, beneath, _ = path[cut:].partition("/")
            if beneath and path.startswith(site):
                tops.add(name)
    return tops


def _walk(folder: str, claimed: set[str], trail: Trail) -> Iterator[str]:
    """Files beneath `folder` that nobody claims, without bytecode that has its source."""
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            entries = _look(current, trail)
        except OSError as error:
            refuse_shortage(error, current)
            trail.complete = False
            yield current  # see give
            continue
        for entry in entries:
            path = entry.path
            if path in claimed:
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    pending.append(path)
            elif not (path.endswith((".pyc", ".pyo")) and os.path.exists(bytecode_source(path) or "")):
                trail.complete = trail.complete and not entry.is_symlink()
                yield path


def _look(folder: str, trail: Trail) -> list[os.DirEntry[str]]:
    """What is in a directory, whose names decide.

    Raises
    ------
    OSError
        When it can't be read.
    """
    with os.scandir(folder) as found:
        entries = list(found)
    trail.folders.append(folder)
    trail.names.append(name_facts(entries))
    return entries


def _hand_out(found: list[str], site: str, members: list[Listing], trail: Trail) -> list[str]:
    if not found:
        return []
    direct: dict[str, set[int]] = defaultdict(set)
    below: dict[str, set[int]] = defaultdict(set)
    for index, member in enumerate(members):
        folders = {os.path.dirname(path) for path in member.claimed if path.startswith(site + "/")}
        for folder in folders:
            direct[folder].add(index)
            while len(folder) > len(site) and index not in below[folder]:
                below[folder].add(index)
                folder = os.path.dirname(folder)
    left: list[str] = []
    for path in sorted(found):
        owner = _owner(path, site, members, direct, below)
        if owner is None:
            left.append(path)
        else:
            give(path, owner)
            trail.given.append((path, owner))
    return left


def _owner(
    path: str, site: str, members: list[Listing], direct: dict[str, set[int]], below: dict[str, set[int]]
) -> Listing | None:
    top = path[len(site) + 1 :].partition("/")[0]
    for member in members:
        if top in member.tops or _module(top) in member.tops:
            return member
    folder = os.path.dirname(path)
    while len(folder) > len(site):
        owners = below.get(folder)
        if owners:
            candidates = owners if len(owners) == 1 else direct.get(folder)
            return members[min(candidates)] if candidates else None
        folder = os.path.dirname(folder)
    return None


def give(path: str, owner: Listing) -> None:
    """Add an unlisted file to the listing that it belongs to."""
    layer_path = installed_path(path, owner.layout)
    if layer_path is None:
        return
    reason = path_problem(layer_path)
    if reason:
        owner.problem("bad-path", f"The file name {path!r} {reason}; it is not shipped. Rename it.")
        return
    owner.claimed.add(path)
    if is_generated(layer_path, owner.scripts):
        return
    add_file(owner, layer_path, path)
    if layer_path in owner.files and not owner.tops:
        owner.unlisted.append(layer_path)
    elif os.path.isdir(path) and not os.path.islink(path):
        owner.problem("unreadable-file", f"The directory {path} can't be read; what is in it is not shipped.")
