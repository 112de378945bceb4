"""The process that lays out what is missing in a prefix whose processes run already (see `likewise.node.growing`).

It asks nothing of anybody but layers of the sources, and can be killed at any moment: what it has done stays, and the
next one goes on from there. While it works it holds the cache's lock, as everybody does who makes something there; it
lets those go first who wait for that. What a client is still to make is waited for only when somebody needs it.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from likewise.errors import NodeError
from likewise.model.manifest import Manifest
from likewise.model.outline import check_names, closure
from likewise.node.base import is_base, read_outline
from likewise.node.cache import NodeCache, is_awaited, locked, sweep
from likewise.node.crew import Crew
from likewise.node.disk import READ, remove_tree
from likewise.node.expiry import leased
from likewise.node.generated import Place, gate_file
from likewise.node.growing import Growing, key
from likewise.node.infill import infill
from likewise.node.layers import LayerShelf
from likewise.node.order import Order
from likewise.node.parts import Part, parts_of
from likewise.node.sources import Source, UnpackedKit

NICE = 15
"""How much those give way to other processes that lay out what nobody waits for: on a small machine scheduler and
worker are just starting, and until they have, nobody can wait for anything."""

MORE = 4
"""Processes beyond the cores' number for layers that somebody waits for: all others may be waiting for a source."""

RETRY = 5.0
"""Seconds after which a layer that could not be had may be tried again when somebody asks for it."""

RETRY_UNASKED = 60.0
"""Seconds after which it is tried again anyway."""

LEASES = 2.0
"""Seconds between two looks whether anybody uses the prefix."""

_LOOK = 0.1  # seconds between two looks at what a client is still to make
_TURN = 1.0  # seconds to wait for whoever just looks whether the lock is held


def fill_in_background(
    cache: NodeCache,
    manifest: Manifest,
    sources: Sequence[Source],
    *,
    kit: UnpackedKit | None = None,
    first: Sequence[str] = (),
) -> None:
    """Have a process of its own fill the prefix, unless there is one. Nobody has to wait for it.

    Parameters
    ----------
    cache, manifest, sources, kit
        As in `materialise`.
    first : sequence of str
        Names of the layers that come first, the most urgent first.
    """
    growing = Growing(cache.prefix(manifest.id))
    growing.forgive()
    if not growing.is_filled():
        _detached(partial(fill, cache, manifest, sources, kit=kit, first=first), growing.place("log"))


def fill(
    cache: NodeCache,
    manifest: Manifest,
    sources: Sequence[Source],
    *,
    kit: UnpackedKit | None = None,
    first: Sequence[str] = (),
    helpers: int | None = None,
) -> None:
    """Fill a growing prefix, unless somebody does, until it is complete or nobody uses it any more.

    Parameters
    ----------
    cache, manifest, sources, kit, helpers
        As in `materialise`.
    first : sequence of str
        As in `fill_in_background`.
    """
    growing = Growing(cache.prefix(manifest.id))
    lock = _take(growing.place("lock"))
    if lock is not None:
        try:
            filler = _Filler(cache, manifest, kit, sources, growing, lock, helpers or len(os.sched_getaffinity(0)))
            filler.run(first)
        finally:
            os.close(lock)


def _take(path: str) -> int | None:
    """Lock the file; its descriptor, None when there is no such file or another process has it."""
    until = time.monotonic() + _TURN
    try:
        fd = os.open(path, READ)
    except OSError:
        return None
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except OSError:
            if time.monotonic() > until:
                os.close(fd)
                return None
            time.sleep(0.05)


