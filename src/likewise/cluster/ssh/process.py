"""Dask processes on hosts: run through SSH, which is their lifeline, too.

What a process must know and nobody else may see (keys), and what it learns only later (the scheduler's address), comes
through its standard input; what the cluster has to know of it, through lines of its output.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from distributed.comm.addressing import get_address_host_port, unparse_host_port

from likewise.cluster.process import GRACE, Command, NodeProcess, SchedulerProcess
from likewise.cluster.scheduler_side import ANNOUNCEMENT
from likewise.cluster.ssh.connection import Host, require_asyncssh
from likewise.cluster.ssh.remote import end_script, plain_script, start_script
from likewise.errors import ClusterError, LikewiseError

_SESSION = b"likewise: session "
_TRIES = 5
_LOST = 255
"""Exit status of a process whose connection was lost; ssh itself uses it for that."""


class SSHProcess(NodeProcess):
    """A process on a host.

    Parameters
    ----------
    host : Host
    command : Command
        `cwd` has no meaning: the process starts where a login does.
    name : hashable, optional
    grace : float
    scheduler : future, optional
        Of the scheduler's address, for a process that is started before it is known.
    """

    def __init__(
        self,
        host: Host,
        command: Command,
        *,
        name: Any = None,
        grace: float = GRACE,
        scheduler: asyncio.Future[str] | None = None,
    ) -> None:
        super().__init__(command, name=name, grace=grace)
        self.host = host
        self.session = 0
        self._scheduler = scheduler
        self._process: Any = None
        self._line = b""
        self._over = False
        self._tasks: list[asyncio.Future[None]] = []

    @property
    def returncode(self) -> int | None:
        """Exit status as in `subprocess`; None while it runs."""
        if self._process is None or not self._over:
            return None
        status = self._process.returncode
        return _LOST if status is None else int(status)

    def _script(self) -> str:
        return start_script(self.command.argv, self.command.env)

    async def _spawn(self) -> None:
        self._process = await self.host.start(self._script())
        self._tasks.append(asyncio.ensure_future(self._listen()))
        if self._scheduler is not None:
            self._tasks.append(asyncio.ensure_future(self._tell_scheduler(self._scheduler)))

    async def _tell_scheduler(self, scheduler: asyncio.Future[str]) -> None:
        await asyncio.wait({scheduler})
        if not scheduler.cancelled() and scheduler.exception() is None:
            self.tell({"scheduler": scheduler.result()})

    def tell(self, message: dict[str, str]) -> None:
        """Write a line to the process's standard input; `likewise.cluster.lifeline` reads it."""
        with suppress(OSError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _listen(self) -> None:
        try:
            while data := await self._process.stdout.read(1 << 16):
                self._feed(data)
            await self._process.wait_closed()
        except (OSError, require_asyncssh().Error) as error:  # the connection is gone
            self.output.feed(f"{error}\n".encode())
        finally:
            self._over = True
            self.output.feed(self._line)
            self._ended()

    def _feed(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if line.startswith(_SESSION) and not self.session:  # the first line; later ones are what tasks print
                self.session = int(line.removeprefix(_SESSION))
            elif not self._heard(line):
                self.output.feed(line + b"\n")

    def _heard(self, line: bytes) -> bool:
        """Whether the line was meant for us."""
        return False

    def _terminate(self) -> None:
        # Its lifeline ends, and so does it. The signal that SSH knows is refused by many a sshd.
        with suppress(OSError):
            if self._process is not None:
                self._process.stdin.write_eof()

    async def kill(self) -> None:
        """Kill the process and everything in its session."""
        if not self.session:
            return
        with suppress(LikewiseError, OSError, asyncio.TimeoutError):
            for _ in range(_TRIES):
                answer = await asyncio.wait_for(self.host.run(end_script(self.session, "KILL")), self.grace + 2)
                if answer.last == "0":
                    break
                await asyncio.sleep(0.05)

    def _release(self) -> None:
        if self._process is not None:
            self._process.close()
        for task in self._tasks[1:]:
            task.cancel()


class SSHScheduler(SSHProcess, SchedulerProcess):
    """A scheduler on a host, which says its address on a line of its output.

    Attributes
    ----------
    announced : future
        Of that address, as the hosts reach it.
    """

    def __init__(self, host: Host, command: Command, *, grace: float = GRACE) -> None:
        super().__init__(host, command, grace=grace)
        self.announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def _heard(self, line: bytes) -> bool:
        begin = ANNOUNCEMENT.encode()
        if not line.startswith(begin) or self.announced.done():
            return False
        self.announced.set_result(line.removeprefix(begin).strip().decode())
        return True

    async def listening(self) -> str:
        """Wait for the address; how the client reaches it is `external_address`."""
        self.address = address = await asyncio.shield(self.announced)
        self.external_address = await reach_address(self.host, address)
        return self.external_address

    def _release(self) -> None:
        self.announced.cancel()
        super()._release()


class PlainScheduler(SSHScheduler):
    """A scheduler in a host's own prefix, where nothing of likewise is: Dask's own words tell its address."""

    def _script(self) -> str:
        return plain_script(self.command.argv, self.command.env)

    def _heard(self, line: bytes) -> bool:
        _, found, address = line.partition(b"Scheduler at:")
        if found and not self.announced.done():
            self.announced.set_result(address.strip().decode())
        return False


class PlainWorker(SSHProcess):
    """A worker in a host's own prefix.

    Parameters
    ----------
    host : Host
    command : callable
        From the scheduler's address to the command.
    name : hashable
    scheduler : PlainScheduler
        Its worker is started when it has an address.
    """

    def __init__(self, host: Host, command: Callable[[str], Command], *, name: Any, scheduler: PlainScheduler) -> None:
        super().__init__(host, command(""), name=name)
        self._command, self._of = command, scheduler

    def _script(self) -> str:
        return plain_script(self.command.argv, self.command.env)

    async def _spawn(self) -> None:
        ended = asyncio.ensure_future(self._of.exited.wait())
        ends: set[asyncio.Future[Any]] = {ended, self._of.announced}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if self._of.announced.done() and not self._of.announced.cancelled():  # else the scheduler's end is the error
            self.command = self._command(self._of.announced.result())
            await super()._spawn()


async def reach_address(host: Host, address: str) -> str:
    """How this computer reaches the Dask `address` on `host`: as it is, or through the SSH connection.

    Raises
    ------
    ClusterError
        When neither way works.
    """
    protocol, _, rest = address.partition("://")
    name, port = get_address_host_port(address)
    if not name or not port:
        raise ClusterError(f"The scheduler's address {rest!r} has no port.", where=host.name)
    return f"{protocol}://{unparse_host_port(*await host.reach(name, port))}"


class FailedProcess(NodeProcess):
    """A process on a host that failed before: it ends as soon as it is started, with the host's `error`."""

    def __init__(self, label: str, node: str, error: LikewiseError | None, *, name: Any) -> None:
        super().__init__(Command(label=label, node=node, argv=(), cwd="", env={}), name=name)
        self._error = error or ClusterError("The host was not reached.", where=node)

    @property
    def returncode(self) -> int | None:
        """None: it never ran."""
        return None

    async def _spawn(self) -> None:
        raise self._error

    def _terminate(self) -> None:
        """Nothing to ask."""

    async def kill(self) -> None:
        """Nothing to kill."""
