"""Who is installed here, and how: every distribution with its origin, sorted into copied, editable and source tree."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

import msgspec

from likewise.model.editable import Editable
from likewise.model.identity import Layout, layout_for
from likewise.model.origins import origin_of
from likewise.model.snapshot import Origin, OriginKind, Problem, Severity
from likewise.scanner.conda import conda_owned
from likewise.scanner.conda_records import Records
from likewise.scanner.distributions import Installed, find_installed
from likewise.scanner.editables import editable_of
from likewise.scanner.memory import Memory
from likewise.scanner.ownership import Owned, dpkg_owned
from likewise.scanner.places import Places, find_places, is_source_tree
from likewise.scanner.probe import Probe


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """The distributions of one prefix.

    Attributes
    ----------
    installed : tuple of Installed
        All of them, in the order in which Python finds them.
    editables : dict of str to Editable
        Those that have to be built, by name.
    trees : frozenset of str
        Names of those found as egg-info in a source tree on ``sys.path``: only their metadata is theirs.
    owned : dict of str to Owned
        What dpkg or conda knows of one, by metadata folder.
    places : Places
    sites : tuple of str
        Directories that hold installed distributions, declared or not, in ``sys.path`` order.
    layouts : dict of str to Layout
        Where installers put things, by site directory: `sites`, and the home of every distribution.
    problems : tuple of Problem
    """

    installed: tuple[Installed, ...]
    editables: dict[str, Editable]
    trees: frozenset[str]
    owned: dict[str, Owned]
    places: Places
    sites: tuple[str, ...]
    layouts: dict[str, Layout]
    problems: tuple[Problem, ...]

    def layout(self, installed: Installed) -> Layout:
        """Where the installer of a distribution put its files."""
        return self.layouts[installed.home]

    def origin(self, installed: Installed) -> Origin:
        """Where a distribution came from."""
        if installed.name in self.editables:
            editable = self.editables[installed.name]
            return Origin(kind=OriginKind.EDITABLE, path=editable.path)
        if installed.name in self.trees:
            return Origin(kind=OriginKind.DIRECTORY, path=installed.site)
        owned = self.owned.get(installed.folder)
        return owned.origin if owned else origin_of(installed.direct, installer=installed.installer)


def take_census(probe: Probe, memory: Memory | None = None, records: Records | None = None) -> Census:
    """Find every distribution that the probed interpreter can see; what `memory` knows of one is not read again.

    Conda's `records` are those of its base prefix.
    """
    places = find_places(probe)
    installed, problems = find_installed(places.searched, memory.installed if memory else None)
    editables: dict[str, Editable] = {}
    for one in installed:
        editable = None if memory and memory.is_plain(one) else editable_of(one)
        if editable and os.path.isdir(editable.path):
            editables[one.name] = editable
        elif editable:
            problems.append(_vanished(editable))
    copied = [one for one in installed if one.name not in editables]
    trees = frozenset(one.name for one in copied if is_source_tree(one, places.declared))
    homes = {one.home for one in installed if one.name not in trees} | set(places.declared)
    owned = dpkg_owned({one.folder for one in copied})
    if records:
        owned.update(conda_owned(probe.interpreter.base_prefix, records))
    problems += _strays(places, {one.name for one in installed}, editables)
    return Census(
        installed=tuple(installed),
        editables=editables,
        trees=trees,
        owned=owned,
        places=places,
        sites=tuple(path for path in places.searched if path in homes),
        layouts=_layouts({*homes, *(one.home for one in installed)}, probe),
        problems=tuple(problems),
    )


def _layouts(sites: Iterable[str], probe: Probe) -> dict[str, Layout]:
    own = {probe.executable, probe.base_executable, os.path.realpath(probe.executable)} - {""}
    return {site: layout_for(site, python=probe.interpreter.python, executables=sorted(own)) for site in sites}


def _strays(places: Places, known: Collection[str], editables: Iterable[str]) -> list[Problem]:
    found, _ = find_installed(places.stray)
    editables = frozenset(editables)
    return [
        Problem(
            code="stray-egg-info",
            subject=one.name,
            message=f"{one.folder} describes {one.name} {one.version}, which is not installed: it is seen only by a "
            f"Python started in {one.site}, and not shipped. Install it, or delete the folder.",
            severity=Severity.NOTE if one.name in known else Severity.WARNING,
        )
        for one in found
        if one.name not in editables
    ]


def _vanished(editable: Editable) -> Problem:
    return Problem(
        code="vanished-editable",
        subject=editable.name,
        message=f"{editable.name} is installed as editable from {editable.path}, which is not there; it can't be "
        "imported here or on the nodes. Uninstall it, or install it again.",
        severity=Severity.ERROR,
    )