class _Filler:
    """One process's work on one prefix, whose lock it holds."""

    def __init__(
        self,
        cache: NodeCache,
        manifest: Manifest,
        kit: UnpackedKit | None,
        sources: Sequence[Source],
        growing: Growing,
        lock: int,
        helpers: int,
    ) -> None:
        self._cache = cache
        self._manifest = manifest
        self._shelf = LayerShelf(cache, sources, kit)
        self._growing = growing
        self._lock = lock
        self._helpers = helpers
        self._place = Place(prefix=growing.prefix, cache=cache.root, python=manifest.python)
        self._queue = os.open(growing.place("queue"), os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._heard = b""
        self._failed: dict[str, float] = {}
        self._looked = time.monotonic()
        self._unused = False
        self._units: dict[str, list[Part]] = {}
        for part in parts_of(manifest.layers):
            self._units.setdefault(key(part.ref.digest), []).append(part)
        self._base = {key(ref.digest) for ref in manifest.layers if is_base(ref, manifest, kit)}
        self._order = Order((), {})
        self._put_off: frozenset[str] = frozenset()
        self._asked = -_LOOK  # when that was found out
        self._nice = os.nice(0)

    def run(self, first: Sequence[str]) -> None:
        """Work until everything is there, or nobody uses the prefix."""
        while self._is_ours():
            with locked(self._cache):
                if not self._is_ours():
                    return
                sweep(self._cache)
                if not self._order:
                    self._order = self._make_order(first)
                self._work()
                if self._growing.there() >= self._units.keys():
                    self._complete()
                    return
            if self._unused or not self._wait_for_work():
                return

    def _is_ours(self) -> bool:
        """Whether the prefix is still the one whose lock is held: it may have been removed, and made anew."""
        try:
            return os.path.samestat(os.stat(self._growing.place("lock")), os.fstat(self._lock))
        except OSError:
            return False

    def _make_order(self, first: Sequence[str]) -> Order:
        keys = {ref.name: key(ref.digest) for ref in self._manifest.layers}
        closures: dict[str, tuple[str, ...]] = {}
        try:
            outline = read_outline(self._shelf, self._manifest)
            check_names(outline, self._manifest)
            closures = {keys[name]: tuple(keys[each] for each in names) for name, names in closure(outline).items()}
        except NodeError as error:
            _say(f"What requires what is not known: {error}")
        left = self._units.keys() - self._growing.there()
        # small ones first: the fewer are missing, the fewer will be waited for. What the base has need only be checked.
        ordered = sorted(left, key=lambda name: (name in self._base, self._units[name][0].ref.size))
        return Order(ordered, closures, [keys[name] for name in first if name in keys])

    def _work(self) -> None:
        """Lay out what is left, what is asked for before all else.

        Returns early when nobody uses the prefix; and when somebody waits for the cache, as soon as what was begun has
        ended.
        """
        with Crew(self._lay, close=(self._lock, self._queue)) as crew:
            while self._is_used():
                leave = is_awaited(self._cache)
                if not leave:
                    self._give(crew)
                if not crew.busy and (leave or not self._order):
                    return
                for name, problem in crew.finished(_LOOK if self._put_off else LEASES, also=self._queue):
                    if problem:
                        self._note(name, problem)
                self._listen()

    def _give(self, crew: Crew) -> None:
        """Give those something to do who are free. What a client is still to make has time until somebody needs it."""
        if time.monotonic() - self._asked >= _LOOK:
            self._put_off = self._shelf.awaited()
            self._asked = time.monotonic()
        while crew.busy < self._helpers + (MORE if self._order.is_urgent() else 0):
            nice = 0 if self._order.is_urgent() else NICE
            name = self._order.take(lambda each: any(part.digest in self._put_off for part in self._units[each]))
            if name is None:
                return
            crew.give(name, nice=nice)

    def _lay(self, name: str) -> None:
        self._shelf.urgent = os.nice(0) == self._nice
        infill(self._units[name], self._shelf, self._place, replace=name in self._base)

    def _note(self, name: str, problem: str) -> None:
        _say(problem)
        self._failed[name] = time.monotonic()
        made = self._growing.place(f"tmp/failed.{name}")
        try:
            with open(made, "w", encoding="utf-8", errors="replace") as file:
                file.write(f"{problem}\n")
        except OSError:  # a full disk: an empty file says that, and takes no inode that is not there yet
            with contextlib.suppress(OSError):
                os.link(self._growing.place("lock"), made)
                os.utime(made)
        with contextlib.suppress(OSError):
            os.rename(made, self._growing.place(f"failed/{name}"))

    def _listen(self) -> None:
        """Take what is asked for from the queue."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._queue, 1 << 16):
                *lines, self._heard = (self._heard + data).split(b"\n")
                names = [name for line in lines if (name := line.decode("ascii", "replace")) in self._units]
                for name in names:
                    self._try_again(name, RETRY)
                self._order.want(names)

    def _try_again(self, name: str, after: float) -> None:
        if name in self._failed and time.monotonic() - self._failed[name] >= after:
            del self._failed[name]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._growing.place(f"failed/{name}"))
            self._order.again(name)

    def _wait_for_work(self) -> bool:
        """With nothing left but what can't be had, wait until it may be tried again; False when nobody uses it."""
        while not self._order:
            if not self._is_used():
                return False
            select.select([self._queue], [], [], LEASES)
            self._listen()
            for name in list(self._failed):
                self._try_again(name, RETRY_UNASKED)
        return True

    def _is_used(self) -> bool:
        """Whether a living process runs from the prefix, as far as that was looked at lately."""
        if time.monotonic() - self._looked >= LEASES:
            self._looked = time.monotonic()
            live = leased(self._cache, time.time())
            self._unused = live.isdisjoint((os.path.basename(self._growing.prefix), "*"))
        return not self._unused

    def _complete(self) -> None:
        """Take away what stands for what was missing. The gate goes first: who starts now needs none."""
        self._leave_times()
        gate = gate_file(self._place)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._growing.prefix}/{gate.path}")
        gone = f"{self._cache.place('tmp')}/growing.{os.path.basename(self._growing.prefix)}.{os.getpid()}"
        os.rename(self._growing.folder, gone)
        remove_tree(gone)

    def _leave_times(self) -> None:
        """Say when each layer was there, for ``likewise run --profile``. The next start overwrites it."""
        used = self._cache.used(os.path.basename(self._growing.prefix))
        with contextlib.suppress(OSError), open(used, "w", encoding="ascii") as file:
            for entry in os.scandir(self._growing.place("there")):
                file.write(f"{entry.name} {entry.stat().st_mtime:.3f}\n")


def _detached(work: Callable[[], None], log: str) -> None:
    """Do `work` in a process that nobody waits for, and that keeps nothing open which somebody waits for."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            _settle(log)
            work()
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _settle(log: str) -> None:
    import shutil  # noqa: F401 # later it may not be there: the kit that this process runs from may be removed

    codecs.lookup("ascii")  # as above
    for number, action in ((signal.SIGTERM, _stop), (signal.SIGINT, signal.SIG_IGN)):
        signal.signal(number, action)
    os.umask(0o022)
    os.chdir("/")
    said = nothing = os.open(os.devnull, os.O_RDWR)
    with contextlib.suppress(OSError):  # a full disk
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for fd, wanted in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(fd, wanted)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2:
            with contextlib.suppress(OSError):
                os.close(fd)


def _stop(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # on a full disk those who wait are told, at least
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
