"""Forked processes that do one thing at a time: what comes next is decided when one of them is free."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NoReturn

import msgspec

from likewise.node.disk import write_all

_NAME = 16  # bytes of a task's name
_LENGTH = 4  # bytes before what a member says at the end of a task


class _Member(msgspec.Struct):
    pid: int
    tasks: int
    told: int
    nice: int
    busy: str = ""


class Crew:
    """Grows as it is needed; ends with the ``with`` block, and at once when this process is killed.

    Parameters
    ----------
    work : callable
        Called in a forked process with a task's name: 16 ASCII characters.
    close : sequence of int
        File descriptors that the forked processes do not keep.
    """

    def __init__(self, work: Callable[[str], None], *, close: Sequence[int] = ()) -> None:
        self._work = work
        self._close = close
        self._members: list[_Member] = []
        self._alive, self._life = os.pipe()  # the kernel closes the second one when this process ends, however

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._members:
            self._dismiss(self._members[0])
        os.close(self._alive)
        os.close(self._life)

    @property
    def busy(self) -> int:
        """How many are at work."""
        return sum(bool(member.busy) for member in self._members)

    def give(self, task: str, *, nice: int = 0) -> None:
        """Have one that is free, or a new one, do this; `nice`: how much it gives way to other processes."""
        free = (member for member in self._members if not member.busy and member.nice == nice)
        member = next(free, None) or self._hire(nice)
        member.busy = task
        with contextlib.suppress(BrokenPipeError):  # killed: that is noticed where it is waited for
            os.write(member.tasks, task.encode("ascii"))

    def finished(self, seconds: float, *, also: int) -> list[tuple[str, str]]:
        """Wait until something is done, something can be read from the descriptor `also`, or the time is over.

        Returns
        -------
        list of tuple
            Name of the task, and why it could not be done, "" when it is.
        """
        poll = select.poll()
        poll.register(also, select.POLLIN)
        for member in self._members:
            poll.register(member.told, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(seconds * 1000)}
        heard = [member for member in self._members if member.told in ready]
        for member in heard:
            if not member.busy:  # it can have nothing to say: it is gone
                self._dismiss(member)
        return [self._hear(member) for member in heard if member.busy]

    def _hear(self, member: _Member) -> tuple[str, str]:
        task, member.busy = member.busy, ""
        said = _exactly(member.told, _LENGTH)
        if said is not None:
            said = _exactly(member.told, int.from_bytes(said, "little"))
        if said is not None:
            return task, said.decode("utf-8", "replace")
        status = self._dismiss(member)
        reason = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {status >> 8}"
        return task, f"The process that laid it out ended too early ({reason}). Look whether memory ran out."

    def _hire(self, nice: int) -> _Member:
        tasks, give = os.pipe()
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            theirs = [fd for other in self._members for fd in (other.tasks, other.told)]
            os.nice(nice)
            for fd in (give, told, self._life, *self._close, *theirs):
                os.close(fd)
            _serve(self._work, tasks, tell, self._alive)
        os.close(tasks)
        os.close(tell)
        member = _Member(pid, give, told, nice)
        self._members.append(member)
        return member

    def _dismiss(self, member: _Member) -> int:
        self._members.remove(member)
        os.close(member.tasks)
        if member.busy:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        os.close(member.told)
        return os.waitpid(member.pid, 0)[1]


def _serve(work: Callable[[str], None], tasks: int, tell: int, alive: int) -> NoReturn:
    """The life of a forked process. It must never return into the code that forked it."""
    try:
        threading.Thread(target=_end_with, args=(alive,), daemon=True).start()  # work may wait for a source for long
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        while name := os.read(tasks, _NAME):  # nothing comes from a process that is gone
            try:
                work(name.decode("ascii"))
                said = b""
            except Exception as error:
                said = (str(error) or type(error).__name__).encode("utf-8", "replace")
            write_all(tell, len(said).to_bytes(_LENGTH, "little") + said)
    finally:
        os._exit(0)


def _end_with(alive: int) -> NoReturn:
    os.read(alive, 1)
    os._exit(0)


def _exactly(fd: int, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = os.read(fd, size - len(data))
        if not piece:
            return None
        data += piece
    return data
