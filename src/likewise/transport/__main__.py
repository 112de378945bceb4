"""``python -m likewise.transport COMMAND …``. Started by bootstrap.sh and by clusters, not by people.

agent --cache DIR --cluster ID --hub ADDRESS [--host IP] [--first NAME,NAME…] [--lifeline]
    serve this node, and other nodes from it, until no process of the cluster is left here
hub --cluster ID --host IP [--port N] [--cache DIR] [--store DIR] [--first NAME,NAME…] [--lifeline]
    the same, and know who has what; prints {"hub": ADDRESS} when it listens

Credentials come from Dask's configuration. With --lifeline the process ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from likewise.errors import LikewiseError, UsageError
from likewise.node.cache import NodeCache, open_cache
from likewise.transport.lifetime import is_leased, only_one, prune_regularly, until_abandoned, until_unleased
from likewise.transport.tasks import end

if TYPE_CHECKING:
    from likewise.transport.agent import Agent

_FLAGS = ("lifeline",)
_VALUES = ("cache", "cluster", "hub", "host", "port", "store", "first")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. Errors are one line on stderr and the error's exit code."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    try:
        if command not in ("agent", "hub"):
            raise UsageError(f"likewise.transport has no command {command!r}.")
        options = _parse(rest)
        os.umask(0o077)
        with _cache(options, command) as cache:
            _run(command, cache, options)
    except LikewiseError as error:
        sys.stderr.write(f"likewise: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _parse(argv: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        name = word.removeprefix("--")
        if word == name or name not in (*_FLAGS, *_VALUES):
            raise UsageError(f"likewise.transport does not understand {word!r}.")
        options[name] = "yes" if name in _FLAGS else next(words, "")
    if not re.fullmatch("[0-9a-f]+", options.get("cluster", "")):
        raise UsageError("likewise.transport needs --cluster with a cluster's id.")
    if not options.get("port", "0").isdecimal():
        raise UsageError(f"{options['port']!r} is not a port.")
    return options


@contextlib.contextmanager
def _cache(options: dict[str, str], command: str) -> Iterator[NodeCache]:
    """The node's cache; a hub on a machine that is no node has one of its own while it runs."""
    if options.get("cache"):
        yield open_cache(options["cache"])
    elif command == "hub":
        with tempfile.TemporaryDirectory(prefix="likewise-hub-") as root:
            yield open_cache(root)
    else:
        raise UsageError("An agent needs --cache.")


def _run(command: str, cache: NodeCache, options: dict[str, str]) -> None:
    cluster, folder = options["cluster"], cache.place("agents")
    while True:
        with only_one(folder, cluster) as alone:
            if not alone:
                if command == "hub":
                    raise UsageError("The cluster has an agent here already.", where=folder)
                return
            again = asyncio.run(_serve(command, cache, options))
        if not again:
            return


async def _serve(command: str, cache: NodeCache, options: dict[str, str]) -> bool:
    """Run until there is nobody left to serve. Whether somebody came while it ended."""
    from likewise.transport.doorway import bind_door, close_door, open_door

    cluster, folder = options["cluster"], cache.place("agents")
    door = bind_door(folder, cluster)  # first: whoever asks waits for it, while Dask is imported
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        async with _endpoint(command, cache, options) as agent, open_door(door, agent):
            if command == "hub":
                print(msgspec.json.encode({"hub": agent.address}).decode(), flush=True)
            await _until_end(cache, options, agent, stopped)
    finally:
        close_door(folder, cluster)
        door.close()
    return command == "agent" and "lifeline" not in options and not stopped.is_set() and is_leased(cache, cluster)


def _endpoint(command: str, cache: NodeCache, options: dict[str, str]) -> Agent:
    from distributed.security import Security

    host, port, first = options.get("host", ""), int(options.get("port") or 0), options.get("first", "").split(",")
    if command == "hub":
        from likewise.transport.hub import Hub

        if not host:
            raise UsageError("A hub needs --host.")
        return Hub(cache, Security(), host=host, port=port, store=options.get("store", ""), first=first)
    from likewise.transport.agent import Agent

    if not options.get("hub"):
        raise UsageError("An agent needs --hub.")
    return Agent(cache, options["hub"], Security(), host=host, port=port, first=first)


async def _until_end(cache: NodeCache, options: dict[str, str], agent: Agent, stopped: asyncio.Event) -> None:
    pruning = asyncio.create_task(prune_regularly(cache))
    ends: list[asyncio.Task[Any]] = [asyncio.create_task(stopped.wait())]
    if "lifeline" in options:
        ends.append(asyncio.create_task(until_abandoned()))
    elif options.get("cache"):
        ends.append(asyncio.create_task(until_unleased(cache, options["cluster"], agent.over)))
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end([*ends, pruning])


if __name__ == "__main__":
    main()
