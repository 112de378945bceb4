"""Processes on this computer, each in a session of its own: Ctrl-C in a terminal reaches the client alone, who decides.

Their lifeline is a pipe that the kernel closes when the client ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from likewise.cluster.process import GRACE, Command, NodeProcess, SchedulerProcess

_POLL = 0.01  # seconds between looks at a file that another process will write, or at a process that will end


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


class LocalProcess(NodeProcess):
    """A process on this computer, in a session of its own."""

    def __init__(self, command: Command, *, name: Any = None, grace: float = GRACE) -> None:
        super().__init__(command, name=name, grace=grace)
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline = self._stdout = PipeEnd(-1)

    @property
    def pid(self) -> int | None:
        """Process id, which is also the id of its session; None before the start."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Exit status as in `subprocess`; None while it runs."""
        return self._process.returncode if self._process else None

    async def _spawn(self) -> None:
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
        finally:
            os.close(stdin)
            os.close(stdout)
        # A reader of our own, not asyncio's: its Process.wait() would wait until grandchildren close the pipe, too.
        asyncio.get_running_loop().add_reader(self._stdout.fd, self._read)
        self._watcher = asyncio.ensure_future(self._watch(self._process))

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
        self._ended()

    def _terminate(self) -> None:
        if self.pid is not None:
            _signal(self.pid, signal.SIGTERM)

    async def kill(self) -> None:
        """Kill the process and everything in its session."""
        deadline = time.monotonic() + self.grace  # a process in an uninterruptible state can't be waited for
        while self._kill_members() and time.monotonic() < deadline:
            await asyncio.sleep(_POLL)

    def _kill_members(self) -> bool:
        """Kill all of the session now. False when nothing of it was there any more."""
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
        return f"{super().__repr__()[:-1]}, pid {self.pid}>"


class LocalScheduler(LocalProcess, SchedulerProcess):
    """A scheduler on this computer, which writes its address to `address_file` when it listens."""

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


# A child made by os.fork() (multiprocessing on Linux) inherits our end of every lifeline and would hold it open after
# our death, so it lets go of them.
_lifelines: weakref.WeakSet[PipeEnd] = weakref.WeakSet()


def _in_forked_child() -> None:
    for lifeline in list(_lifelines):
        lifeline.close()


os.register_at_fork(after_in_child=_in_forked_child)
