"""Notes which imports failed in this process, so that nobody adds a module that somebody has already looked for.

A program that asked for a module in vain has gone on without it, and would not look again: half of it would use the
module and half would not. ``likewise-missed.pth`` in a replica imports this file before anything else runs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing would cost more than all the rest
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_modules: set[str] = set()
_distributions: set[str] = set()


class Note:
    """The last finder on ``sys.meta_path``: who gets this far was found by nobody."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Note a top-level name; `importlib.util.find_spec` comes here, too."""
        if "." not in name:
            _modules.add(name)

    @staticmethod
    def find_distributions(context: Any) -> Iterable[Any]:
        """Note the name that `importlib.metadata` looks for; it is only asked on when no other finder knew it."""
        if context.name:
            _distributions.add(context.name)
        return ()


def install() -> None:
    """Begin to take notes; harmless when it is done."""
    if Note not in sys.meta_path:
        sys.meta_path.append(Note)


def missed() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The top-level modules, and the distributions, that this process looked for in vain."""
    return tuple(sorted(_modules)), tuple(sorted(_distributions))
