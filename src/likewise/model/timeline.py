"""When everything of a launch happened: its stages, each process of the cluster, and the layers on each node.

All moments are seconds since 1970 (Unix time). Those of a node are by the node's own clock.
"""

from __future__ import annotations

import msgspec


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at one moment."""

    name: str
    at: float


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One stage. `ended` is None for one that failed, or was not over when somebody looked."""

    name: str
    started: float
    ended: float | None = None
    summary: str = ""
    marks: tuple[Mark, ...] = ()


class ProcessTimes(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the cluster, the scheduler or a worker with its nanny.

    Attributes
    ----------
    name, node : str
        ``worker 3``, and its machine.
    pid : int
    prefix : str
        ``sys.prefix`` there.
    spawned : float
        When the process began, in whatever program.
    ready : float, optional
        When it began to start the Python of its prefix; None where there is no replica.
    joined : float, optional
        When the client saw it in the cluster; None when that is not known.
    """

    name: str
    node: str
    pid: int
    prefix: str
    spawned: float
    ready: float | None = None
    joined: float | None = None


class PrefixTimes(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix that was used while it grew.

    Attributes
    ----------
    node, prefix : str
    layers : tuple of Mark
        When each layer was there, by its name; those that came with the base are not among them.
    complete : float, optional
        When all of it was there; None when it still grew as somebody looked.
    """

    node: str
    prefix: str
    layers: tuple[Mark, ...] = ()
    complete: float | None = None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A whole launch. `marks` are moments on the client that belong to no stage."""

    stages: tuple[Span, ...] = ()
    processes: tuple[ProcessTimes, ...] = ()
    prefixes: tuple[PrefixTimes, ...] = ()
    marks: tuple[Mark, ...] = ()
