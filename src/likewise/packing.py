"""Layers that are put into the store while nodes start: what somebody waits for comes before the rest.

Whoever puts them there *promises* each layer with a lease, which the kernel ends when the process is killed. A node
that reads the store, and finds a layer promised but not there, names it in ``wanted/`` and waits
(`likewise.node.sources`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

from likewise.errors import LikewiseError, StoreError
from likewise.events import Notice
from likewise.forms import Form
from likewise.layers.pack import Progress
from likewise.model.digest import Digest
from likewise.model.keys import WANTED, promise_key
from likewise.model.layer import LayerSource
from likewise.store.lease import Lease
from likewise.store.local import LocalStore
from likewise.threads import give_way

LOOK = 0.02
"""Seconds between two looks for what nodes wait for."""

QUIET = 3.0
"""Seconds that those which have just started have for themselves: first tasks import much."""

START = 60.0
"""Seconds that a start may take; then the rest is begun anyway."""


class Packing:
    """Puts layers into the store in threads, from the moment on that it is made.

    What somebody waits for is the work of threads that do nothing else. The others give way to all processes: a thread
    can take a lower priority and never a higher one again. They begin with what will be needed soon, while the nodes'
    processes start, and go on with the rest when the start is over: a thread that gives way while it holds the
    interpreter's lock holds up all of this process.

    Parameters
    ----------
    layers : sequence of LayerSource
        The most urgent first.
    store : LocalStore
    form : Form
        How they are put there.
    awaited : collection of Digest
        Those that the caller is going to wait for.
    soon : collection of Digest
        Those that come right after them.
    jobs : int
        Threads of each kind.
    notify : callable
        Called with a `Notice` for each layer that can't be had.
    done : callable
        Called when the last thread ends: what the layers were made of may go.
    progress : callable, optional
        Called with the number of bytes just read, from any thread, until `silence`.
    """

    def __init__(
        self,
        layers: Sequence[LayerSource],
        store: LocalStore,
        form: Form,
        *,
        awaited: Collection[Digest] = (),
        soon: Collection[Digest] = (),
        jobs: int,
        notify: Callable[[Notice], None],
        done: Callable[[], None],
        progress: Progress | None = None,
    ) -> None:
        self._store, self._form, self._notify, self._done, self._progress = store, form, notify, done, progress
        self._waiting = {layer.digest: layer for layer in layers}
        self._awaited = dict.fromkeys(digest for digest in self._waiting if digest in awaited)
        self._soon = soon
        self._pending = set(self._waiting)
        self._promise = self._promised()
        self._errors: dict[Digest, LikewiseError] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._rest_at = time.monotonic() + START
        count = max(1, min(jobs, len(layers)))
        self._threads = [
            threading.Thread(target=self._work, args=(for_rest,), name=f"likewise-pack-{number}", daemon=True)
            for number, for_rest in enumerate([False] * count + [True] * count)
        ]
        self._running = len(self._threads)
        for thread in self._threads:
            thread.start()

    def wait(self, *digests: Digest) -> None:
        """Wait until these layers are there; they come before all that were not begun yet.

        Raises
        ------
        LikewiseError
            When one can't be had.
        """
        with self._changed:
            self._hurry(digests)
            self._changed.wait_for(
                lambda: not self._errors.keys().isdisjoint(digests) or self._pending.isdisjoint(digests)
            )
            for digest in digests:
                if digest in self._errors:
                    raise self._errors[digest]

    def launched(self) -> None:
        """What was to be started is there: the rest may be begun soon."""
        self._rest_at = min(self._rest_at, time.monotonic() + QUIET)

    def silence(self) -> None:
        """Tell of no more progress."""
        self._progress = None

    def finish(self) -> None:
        """Wait until all layers are there.

        Raises
        ------
        LikewiseError
            The first that was met.
        """
        self._rest_at = 0.0
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)
            for error in self._errors.values():
                raise error

    def close(self) -> None:
        """Stop. What is half written vanishes. May be called more than once, but by none of the threads."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, for_rest: bool) -> None:
        if for_rest:
            give_way()
        try:
            while (layer := self._next(for_rest)) is not None:
                self._put(layer)
        finally:
            self._leave()

    def _next(self, for_rest: bool) -> LayerSource | None:
        """What this thread does next, once there is something; None when it is not needed any more."""
        with self._changed:
            while self._waiting and not self._stopped:
                if wanted := self._wanted():
                    self._hurry(wanted)
                digest = self._due(for_rest)
                if digest is not None:
                    self._awaited.pop(digest, None)
                    return self._waiting.pop(digest)
                self._changed.wait(LOOK)
            return None

    def _due(self, for_rest: bool) -> Digest | None:
        if self._awaited or not for_rest:
            return None if for_rest else next(iter(self._awaited), None)
        digest = next(iter(self._waiting))
        return digest if digest in self._soon or time.monotonic() >= self._rest_at else None

    def _hurry(self, digests: Iterable[Digest]) -> None:
        first = dict.fromkeys(digest for digest in digests if digest in self._waiting)
        names = {self._waiting[digest].name for digest in first}
        # bytecode bears its layer's name: who waits for one of them will wait for the other
        first.update(dict.fromkeys(digest for digest, layer in self._waiting.items() if layer.name in names))
        self._awaited = {**first, **self._awaited}
        self._changed.notify_all()

    def _wanted(self) -> list[Digest]:
        """What nodes wait for."""
        folder = self._store.root / WANTED
        with suppress(OSError):
            found = [Digest(name) for name in os.listdir(folder) if name in self._pending]
            for digest in found:
                (folder / digest).unlink(missing_ok=True)
            return found
        return []

    def _put(self, layer: LayerSource) -> None:
        error: LikewiseError | None = None
        try:
            self._form.put(layer, self._advance)
        except _Stopped:
            pass
        except LikewiseError as found:
            error = found
        except Exception as found:
            error = StoreError(f"A layer can't be put into the store ({found!r}).", where=layer.name)
        if error is not None and self._progress is None:  # else somebody waits for it, and is told
            self._notify(Notice(message=str(error), subject=layer.name))
        with self._changed:
            self._pending.discard(layer.digest)
            if error is not None:
                self._errors[layer.digest] = error
            if not self._pending:
                self._promise.release()
            elif error is not None:  # what is there needs no promise, whether it has one or not
                before, self._promise = self._promise, self._promised()
                before.release()
            self._changed.notify_all()

    def _promised(self) -> Lease:
        return self._store.lease(promise_key(digest) for digest in self._pending)

    def _advance(self, size: int) -> None:
        if self._stopped:
            raise _Stopped
        if progress := self._progress:
            progress(size)

    def _leave(self) -> None:
        """The last one tidies up."""
        with self._changed:
            self._running -= 1
            if self._running:
                return
            self._pending.clear()
            self._promise.release()
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
