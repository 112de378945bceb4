"""What to do about each distribution, and why."""

from __future__ import annotations

import enum

import msgspec

from likewise.model.snapshot import Problem
from likewise.model.target import Target


class Action(str, enum.Enum):
    """What happens to one subject of the plan."""

    COPY = "copied"  # files as they are on the client
    BUILD = "built"  # an editable, made into a wheel
    SHIP = "shipped"  # loose code
    DROP = "dropped"  # left out, by the user's wish or for a stated reason


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the plan. `name` is a normalized distribution name or a code root's name."""

    name: str
    version: str
    action: Action
    reason: str
    critical: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about each distribution and code root, and why. The value of ``likewise plan``."""

    target: Target
    decisions: tuple[Decision, ...]
    kit: tuple[str, ...]  # names of the distributions a node needs to join
    problems: tuple[Problem, ...] = ()

    def get(self, name: str) -> Decision | None:
        """The decision about `name`, or None."""
        return next((d for d in self.decisions if d.name == name), None)
