"""How a launch went: what each stage did, and how long it took."""

from __future__ import annotations

import msgspec


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage. `done` counts what it did (``{"packed": 3, "bytes": 81234}``); all zero when nothing was needed."""

    name: str
    seconds: float
    summary: str
    done: dict[str, int] = {}


class LaunchReport(msgspec.Struct, frozen=True, kw_only=True):
    """The stages in the order they ran."""

    stages: tuple[Stage, ...] = ()

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(stage.seconds for stage in self.stages)
