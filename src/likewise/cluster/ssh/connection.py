"""One SSH connection to each host, used for everything: asking, pushing, running, forwarding.

Everything that can go wrong on the way becomes one sentence that names the host, and what to do.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from likewise.cluster.ssh.openssh import Route, find_route
from likewise.cluster.ssh.remote import READER, framed
from likewise.errors import ClusterError, LikewiseError, UnsupportedError

_AT_ONCE = 8  # logins under way: sshd drops some of more than 10 (MaxStartups)
_DIRECT = 1.0  # seconds in which a port that is reachable answers


def require_asyncssh() -> Any:
    """The asyncssh package.

    Raises
    ------
    UnsupportedError
        When it is not installed.
    """
    try:
        import asyncssh
    except ImportError as error:
        raise UnsupportedError(
            "SSHCluster needs the package asyncssh, which is not installed.", todo="pip install 'likewise[ssh]'"
        ) from error
    return asyncssh


@dataclass(frozen=True)
class Answer:
    """What a script on a host said."""

    status: int
    out: str
    said: str

    @property
    def last(self) -> str:
        """The last line of its output; before it may be what a login there prints."""
        return (self.out.splitlines() or [""])[-1].strip()


class Host:
    """One host that is logged in to.

    Parameters
    ----------
    name : str
        As the user calls it.
    connect : callable
        Coroutine function that makes another connection.
    """

    def __init__(self, name: str, connect: Callable[[], Any]) -> None:
        self.name = name
        self._connect = connect
        self._connections: list[Any] = []
        self._listeners: dict[tuple[str, int], Any] = {}
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Log in."""
        async with self._opening:
            if not self._connections:
                self._connections.append(await self._connect())

    async def start(self, script: str) -> Any:
        """Run `script`; its standard input stays open. The process, with error output beside its output.

        Raises
        ------
        ClusterError
            When the host does not let it.
        """
        process = await self._process(stderr=require_asyncssh().STDOUT)
        process.stdin.write(framed(script))
        return process

    async def run(self, script: str, data: AsyncIterable[bytes] | None = None) -> Answer:
        """Run `script` to its end, with `data` for its standard input.

        Raises
        ------
        ClusterError
            When the connection is lost on the way.
        LikewiseError
            What `data` raised.
        """
        process = await self._process()
        feeding = asyncio.ensure_future(_feed(process, framed(script), data))
        try:
            out, said = await asyncio.gather(process.stdout.read(), process.stderr.read())
            await process.wait_closed()
        except (OSError, require_asyncssh().Error) as error:
            raise self._lost() from error
        finally:
            feeding.cancel()
            (fed,) = await asyncio.gather(feeding, return_exceptions=True)
            process.close()
        if isinstance(fed, LikewiseError):
            raise fed
        if process.returncode is None:
            raise self._lost()
        return Answer(process.returncode, out.decode("utf-8", "replace"), said.decode("utf-8", "replace"))

    def _lost(self) -> ClusterError:
        return ClusterError("The SSH connection was lost.", where=self.name, todo="Look at the network and try again.")

    async def _process(self, **options: Any) -> Any:
        """A session that runs `READER`; on another connection where sshd allows no more on this one (MaxSessions)."""
        asyncssh = require_asyncssh()
        options |= {"encoding": None, "request_pty": False, "x11_forwarding": False, "env": {}, "send_env": ()}
        for connection in list(self._connections):
            try:
                return await connection.create_process(READER, **options)
            except (asyncssh.ChannelOpenError, asyncssh.DisconnectError, OSError):
                if connection.is_closed():
                    self._connections.remove(connection)
        connection = await self._connect()
        self._connections.append(connection)
        try:
            return await connection.create_process(READER, **options)
        except (asyncssh.ChannelOpenError, asyncssh.DisconnectError, OSError) as error:
            raise ClusterError(
                f"The host runs no commands over SSH ({error}).", where=self.name, todo="Look at its sshd_config."
            ) from error

    async def forward(self, host: str, port: int) -> int:
        """A local port whose connections come out on the host, towards `host` and `port`."""
        asyncssh = require_asyncssh()
        if (host, port) not in self._listeners:
            try:
                await self.open()
                listener = await self._connections[0].forward_local_port("127.0.0.1", 0, host, port)
            except (asyncssh.Error, OSError) as error:
                raise ClusterError(
                    f"{host}:{port} can't be reached through SSH ({error}).",
                    where=self.name,
                    todo="sshd has to allow it: AllowTcpForwarding yes.",
                ) from error
            self._listeners[host, port] = listener
        return int(self._listeners[host, port].get_port())

    async def reach(self, host: str, port: int) -> tuple[str, int]:
        """Where this computer reaches the `port` of `host`: there, or through a local port that is forwarded."""
        if (host, port) not in self._listeners and await answers(host, port):
            return host, port
        return "127.0.0.1", await self.forward(host, port)

    async def close(self) -> None:
        """Log out; what runs there loses its standard input."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()
        for connection in connections:
            with suppress(Exception):
                await asyncio.wait_for(connection.wait_closed(), 2)


class Connections:
    """All hosts of one cluster; jump hosts are shared."""

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, str, str], Host] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def host(self, name: str, options: Mapping[str, Any], through: Host | None = None) -> Host:
        """The host `name`, logged in to.

        Raises
        ------
        ClusterError, UsageError
            When that fails: where it is, what is wrong, what to do.
        """
        key = (through.name if through else "", name, repr(sorted(options.items(), key=str)))
        if key not in self._hosts:
            self._hosts[key] = Host(name, lambda: self._connect(name, options, through))
        await self._hosts[key].open()
        return self._hosts[key]

    async def _connect(self, name: str, options: Mapping[str, Any], through: Host | None) -> Any:
        asyncssh = require_asyncssh()
        route = await find_route(name, options)
        config = {"config": options["config"]} if "config" in options else {}
        for jump in route.jumps if through is None else ():  # a jump host's own ProxyJump counts for the first alone
            through = await self.host(_without_scheme(jump), config, through)
        keys = HostKeys(route, asyncssh)
        arguments = {**route.arguments, "client_factory": lambda: keys.client}
        if "known_hosts" not in options and isinstance(arguments.get("known_hosts"), list):
            arguments["known_hosts"] = keys.known
        if through is not None:
            arguments["tunnel"] = through._connections[0]
        try:
            async with self._gate:
                return await asyncssh.connect(route.host, **arguments)
        except (OSError, asyncio.TimeoutError, asyncssh.Error, ValueError) as error:
            raise login_error(name, route, error, keys, asyncssh) from error

    async def close(self) -> None:
        """Log out everywhere."""
        hosts = list(self._hosts.values())
        self._hosts.clear()
        await asyncio.gather(*(host.close() for host in hosts))


class HostKeys:
    """The known host keys of one route, and what happens with a key that is not among them."""

    def __init__(self, route: Route, asyncssh: Any) -> None:
        self._asyncssh = asyncssh
        self._route = route
        self.offered: Any = None
        self.changed = False
        judge = self._judge

        class Client(asyncssh.SSHClient):  # type: ignore[misc]
            def validate_host_public_key(self, host: str, addr: str, port: int, key: Any) -> bool:
                return judge(host, addr, port, key)

        self.client = Client()
        files = route.arguments.get("known_hosts")
        self.known = read_known_hosts(files, asyncssh) if isinstance(files, list) else None

    def _judge(self, host: str, addr: str, port: int, key: Any) -> bool:
        self.offered = key
        number = None if port == 22 else port
        if self.known is not None:
            found = self.known.match(self._route.arguments.get("host_key_alias") or host, addr, number)
            self.changed = any(found[:3])
        if self.changed or self._route.strict == "yes":
            return False
        if self._route.strict == "accept-new" and self._route.remember:
            _remember(self._route, host, port, key)
        return True


def read_known_hosts(files: Sequence[str], asyncssh: Any) -> Any:
    """The entries of known-hosts files. Lines that nobody understands are passed over, as OpenSSH does."""
    known = asyncssh.SSHKnownHosts()
    for name in files:
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        try:
            known.load(text)
        except ValueError:
            known = _load_lines(known, text)
    return known


def _load_lines(known: Any, text: str) -> Any:
    for line in text.splitlines():
        with suppress(ValueError):
            known.load(line)
    return known


def _remember(route: Route, host: str, port: int, key: Any) -> None:
    name = route.arguments.get("host_key_alias") or (host if port == 22 else f"[{host}]:{port}")
    text = key.export_public_key("openssh").decode().split()[:2]
    with suppress(OSError):
        os.makedirs(os.path.dirname(route.remember), mode=0o700, exist_ok=True)
        with open(route.remember, "a", encoding="utf-8") as file:
            file.write(f"{name} {' '.join(text)}\n")


def login_error(name: str, route: Route, error: BaseException, keys: HostKeys, asyncssh: Any) -> LikewiseError:
    """One sentence about a login that failed."""
    hint = f"Try `ssh {name}` in a terminal."
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        if keys.changed:
            fingerprint = f" ({keys.offered.get_fingerprint()})" if keys.offered else ""
            what = f"The host's key{fingerprint} is not the one that known_hosts has: it may be another machine."
            hint = f"Find out why; if the new key is right, remove the old one with `ssh-keygen -R {route.host}`."
        else:
            what = "The host's key is not known, so nobody can tell whether it is the right machine."
            hint = f"Log in once with `ssh {name}` and confirm its key."
    elif isinstance(error, asyncssh.PermissionDenied):
        user = route.arguments.get("username")
        what = f"The host refuses the login{f' of {user}' if user else ''}."
        hint = f"{hint} A key with a passphrase has to be in the agent (ssh-add)."
    elif isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        what = "The host does not answer."
    elif isinstance(error, socket.gaierror):
        what = f"There is no host with the name {route.host}."
        hint = "Check the spelling, or name it in ~/.ssh/config."
    else:
        reason = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error) or type(error).__name__
        what = f"The host can't be reached over SSH: {str(reason).rstrip('.')}."
    return ClusterError(what, where=name, todo=hint, details={"host": name, "reason": type(error).__name__})


async def answers(host: str, port: int, timeout: float = _DIRECT) -> bool:
    """Whether a TCP connection to `host` and `port` comes about soon."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def _feed(process: Any, head: bytes, data: AsyncIterable[bytes] | None) -> None:
    with suppress(OSError):  # the host has ended it already
        try:
            process.stdin.write(head)
            if data is not None:
                async for piece in data:
                    process.stdin.write(piece)
                    await process.stdin.drain()
        finally:
            process.stdin.write_eof()


def _without_scheme(jump: str) -> str:
    return jump.removeprefix("ssh://")
