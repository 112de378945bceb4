"""What the last scan found when it walked the site directories: the reason why the next one need not walk them again.

Which files nobody's `RECORD` names follows from two things: from what every distribution claims, and from the names in
every directory. While both are as they were, so is the answer, and directories say by their times whether their names
are (`stats.keeps_times` tells where that can be believed).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from likewise.model.digest import Digest, digest_bytes
from likewise.scanner.facts import now_ns, read_kept, write_kept
from likewise.scanner.listing import Listing
from likewise.scanner.memory import Recalled, claims_of
from likewise.scanner.stats import FACTS, facts_of, is_young, join_paths, keeps_times, split_paths
from likewise.scanner.unlisted import NAME_FACTS, Trail, find_unlisted, give, name_facts


class _Walk(msgspec.Struct, frozen=True):
    """One walk: whose claims it was about, what it looked at (`folders` beneath `base`), and what came of it.

    `facts` are those of the folders, and `names` what `name_facts` says of each. `given` has pairs of path and the
    listing that it went to (site directory and name). `apart` identifies recalled distributions and other listings that
    are known to have no layer path in common.
    """

    rules: str
    claims: Digest
    base: str
    folders: bytes
    facts: bytes
    names: bytes
    left: tuple[str, ...]
    given: tuple[tuple[str, str, str], ...]
    apart: Digest | None = None


class Walks:
    """The last walk of the site directories of one prefix, kept in one file of `folder` (see `Facts`).

    Parameters
    ----------
    folder : Path
    prefix : str
    rules : str
        Changes when the same directories may mean something else; see `Memory`.
    """

    def __init__(self, folder: Path, prefix: str, rules: str) -> None:
        self._file = folder / f"{digest_bytes(os.fsencode(prefix))[:32]}.walk"
        self._began = now_ns()
        self._rules = rules
        kept = read_kept(self._file, _Walk)
        self._kept = kept if kept and kept.rules == rules else None
        self._next = self._kept

    def unlisted(self, listings: Sequence[Listing], recalled: Mapping[str, Recalled]) -> tuple[str, ...] | None:
        """What `find_unlisted` says of all; directories are looked at, and walked only if one has other names in it.

        None when something new lies among the files of a recalled distribution.
        """
        everybody = [*map(claims_of, listings), *(one.claims for one in recalled.values())]
        claims = digest_bytes("".join(sorted(everybody)).encode())
        kept = self._kept
        if kept and kept.claims == claims and self._has_same_names(kept):
            owners = {(listing.site, listing.name): listing for listing in listings}
            if all((site, name) in owners for _, site, name in kept.given):
                for path, site, name in kept.given:
                    give(path, owners[site, name])
                return kept.left
        return self._walk(claims, listings, [one.listing() for one in recalled.values()])

    def apart(self, recalled: Mapping[str, Recalled], others: Sequence[Listing]) -> bool:
        """Whether no two distributions of `recalled` have the same layer path, nor one of them and one of `others`."""
        theirs = sorted(path for listing in others for path in listing.files)
        names = sorted(f"{name} {one.source.digest}" for name, one in recalled.items())
        key = digest_bytes("\0".join([*names, "", *theirs]).encode("utf-8", "surrogateescape"))
        if self._next and self._next.apart == key:
            return True
        paths = [path for one in recalled.values() for path in one.paths()]
        if len(set(paths)) < len(paths) or not set(paths).isdisjoint(theirs):
            return False
        if self._next:
            self._next = msgspec.structs.replace(self._next, apart=key)
        return True

    def save(self) -> None:
        """Write what changed, atomically."""
        if self._next is not self._kept and self._next:
            write_kept(self._file, self._next)

    def _has_same_names(self, kept: _Walk) -> bool:
        """Whether every directory has the names in it that it had: its times say so, or it is read."""
        folders = split_paths(kept.folders)
        facts = facts_of(kept.base, folders)
        if facts == kept.facts:
            return True
        if len(facts) != len(kept.facts):
            return False
        for number, folder in enumerate(folders):
            ours = slice(number * FACTS, (number + 1) * FACTS)
            if facts[ours] != kept.facts[ours]:
                names = kept.names[number * NAME_FACTS : (number + 1) * NAME_FACTS]
                if _names_in(os.path.join(kept.base, folder)) != names:
                    return False
        if not is_young(facts, self._began):
            self._next = msgspec.structs.replace(kept, facts=facts)
        return True

    def _walk(self, claims: Digest, listings: Sequence[Listing], known: list[Listing]) -> tuple[str, ...] | None:
        trail = Trail()
        left = find_unlisted([*listings, *known], trail)
        if any(listing.files or listing.problems for listing in known):
            return None
        base = os.path.commonpath(trail.folders) if trail.folders else "/"
        facts = facts_of(base, trail.folders)
        # What is written during the walk is too young to be remembered, so that facts from after it are as good.
        if trail.complete and facts and not is_young(facts, self._began) and _keep_times(trail.folders):
            others = {id(listing) for listing in listings}
            given = tuple((path, owner.site, owner.name) for path, owner in trail.given if id(owner) in others)
            folders = join_paths(trail.folders, base)
            self._next = _Walk(self._rules, claims, base, folders, facts, b"".join(trail.names), left, given)
        return left


def _names_in(folder: str) -> bytes:
    """What `name_facts` says of a directory now, b"" when it can't be read."""
    try:
        with os.scandir(folder) as entries:
            return name_facts(entries)
    except OSError:
        return b""


def _keep_times(folders: Iterable[str]) -> bool:
    """Whether the times of all `folders` can be believed: one may be a mount of its own."""
    try:
        devices = {os.lstat(folder).st_dev: folder for folder in folders}
    except OSError:
        return False
    return all(map(keeps_times, devices.values()))
