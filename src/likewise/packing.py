"""Archives that are written while nodes start already: what somebody waits for comes before the rest.

Whoever packs *promises* each layer with a lease, which the kernel ends when the process is killed. A node that reads
the store, and finds a layer promised but not there, names it in ``wanted/`` and waits (`likewise.node.sources`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from likewise.errors import LikewiseError, StoreError
from likewise.events import Notice
from likewise.layers.pack import write_archive
from likewise.model.digest import Digest
from likewise.model.keys import WANTED, layer_key, promise_key
from likewise.model.layer import LayerSource
from likewise.store.local import LocalStore

NICE = 10
"""The processes that are being started need a core more often than those that pack for them."""


class Packing:
    """Writes archives in threads, from the moment on that it is made.

    Parameters
    ----------
    layers : sequence of LayerSource
        The most urgent first.
    store : LocalStore
    level : int
        zstd level.
    jobs : int
        Threads.
    notify : callable
        Called with a `Notice` for each layer that can't be packed.
    done : callable
        Called when the last thread ends: what was needed to pack may go.
    """

    def __init__(
        self,
        layers: Sequence[LayerSource],
        store: LocalStore,
        *,
        level: int,
        jobs: int,
        notify: Callable[[Notice], None],
        done: Callable[[], None],
    ) -> None:
        self._store, self._level, self._notify, self._done = store, level, notify, done
        self._waiting = {layer.digest: layer for layer in layers}
        self._promises = {digest: store.lease([promise_key(digest)]) for digest in self._waiting}
        self._errors: dict[Digest, LikewiseError] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"likewise-pack-{number}", daemon=True)
            for number in range(max(1, min(jobs, len(layers))))
        ]
        self._running = len(self._threads)
        for thread in self._threads:
            thread.start()

    def wait(self, digest: Digest) -> None:
        """Wait until the layer is packed; it comes before all that were not begun yet.

        Raises
        ------
        LikewiseError
            When it can't be packed.
        """
        with self._changed:
            self._hurry([digest])
            self._changed.wait_for(lambda: digest not in self._promises)
            if digest in self._errors:
                raise self._errors[digest]

    def finish(self) -> None:
        """Wait until all layers are packed.

        Raises
        ------
        LikewiseError
            The first that was met.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._promises)
            for error in self._errors.values():
                raise error

    def close(self) -> None:
        """Stop. What is half written vanishes. May be called more than once, but by none of the threads."""
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        if hasattr(os, "setpriority"):
            with suppress(OSError):  # on Linux a thread has a priority of its own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            while (layer := self._next()) is not None:
                self._pack(layer)
        finally:
            self._leave()

    def _next(self) -> LayerSource | None:
        with self._changed:
            self._hurry(self._wanted())
            if self._stopped or not self._waiting:
                return None
            return self._waiting.pop(next(iter(self._waiting)))

    def _hurry(self, digests: Sequence[Digest]) -> None:
        first = {digest: self._waiting[digest] for digest in digests if digest in self._waiting}
        self._waiting = {**first, **self._waiting}

    def _wanted(self) -> list[Digest]:
        """What nodes wait for."""
        folder = self._store.root / WANTED
        with suppress(OSError):
            found = [Digest(name) for name in os.listdir(folder) if name in self._promises]
            for digest in found:
                (folder / digest).unlink(missing_ok=True)
            return found
        return []

    def _pack(self, layer: LayerSource) -> None:
        error: LikewiseError | None = None
        try:
            with self._store.create(layer_key(layer.digest)) as out:
                write_archive(layer, out, level=self._level, progress=self._unless_stopped)
        except _Stopped:
            pass
        except LikewiseError as found:
            error = found
        except Exception as found:
            error = StoreError(f"A layer can't be packed ({found!r}).", where=layer.name)
        if error is not None:
            self._notify(Notice(message=str(error), subject=layer.name))
        with self._changed:
            if error is not None:
                self._errors[layer.digest] = error
            self._promises.pop(layer.digest).release()
            self._changed.notify_all()

    def _unless_stopped(self, size: int) -> None:
        if self._stopped:
            raise _Stopped

    def _leave(self) -> None:
        """The last one tidies up."""
        with self._changed:
            self._running -= 1
            if self._running:
                return
            for promise in self._promises.values():
                promise.release()
            self._promises.clear()
            self._changed.notify_all()
        with suppress(LikewiseError):
            self._store.prune()  # it has grown: what nobody used for a day makes room
        self._done()


class Last:
    """Calls `work` once, when each of `users` has released it."""

    def __init__(self, users: int, work: Callable[[], None]) -> None:
        self._left, self._work, self._lock = users, work, threading.Lock()

    def release(self) -> None:
        """To be called once by each user, in whatever thread."""
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._work()


class _Stopped(Exception):
    """Nobody needs it any more."""
