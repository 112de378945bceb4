"""One Dask process on a node, as `distributed.SpecCluster` wants to see it: started, watched, ended, with its children.

Its standard input is the *lifeline*: nobody writes to it, and it ends when the client ends in whatever way.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from likewise.errors import ClusterError, LayerError, LikewiseError, NodeError, StoreError

GRACE = 5.0
"""Seconds that a process has to end by itself once it was asked to."""

_EXCEPTION = re.compile(r"([A-Za-z_]\w*\.)*[A-Z]\w*(Error|Exception|Interrupt|Exit)(: |$)")
_SIGNALS = {number.value: number.name for number in signal.Signals}
_NODE_ERRORS = {kind.exit_code: kind for kind in (LayerError, StoreError, NodeError)}
_TOLD = "likewise: "


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to run, and where.

    Attributes
    ----------
    label : str
        For people: ``worker 3``.
    node : str
        Name of the machine (or of the simulated one).
    argv : tuple of str
    env : dict
        All of the process's environment variables. Not shown: some are secret.
    cwd : str
        An existing folder.
    """

    label: str
    node: str
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str] = field(repr=False)


class Tail:
    """The last lines of an output, bounded in number and length."""

    def __init__(self, lines: int = 200, width: int = 1000) -> None:
        self._width = width
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._open = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece of output, which may end anywhere."""
        *whole, rest = (self._open + data).split(b"\n")
        self._lines.extend(line[: self._width] for line in whole)
        self._open = rest[: self._width]

    def lines(self) -> list[str]:
        """What is kept, oldest first; empty lines left out."""
        kept = [*self._lines, self._open]
        return [text for line in kept if (text := line.decode("utf-8", "replace").rstrip())]


def last_words(lines: Sequence[str], keep: int = 5) -> list[str]:
    """What of an output a person needs to see: its end, and before it the line of every exception that led there.

    A traceback names the cause first, many lines above its end.
    """
    causes = [line for line in lines[:-keep] if _EXCEPTION.match(line)]
    return [*dict.fromkeys(causes), *lines[-keep:]]


class NodeProcess(ProcessInterface):  # type: ignore[misc]
    """A process on a node that was started with `command`, with everything it starts itself.

    The kinds of nodes say how it is started, asked to end, and killed.

    Parameters
    ----------
    command : Command
    name : hashable, optional
        Name of the worker.
    grace : float
        Seconds between asking and killing.
    """

    def __init__(self, command: Command, *, name: Any = None, grace: float = GRACE) -> None:
        super().__init__()
        self.command = command
        self.name = name
        self.output = Tail()
        self.exited = asyncio.Event()
        self.grace = grace
        self._closing: asyncio.Task[None] | None = None

    # What a kind of node provides

    @property
    def returncode(self) -> int | None:
        """Exit status as in `subprocess`; None while it runs, or before the start."""
        raise NotImplementedError

    async def _spawn(self) -> None:
        """Run the command, feed `output` from now on, and call `_ended` when it is over.

        Raises
        ------
        OSError, ValueError, LikewiseError
            When it can't be run.
        """
        raise NotImplementedError

    def _terminate(self) -> None:
        """Ask the process to end (SIGTERM)."""
        raise NotImplementedError

    async def kill(self) -> None:
        """Kill the process and everything that it started; wait until they are gone, but not for ever."""
        raise NotImplementedError

    def _release(self) -> None:
        """Close our ends of its pipes. May be called more than once."""

    # The life of a process

    async def start(self) -> None:
        """Run the command. Returns when it runs, not when Dask is ready in it.

        Raises
        ------
        ClusterError
            When the command can't be run.
        """
        try:
            await self._spawn()
        except (OSError, ValueError, LikewiseError) as error:
            self._release()
            self.status = Status.failed
            self.exited.set()
            if isinstance(error, LikewiseError):
                raise
            raise ClusterError(
                f"The {self.command.label} can't be started: {self.command.argv[0]}: {error}.",
                where=self.command.node,
                details={"argv": list(self.command.argv)},
            ) from error
        await super().start()

    def _ended(self) -> None:
        """To be called once, when the process is over and all that it said was read."""
        if self.status == Status.running:
            self.status = Status.failed  # nobody asked it to end
        self.exited.set()

    def failure(self, what: str) -> LikewiseError:
        """An error that says `what` happened to the process, how it ended and what it said last."""
        return failure_of(self.command.label, self.command.node, what, self.returncode, self.output.lines())

    async def close(self) -> None:
        """Ask the process to end, then insist; nothing that it started stays. Safe to call more than once."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        async with self.lock:  # a start that is under way comes first
            started = self.status != Status.created
            if self.status == Status.created:
                self.status = Status.closed
            elif self.status != Status.closed:
                self.status = Status.closing
            try:
                if started:
                    await self._end()
            finally:
                self._release()
                await super().close()

    async def _end(self) -> None:
        if not self.exited.is_set():
            self._terminate()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.exited.wait(), self.grace)
        await self.kill()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.command.label} on {self.command.node}: {self.status.name}>"


class SchedulerProcess(NodeProcess):
    """A process that runs a scheduler."""

    async def listening(self) -> str:
        """Wait until it listens; its address as the client reaches it, which becomes `address`."""
        raise NotImplementedError


def failure_of(label: str, node: str, what: str, returncode: int | None, said: Sequence[str]) -> LikewiseError:
    """An error that says `what` happened to the process `label` on `node`, how it ended and what it `said` last."""
    details = {"process": label, "returncode": returncode, "output": list(said)}
    # What happens before Dask runs, the node says in one sentence, with an exit code for the kind of error.
    told = [line.removeprefix(_TOLD) for line in said if line.startswith(_TOLD)]
    kind = _NODE_ERRORS.get(returncode or 0)
    if told and kind:
        return kind(f"The {label} can't run: {told[-1]}", where=node, details=details)
    words = "".join(f"\n    {line}" for line in last_words(said))
    return ClusterError(
        f"The {label} {what} ({_how(returncode)})." + (f" It said last:{words}" if words else ""),
        where=node,
        details=details,
    )


def _how(returncode: int | None) -> str:
    if returncode is None:
        return "still running"
    if returncode < 0:
        return f"killed by {_SIGNALS.get(-returncode, f'signal {-returncode}')}"
    return f"exit code {returncode}"
