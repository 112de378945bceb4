"""Paths that two distributions claim. The nodes have one directory for all, so each path must have one content."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from likewise.model.snapshot import Problem, Severity
from likewise.scanner.listing import Listing


def first_wins(listings: Sequence[Listing]) -> list[Problem]:
    """Take out of later listings what an earlier one has at the same layer path from another place.

    Two distributions of one site directory that list the same file (opencv-python and opencv-python-headless) both
    keep it: the disk has one content, and both get that.

    Parameters
    ----------
    listings : sequence of Listing
        In ``sys.path`` order. Changed in place.
    """
    owner: dict[str, Listing] = {}
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    hidden: dict[tuple[str, str], list[str]] = defaultdict(list)
    for listing in listings:
        for path, found in list(listing.files.items()):
            first = owner.setdefault(path, listing)
            if first is listing:
                continue
            if first.files[path].path == found.path:
                shared[first.name, listing.name].append(path)
            else:
                hidden[first.name, listing.name].append(path)
                del listing.files[path]
    return [_shared(*names, paths) for names, paths in shared.items()] + [
        _hidden(*names, paths) for names, paths in hidden.items()
    ]


def _shared(first: str, second: str, paths: list[str]) -> Problem:
    return Problem(
        code="shared-path",
        subject=second,
        message=f"{first} and {second} both claim {_some(paths)}; what is on the disk is shipped with both.",
        severity=Severity.NOTE,
    )


def _hidden(first: str, second: str, paths: list[str]) -> Problem:
    return Problem(
        code="hidden-path",
        subject=second,
        message=f"{first} comes first on sys.path and hides {_some(paths)} of {second}, which is left out.",
        severity=Severity.NOTE,
    )


def _some(paths: list[str]) -> str:
    shown = ", ".join(path.partition("/")[2] for path in paths[:3])
    return f"{len(paths)} files ({shown}, …)" if len(paths) > 3 else shown
