"""What happens during a launch, as frozen values. The core emits them; renderers listen."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all progress events."""


class StageStarted(Event, frozen=True, kw_only=True):
    """A stage begins; `total` is in bytes or in items (see `unit`), 0 when not known."""

    stage: str
    total: int = 0
    unit: str = "bytes"


class StageAdvanced(Event, frozen=True, kw_only=True):
    """`amount` more units of the stage are done; `item` names what was just finished."""

    stage: str
    amount: int
    item: str = ""


class StageFinished(Event, frozen=True, kw_only=True):
    """A stage is over after `seconds`; `summary` is one short phrase for people."""

    stage: str
    seconds: float
    summary: str = ""


class LayerArrived(Event, frozen=True, kw_only=True):
    """A layer is in the cluster. Of bytecode, `layer` is the name of what it belongs to, and `kind` says so.

    `source` is who gave it: ``client``, ``index`` or ``store``; `size` is in bytes, as it came.
    """

    layer: str
    kind: str
    source: str
    size: int


class Notice(Event, frozen=True, kw_only=True):
    """A sentence the user should see: a warning, or what was left out and why."""

    message: str
    subject: str = ""
    severity: str = "warning"


class Reporter(Protocol):
    """Listens to events. Must be quick, must not raise, and may be called from any thread."""

    def report(self, event: Event, /) -> None: ...


class Silent:
    """A reporter that ignores everything."""

    def report(self, event: Event, /) -> None:
        """Ignore `event`."""
