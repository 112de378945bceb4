"""While the prefix grows, Dask reads its messages in threads of their own.

A task is unpickled where its message is read: on the event loop, unless the message is large. An import in there may
have to wait for a layer, and a worker whose event loop waits neither sends heartbeats nor serves its peers. Dask's own
way for large messages (``distributed.comm.offload``) has one thread for all of them, in which a heartbeat's answer
would wait behind the task.

Some of a message is unpickled later, on the event loop, by whoever handles it: graphs by the scheduler, what
`Client.run` and plugins are made of by all. So a message is handed over when what this needs has come.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import copy_context
from importlib.machinery import ModuleSpec
from threading import Thread
from types import ModuleType
from typing import Any

_PICKLE = b"\x80"
"""What a pickle begins with (since protocol 2)."""


def read_elsewhere(spec: ModuleSpec, grows: Callable[[], bool], bring: Callable[[Iterable[str]], object]) -> ModuleSpec:
    """Make the module ``distributed.comm.utils`` read messages in threads for as long as `grows` says.

    Parameters
    ----------
    spec : ModuleSpec
        Of that module, as it was found.
    grows : callable
        Asked for each message; cheap.
    bring : callable
        Waits until the top-level modules of these names can be imported; among the names are some of no module.
    """
    if spec.loader is not None:
        spec.loader = _Wrapped(spec.loader, grows, bring)  # type: ignore[assignment]
    return spec


class _Wrapped:
    """A loader that changes the module that it has loaded, and leaves no other trace."""

    def __init__(self, loader: Any, grows: Callable[[], bool], bring: Callable[[Iterable[str]], object]) -> None:
        self._loader = loader
        self._grows = grows
        self._bring = bring

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        inline = vars(module).get("from_frames")
        if inline is not None:
            vars(module)["from_frames"] = _from_frames(inline, self._grows, self._bring)


def _from_frames(
    inline: Callable[..., Any], grows: Callable[[], bool], bring: Callable[[Iterable[str]], object]
) -> Callable[..., Any]:
    """``distributed.comm.utils.from_frames``, which is `inline`, in a thread while the prefix grows."""

    async def from_frames(
        frames: Any, deserialize: bool = True, deserializers: Any = None, allow_offload: bool = True
    ) -> Any:
        if not grows():
            return await inline(frames, deserialize, deserializers, allow_offload)

        def read() -> Any:
            return _result(inline(frames, deserialize, deserializers, False))

        # the scheduler allows no offloading, and deserialises nothing here
        message = await _in_thread(read) if deserialize and allow_offload else read()
        graphs, pickles = _graphs(message), _pickles(message)

        def prepare() -> None:
            for graph in graphs:
                _try(graph)
            bring(_mentioned(pickles))

        if graphs or pickles:
            await _in_thread(prepare)
        return message

    return from_frames


def _graphs(message: Any) -> list[tuple[Any, Any]]:
    """Header and frames of each graph in a message from a client."""
    parts = [part for part in message if isinstance(part, dict)] if isinstance(message, (list, tuple)) else []
    found = [part for part in parts if part.get("op") == "update-graph"]
    new = [part["expr_ser"] for part in found if "expr_ser" in part]
    old = [(part["graph_header"], part["graph_frames"]) for part in found if "graph_header" in part]
    return [*((each.header, each.frames) for each in new), *old]


def _try(graph: tuple[Any, Any]) -> None:
    """Import what a graph needs by reading it; whether it can be read is told when it is read again."""
    with suppress(Exception):
        sys.modules["distributed.protocol"].deserialize(*graph)  # loaded long ago, where a message could be read


def _pickles(message: Any) -> list[bytes]:
    """What of a message will be unpickled where it is handled."""
    values = message.values() if isinstance(message, dict) else ()
    return [value for value in values if isinstance(value, bytes) and value.startswith(_PICKLE)]


def _mentioned(pickles: Iterable[bytes]) -> set[str]:
    """Every word that may be the name of a module: those of classes and functions, and what functions import."""
    from pickletools import genops

    found: set[str] = set()
    for data in pickles:
        with suppress(ValueError):  # it is none, after all
            found.update(word for _, word, _ in genops(data) if isinstance(word, str))
    return {word.partition(" ")[0].partition(".")[0] for word in found}


def _result(coroutine: Any) -> Any:
    """What a coroutine returns that never waits: without ``allow_offload``, reading is done in one go."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("Dask waited for something while it read a message.")


async def _in_thread(work: Callable[[], Any]) -> Any:
    """The result of `work`, done in a thread of its own that keeps no process from ending."""
    import asyncio  # loaded long ago where anybody awaits this

    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle(how: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():  # cancelled meanwhile
            how(outcome)

    def run() -> None:
        try:
            how, outcome = future.set_result, work()
        except BaseException as error:
            how, outcome = future.set_exception, error
        try:
            loop.call_soon_threadsafe(settle, how, outcome)
        except RuntimeError:
            return  # the loop has been closed: nobody asks any more

    Thread(target=copy_context().run, args=(run,), name="likewise-reads", daemon=True).start()
    return await future
