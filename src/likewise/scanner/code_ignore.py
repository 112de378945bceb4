"""What ``.gitignore`` files say about a path, as git reads them: deeper files win, later lines win."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


@dataclass(frozen=True)
class Ignores:
    """The ``.gitignore`` files that apply in one directory, outermost first, each with the folder it lies in."""

    specs: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    def within(self, folder: str) -> Ignores:
        """These, and the ``.gitignore`` in `folder` when there is one that can be read."""
        spec = _read(os.path.join(folder, ".gitignore"))
        return Ignores((*self.specs, (folder, spec))) if spec else self

    def match(self, path: str, *, folder: bool) -> bool:
        """Whether `path` (absolute) is ignored. That a folder above it may be ignored is the walker's business."""
        for base, spec in reversed(self.specs):
            relative = path[len(base.rstrip("/")) + 1 :] + ("/" if folder else "")  # `base` is above `path`
            verdict = spec.check_file(relative).include
            if verdict is not None:
                return bool(verdict)
        return False


def ignores_above(root: str) -> Ignores:
    """What the work tree that `root` lies in says about it: every ``.gitignore`` from its top down to `root`'s parent.

    Nothing when `root` itself is ignored: whoever works in an ignored folder means what is in it.
    """
    above = [root]
    while not os.path.exists(os.path.join(above[-1], ".git")):
        parent = os.path.dirname(above[-1])
        if parent == above[-1]:
            return Ignores()  # no work tree: only what lies within the root counts
        above.append(parent)
    found = Ignores()
    exclude = _read(os.path.join(above[-1], ".git", "info", "exclude"))
    if exclude:
        found = Ignores(((above[-1], exclude),))
    for folder, below in zip(reversed(above[1:]), reversed(above[:-1]), strict=True):
        found = found.within(folder)
        if found.match(below, folder=True):
            return Ignores()
    return found


def _read(path: str) -> GitIgnoreSpec | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError):
        return None
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if not lines:
        return None
    try:
        return _spec(lines)
    except ValueError:  # git passes over patterns that it can't read
        return _spec(line for line in lines if _usable(line))


def _usable(line: str) -> bool:
    try:
        _spec([line])
    except ValueError:
        return False
    return True


def _spec(lines: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # here, since many have no .gitignore and importing it takes a while

    return GitIgnoreSpec.from_lines(lines)
