"""One Dask process on a node, as `distributed.SpecCluster` wants to see it: started, watched, ended, with its children.

The process runs in a session of its own, so Ctrl-C in a terminal reaches the client alone, who decides. Its standard
input is the *lifeline*: a pipe that nobody writes to and that the kernel closes when the client ends in whatever way.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
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
_POLL = 0.01  # seconds between looks at a file that another process will write


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


class PipeEnd:
    """Our end of a pipe, open until it is closed or nobody holds it any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close it; harmless when it is closed."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


def last_words(lines: Sequence[str], keep: int = 5) -> list[str]:
    """What of an output a person needs to see: its end, and before it the line of every exception that led there.

    A traceback names the cause first, many lines above its end.
    """
    causes = [line for line in lines[:-keep] if _EXCEPTION.match(line)]
    return [*dict.fromkeys(causes), *lines[-keep:]]


class NodeProcess(ProcessInterface):  # type: ignore[misc]
    """A process that was started with `command`, with everything it starts itself.

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
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline = self._stdout = PipeEnd(-1)
        self._closing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, which is also the id of its session; None before the start."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Exit status as in `subprocess`; None while it runs."""
        return self._process.returncode if self._process else None

    async def start(self) -> None:
        """Run the command. Returns when it runs, not when Dask is ready in it.

        Raises
        ------
        ClusterError
            When the command can't be run.
        """
        stdin, stdout = self._open_pipes()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.command.argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stdout,
                cwd=self.command.cwd,
                env=self.command.env,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._release()
            self.status = Status.failed
            raise ClusterError(
                f"The {self.command.label} can't be started: {self.command.argv[0]}: {error}.",
                where=self.command.node,
                details={"argv": list(self.command.argv)},
            ) from error
        finally:
            os.close(stdin)
            os.close(stdout)
        # A reader of our own, not asyncio's: its Process.wait() would wait until grandchildren close the pipe, too.
        asyncio.get_running_loop().add_reader(self._stdout.fd, self._read)
        self._watcher = asyncio.ensure_future(self._watch(self._process))
        await super().start()

    def _open_pipes(self) -> tuple[int, int]:
        """The process's ends of its pipes, for standard input and for output."""
        stdin, ours = os.pipe()  # not inherited by any other child (PEP 446)
        self._lifeline = PipeEnd(ours)
        _lifelines.add(self._lifeline)
        ours, stdout = os.pipe()
        self._stdout = PipeEnd(ours)
        os.set_blocking(ours, False)
        return stdin, stdout

    def _read(self) -> None:
        with suppress(BlockingIOError, InterruptedError):
            data = os.read(self._stdout.fd, 1 << 16)
            self.output.feed(data)
            if not data:
                self._stop_reading()

    def _stop_reading(self) -> None:
        if self._stdout.fd >= 0:
            asyncio.get_running_loop().remove_reader(self._stdout.fd)
            self._stdout.close()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if self._stdout.fd >= 0:
            self._read()  # its last words
        if self.status == Status.running:
            self.status = Status.failed  # nobody asked it to end
        self.exited.set()

    def failure(self, what: str) -> LikewiseError:
        """An error that says `what` happened to the process, how it ended and what it said last."""
        said = self.output.lines()
        details = {"process": self.command.label, "returncode": self.returncode, "output": said}
        # What happens before Dask runs, the node says in one sentence, with an exit code for the kind of error.
        told = [line.removeprefix(_TOLD) for line in said if line.startswith(_TOLD)]
        kind = _NODE_ERRORS.get(self.returncode or 0)
        if told and kind:
            return kind(f"The {self.command.label} can't run: {told[-1]}", where=self.command.node, details=details)
        words = "".join(f"\n    {line}" for line in last_words(said))
        return ClusterError(
            f"The {self.command.label} {what} ({_how(self.returncode)})." + (f" It said last:{words}" if words else ""),
            where=self.command.node,
            details=details,
        )

    async def close(self) -> None:
        """Ask the process to end, then insist; nothing that it started stays. Safe to call more than once."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        async with self.lock:  # a start that is under way comes first
            if self.status == Status.created:
                self.status = Status.closed
            elif self.status != Status.closed:
                self.status = Status.closing
            try:
                if self._process is not None:
                    await self._end(self._process)
            finally:
                self._release()
                await super().close()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if not self.exited.is_set():
            _signal(process.pid, signal.SIGTERM)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.exited.wait(), self.grace)
        deadline = time.monotonic() + self.grace  # a process in an uninterruptible state can't be waited for
        while self.kill() and time.monotonic() < deadline:
            await asyncio.sleep(_POLL)

    def kill(self) -> bool:
        """Kill the process and everything in its session, now. False when nothing of it was there any more."""
        if self.pid is None:
            return False
        members = session_members(self.pid)
        if not self.exited.is_set():  # once it was waited for, its id may be somebody else's
            members.append(self.pid)
        for pid in members:
            _signal(pid, signal.SIGKILL)
        return bool(members)

    def _release(self) -> None:
        self._lifeline.close()
        self._stop_reading()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.command.label} on {self.command.node}: {self.status.name}, pid {self.pid}>"
        )


class SchedulerProcess(NodeProcess):
    """A scheduler that writes its address to `address_file` when it listens."""

    def __init__(self, command: Command, *, address_file: Path, grace: float = GRACE) -> None:
        super().__init__(command, grace=grace)
        self.address_file = address_file

    async def listening(self) -> str:
        """Wait for the address."""
        while (address := read_address(self.address_file)) is None:
            await asyncio.sleep(_POLL)
        self.address = self.external_address = address
        return address


def read_address(path: Path) -> str | None:
    """The address in the scheduler file at `path`, None while there is none (or only half of it)."""
    try:
        return str(json.loads(path.read_bytes())["address"])
    except (OSError, ValueError, KeyError):
        return None


def session_members(session: int) -> list[int]:
    """Ids of all living processes of the session but its leader; those in another process group are found, too."""
    members = []
    with suppress(FileNotFoundError):  # not Linux
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != session and _lives_in(name, session):
                members.append(int(name))
    return members


def _lives_in(pid: str, session: int) -> bool:
    try:
        stat = Path("/proc", pid, "stat").read_bytes()
    except OSError:
        return False  # it has just ended
    # proc(5): pid (name) state ppid pgrp session …; the name may contain anything
    state, _ppid, _pgrp, sid = stat.rpartition(b")")[2].split()[:4]
    return int(sid) == session and state not in (b"Z", b"X")


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _how(returncode: int | None) -> str:
    if returncode is None:
        return "still running"
    if returncode < 0:
        return f"killed by {_SIGNALS.get(-returncode, f'signal {-returncode}')}"
    return f"exit code {returncode}"


# A child made by os.fork() (multiprocessing on Linux) inherits our end of every lifeline and would hold it open after
# our death, so it lets go of them.
_lifelines: weakref.WeakSet[PipeEnd] = weakref.WeakSet()


def _in_forked_child() -> None:
    for lifeline in list(_lifelines):
        lifeline.close()


os.register_at_fork(after_in_child=_in_forked_child)
