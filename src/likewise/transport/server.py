"""An endpoint of Dask's comms, with TLS and nothing of a worker: agents and the hub listen and call through it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from distributed.core import Server
from distributed.security import Security

from likewise.errors import NodeError

_CONNECT = 30.0
"""Seconds in which Dask tries to connect; whoever asks for something gives up earlier."""

Handlers = Mapping[str, Callable[..., Any]]


async def listening(handlers: Handlers, *, role: str, security: Security, host: str, port: int, scratch: str) -> Server:
    """A server that listens. Close it with its own ``close()``.

    Parameters
    ----------
    handlers : mapping
        By name; the server answers nothing else.
    role : str
        Whose certificate it shows: "worker" or "scheduler".
    security : Security
    host : str
        The address to listen on, which others must be able to reach.
    port : int
        0 for any.
    scratch : str
        A directory, in which Dask makes one that it believes to need.

    Raises
    ------
    NodeError
        Without TLS, or when the address can't be used.
    """
    arguments = security.get_connection_args(role)
    if arguments.get("ssl_context") is None:
        raise NodeError(
            "There are no TLS credentials, and layers travel encrypted only.",
            where=f"{host}:{port}",
            todo="Set distributed.comm.tls in Dask's configuration.",
        )
    server = Server(
        dict(handlers), connection_args=arguments, timeout=_CONNECT, needs_workdir=False, local_directory=scratch
    )
    server.handlers = dict(handlers)  # no `identity`, `dump_state`, …
    if server.local_directory in sys.path:  # a Dask server puts its scratch directory there
        sys.path.remove(server.local_directory)
    try:
        await server.listen(f"tls://{_bracketed(host)}:{port}", **security.get_listen_args(role))
        await server
    except OSError as error:
        await server.close()
        raise NodeError(
            f"Nothing can listen there ({error}).", where=f"{host}:{port}", todo="Choose another address or port."
        ) from error
    return server


def own_address(hub: str) -> str:
    """This machine's address on the way to `hub`, which is the one that its neighbours can reach it under."""
    where = urlsplit(hub)
    last: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(where.hostname, where.port, type=socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # sends nothing
                return str(probe.getsockname()[0])
        except OSError as error:
            last = error
    raise NodeError(f"There is no way to the hub ({last}).", where=hub, todo="Look at this machine's network.")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
