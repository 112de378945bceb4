"""Which files go along, and into which layer: those of every distribution, and those in site directories that nobody
owns. Nothing is read but lists of names; `likewise.scanner.files.settle` hashes what is listed here.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import msgspec

from likewise.model.layer import SourceFile
from likewise.model.snapshot import PrefixKind, Problem
from likewise.scanner.beliefs import Beliefs
from likewise.scanner.census import Census
from likewise.scanner.distributions import Installed
from likewise.scanner.files import Listing, list_files
from likewise.scanner.leftover import LAYER_NAME, list_leftover, relative_pth, sort_leftover
from likewise.scanner.memory import Memory, Recalled
from likewise.scanner.overlap import first_wins
from likewise.scanner.ownership import Owned
from likewise.scanner.probe import Probe
from likewise.scanner.pth import Pth, read_pth
from likewise.scanner.walks import Walks


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one prefix, found and not yet read.

    Attributes
    ----------
    recalled : dict of str to Recalled
        Distributions that are as they were, by name.
    listings : dict of str to Listing
        The other distributions that are copied, by name.
    loose : tuple of Listing
        One for each site directory, with the files that nobody owns.
    pths : tuple of SourceFile
        Those of nobody's ``.pth`` files that name directories of their own site directory.
    pth_dirs : tuple of (str, str)
        Directories of loose code that ``.pth`` files add, in ``sys.path`` order, each with the file's name.
    problems : tuple of Problem
    """

    recalled: dict[str, Recalled]
    listings: dict[str, Listing]
    loose: tuple[Listing, ...]
    pths: tuple[SourceFile, ...]
    pth_dirs: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...]


def take_inventory(
    census: Census, probe: Probe, memory: Memory | None, walks: Walks, beliefs: Beliefs, *, max_bytes: int
) -> Inventory:
    """List the files of everything that is copied.

    Parameters
    ----------
    census : Census
    probe : Probe
    memory : Memory, optional
        Asked about each distribution first.
    walks : Walks
        Spares walking through directories that are as they were.
    beliefs : Beliefs
        Whose `RECORD` is believed.
    max_bytes : int
        For what nobody owns.

    Raises
    ------
    ScanError
        When what nobody owns comes to more than `max_bytes`.
    """
    recalled = _recall(census, probe, memory) if memory else {}
    listings = _list_distributions(census, probe, recalled, beliefs)
    unowned = _unowned(census, listings, recalled, walks)
    if unowned is None:
        return take_inventory(census, probe, None, walks, beliefs, max_bytes=max_bytes)
    leftover = sort_leftover(unowned, census.sites, probe.sys_path)
    pth_dirs = _pth_dirs([*leftover.pths, *_shipped_pths(listings, recalled)], census, probe)
    loose = []
    for site in census.sites:
        listing = Listing(name=LAYER_NAME, site=site, layout=census.layouts[site])
        modules = [path for path in leftover.modules if path.startswith(site + os.sep)]
        list_leftover(modules, listing, max_bytes=max_bytes)
        loose.append(listing)
    if not walks.apart(recalled, [*listings.values(), *loose]):
        return take_inventory(census, probe, None, walks, beliefs, max_bytes=max_bytes)
    order = {path: index for index, path in enumerate(census.places.searched)}
    everything = sorted([*listings.values(), *loose], key=lambda x: order.get(x.layout.purelib, 0))
    problems = (*leftover.problems, *first_wins(everything))
    pths = {file.entry.path: file for pth in reversed(leftover.pths) if (file := relative_pth(pth))}
    return Inventory(
        recalled=recalled,
        listings=listings,
        loose=tuple(loose),
        pths=tuple(pths.values()),
        pth_dirs=pth_dirs,
        problems=problems,
    )


def _recall(census: Census, probe: Probe, memory: Memory) -> dict[str, Recalled]:
    """What `memory` has of the distributions that have a `RECORD` and nothing better."""
    found = {}
    for one in census.installed:
        if one.has_record and one.name not in census.editables and not _owned(one, census, probe):
            recalled = memory.recall(one, census.layout(one))
            if recalled:
                found[one.name] = recalled
    return found


def _list_distributions(census: Census, probe: Probe, recalled: Container[str], beliefs: Beliefs) -> dict[str, Listing]:
    """The listings of what is copied and not recalled, by name, in ``sys.path`` order."""
    listings = {}
    for one in census.installed:
        if one.name in census.editables or one.name in recalled:
            continue
        owned = _owned(one, census, probe)
        files: Sequence[str] | None = None
        if one.name in census.trees:
            names = os.listdir(one.folder) if os.path.isdir(one.folder) else [""]
            files = [os.path.join(one.folder, name) for name in names]
        elif one.folder == one.site:  # a zipped egg
            files = [one.folder]
        elif owned:
            files = owned.files
        believed = None if one.folder in census.owned else beliefs  # conda rewrites files that it installs
        listings[one.name] = list_files(Path(one.folder), layout=census.layout(one), owned=files, beliefs=believed)
    return listings


def _owned(one: Installed, census: Census, probe: Probe) -> Owned | None:
    """What a package manager knows better than the distribution itself.

    dpkg does where Debian took a package apart; conda's lists are those of the `RECORD`.
    """
    owned = census.owned.get(one.folder)
    return None if one.has_record and probe.interpreter.base_kind is PrefixKind.CONDA else owned


def _unowned(
    census: Census, listings: dict[str, Listing], recalled: dict[str, Recalled], walks: Walks
) -> list[str] | None:
    """What lies in the site directories and belongs to no distribution. Completes all listings on the way.

    None when something new lies among the files of a recalled distribution.
    """
    counted = [listing for name, listing in listings.items() if name not in census.trees]
    for one in census.installed:
        if one.name in census.editables and not one.link:  # its .pth and its import hook are no leftovers
            counted.append(list_files(Path(one.folder), layout=census.layout(one)))
    found = walks.unlisted(counted, recalled)
    if found is None:
        return None
    left = list(found)
    owners = {listing.site for listing in counted} | {one.site for one in recalled.values()}
    for site in set(census.sites) - owners:  # nothing but loose files
        try:
            left += sorted(entry.path for entry in os.scandir(site))
        except OSError:
            continue  # sys.path may name what is not there
    return left


def _shipped_pths(listings: dict[str, Listing], recalled: dict[str, Recalled]) -> list[Pth]:
    """The ``.pth`` files that distributions brought."""
    paths = [path for one in recalled.values() for path in one.pths]
    for owner in listings.values():
        paths += [p for p in owner.claimed if p.endswith(".pth") and os.path.dirname(p) == owner.layout.purelib]
    found = []
    for path in sorted(paths):
        try:
            found.append(read_pth(path))
        except OSError:
            continue  # a problem of its distribution, when it is hashed
    return found


def _pth_dirs(pths: Iterable[Pth], census: Census, probe: Probe) -> tuple[tuple[str, str], ...]:
    """Directories of loose code that `pths` put on ``sys.path``: neither an editable's nor in a site directory."""
    taken = {root for editable in census.editables.values() for root in editable.roots} | set(census.sites)
    inside = tuple(site + os.sep for site in census.sites)
    named = {folder: pth.name for pth in reversed(list(pths)) for folder in pth.folders}
    return tuple(
        (folder, named[folder])
        for folder in probe.sys_path
        if folder in named and folder not in taken and not folder.startswith(inside)
    )
