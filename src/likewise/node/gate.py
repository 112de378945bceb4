"""Lets Python run in a prefix that still grows: an import of what is not there yet waits for exactly that.

``000-likewise-gate.pth`` calls `install` at the start of every Python of such a prefix, before anything else is
imported, so this file imports next to nothing.

Finders are called with a lock that all imports of a process share; a module is made with its own lock alone. So the
finder never waits. For what is not there yet it answers with a spec that waits when it is read, which the import system
does when it makes the module, and which a program that only looks whether a module could be imported does not do. The
program's other threads go on: nothing is held while waiting but the lock of the one module, nothing is imported, and no
event loop has to run. What is waited for are files that another process, the filler, writes into the prefix.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from _frozen_importlib import ModuleSpec  # that of importlib.machinery, without the import
from _thread import get_ident

TYPE_CHECKING = False  # typing itself would cost more than all the rest
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType
    from typing import Any, NoReturn

TIMEOUT = 240.0
"""Seconds that an import waits at most: less than the 300 after which Dask gives up a worker (``worker-ttl``).

``LIKEWISE_GATE_TIMEOUT`` may say something else.
"""

RETRY = 5.0
"""Seconds between two tries of the filler to get a layer, and between two tries to bring a filler back."""

NO_ROOM = "The node's disk is full. Free some space or inodes there."
"""Why a layer can't be had where nothing is written down: that there is no room for."""

_REACTION = 2.0  # seconds that a filler has to try again what failed long ago
_START = 1.0  # seconds that a filler has to begin to read its queue
_PAUSE = 0.005  # seconds between two looks, at most: dozens of waits follow one another until the first task runs
_AGAIN = 0.1  # seconds until a wish that nobody heard is repeated
_LINES = 4096 // 17  # digests in one write that no other writer's divides (PIPE_BUF)
_READS = "distributed.comm.utils"


class Gate:
    """The first finder on ``sys.meta_path`` while the prefix grows.

    Parameters
    ----------
    prefix : str
        Absolute.

    Raises
    ------
    OSError
        When the prefix does not say what it still waits for: it does not grow.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._growing = f"{prefix}/growing"
        with open(f"{self._growing}/map", encoding="utf-8") as file:
            self._needs = {name: digests for name, _, digests in (line.partition("\t") for line in file)}
        self._needs[_READS] = ""
        self._there: set[str] = set()
        self._waiting: set[int] = set()
        self._revive_at = 0.0
        self._complete = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing for a module that is there or not ours, else a spec that waits when it is read."""
        if name not in self._needs:
            return None
        if name == _READS:
            return self._read_elsewhere(name, path, target)
        if path is not None:
            return None
        if not self._missing(name):
            self._pass(name)
            return None
        others = self._others()
        return _Deferred(name, lambda: self._find(name, target, others))

    def iter_modules(self, prefix: str = "") -> Iterable[tuple[str, bool]]:
        """Wait for all that can be had: `pkgutil.iter_modules` asks before it lists every module that there is."""
        self.bring(list(self._needs))
        self._refresh()
        return ()

    def bring(self, names: Iterable[str]) -> None:
        """Wait for all that can be had of what these need; names of nothing that is to come are passed over."""
        end = time.monotonic() + _timeout()
        missing = sorted({digest for name in names for digest in self._missing(name)})
        if len(missing) > 1:
            self._wish(missing)
        for digest in missing:
            if time.monotonic() < end:
                self._wait([digest])

    def grows(self) -> bool:
        """Whether the prefix still grows. As soon as it does not, this finder is gone."""
        if not self._complete and not os.path.exists(self._growing):
            self._complete = True
            self._needs.clear()
            # Another thread may just be going through the list: it is replaced, not changed.
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
            self._refresh()
        return not self._complete

    def wait(self, name: str) -> str:
        """Wait until everything is there that `name` needs.

        Parameters
        ----------
        name : str
            Of a top-level module, or ``bin/<file>``.

        Returns
        -------
        str
            Empty, or why it is not there: which layer, what happened, what to do.
        """
        missing = self._missing(name)
        thread = get_ident()
        self._waiting.add(thread)
        try:
            why = self._wait(missing) if missing else ""
        finally:
            self._waiting.discard(thread)
        if not why:
            self._pass(name)
        return why

    def after_fork(self) -> None:
        """In the child: forget what threads were importing that it does not have, so that it can be imported anew.

        Every Python has this gap, in which a child inherits the lock of a module without its owner, and would wait for
        it for ever; but only where imports wait is it seconds long.
        """
        thread, waited = get_ident(), set(self._waiting)
        self._waiting.clear()
        locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
        for name, lock in list(locks.items()) if waited - {thread} else ():
            if getattr(lock(), "owner", None) not in (None, thread):
                locks.pop(name, None)
                sys.modules.pop(name, None)

    def _others(self) -> list[Any]:
        """The finders that come after this one."""
        finders = list(sys.meta_path)
        return finders[finders.index(self) + 1 :] if self in finders else finders

    def _find(self, name: str, target: ModuleType | None, others: Iterable[Any]) -> ModuleSpec:
        why = self.wait(name)
        if why:
            raise ImportError(f"{name} can't be imported: {why}", name=name)
        spec = _ask(others, name, None, target)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec

    def _read_elsewhere(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        del self._needs[name]
        from likewise.node.reads import read_elsewhere

        spec = _ask(self._others(), name, path, target)
        return read_elsewhere(spec, self.grows, self.bring) if spec else None

    def _missing(self, name: str) -> list[str]:
        missing = [digest for digest in self._needs.get(name, "").split() if not self._is_there(digest)]
        return missing if missing and self.grows() else []

    def _is_there(self, digest: str) -> bool:
        if digest not in self._there and os.path.exists(f"{self._growing}/there/{digest}"):
            self._there.add(digest)
        return digest in self._there

    def _pass(self, name: str) -> None:
        if self._needs.pop(name, None) is not None:
            self._refresh()

    def _refresh(self) -> None:
        """Forget directory listings: what came within a tick of the file system's clock would never be seen."""
        interpreter = f"{self._prefix}/interpreter/"
        for entry, finder in list(sys.path_importer_cache.items()):
            if not entry.startswith(self._prefix) or entry.startswith(interpreter):
                continue
            if finder is None:
                sys.path_importer_cache.pop(entry, None)
            elif hasattr(finder, "invalidate_caches"):
                finder.invalidate_caches()

    def _wait(self, missing: list[str]) -> str:
        timeout, began, start = _timeout(), time.time(), time.monotonic()
        now = ask_at = start
        pause = 0.001
        while missing and self.grows():
            if now >= ask_at:
                ask_at = now + (RETRY if self._wish(missing) else _AGAIN)
            failed = self._failed(missing, since=0.0 if now - start > _REACTION else began - RETRY)
            if failed:
                return failed
            if now - start > timeout:
                return (
                    f"{self._names(missing)} did not arrive within {timeout:g} s. Look into this node's log, and "
                    "whether it reaches the others; then try again."
                )
            time.sleep(pause)
            pause = min(1.5 * pause, _PAUSE)
            now = time.monotonic()
            while missing and self._is_there(missing[-1]):
                missing.pop()
        return ""

    def _wish(self, digests: Sequence[str]) -> bool:
        """Tell the filler what comes first. False when nobody could be told."""
        try:
            queue = os.open(f"{self._growing}/queue", os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:
                self._revive()
            return False
        self._revive_at = 0.0
        try:
            for first in range(0, len(digests), _LINES):
                os.write(queue, "".join(f"{digest}\n" for digest in digests[first : first + _LINES]).encode())
        except OSError:
            return False  # the queue is full, or the filler has just ended
        finally:
            os.close(queue)
        return True

    def _revive(self) -> None:
        """Start a filler where none has been for a while. Another process may do the same: the second one ends."""
        now = time.monotonic()
        if not self._revive_at:
            self._revive_at = now + _START
        elif now >= self._revive_at:
            self._revive_at = now + RETRY
            null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
            argv = ["sh", "-c", '"$0" &', f"{self._growing}/fill"]
            try:
                # A process group of its own: what ends this program from a terminal does not end the filler.
                os.waitpid(os.posix_spawn("/bin/sh", argv, os.environ, file_actions=null, setpgroup=0), 0)
            except OSError:
                return  # no process to be had now, or SIGCHLD is ignored and it has ended already

    def _failed(self, digests: Iterable[str], since: float) -> str:
        """Why one of these can't be had, if that was found out after `since`; empty otherwise."""
        try:
            failed = set(os.listdir(f"{self._growing}/failed"))
            for digest in failed.intersection(digests) if failed else ():
                with open(f"{self._growing}/failed/{digest}", encoding="utf-8") as file:
                    if os.fstat(file.fileno()).st_mtime >= since:
                        return file.read().strip() or NO_ROOM
        except OSError:
            pass  # it is just being tried again, or all is complete
        return ""

    def _names(self, digests: Iterable[str]) -> str:
        """Names of layers, for a message; their digests where the prefix does not say."""
        import json  # only here: an import that fails has the time

        try:
            with open(f"{self._prefix}/manifest.json", encoding="utf-8") as file:
                names = {layer["digest"][:16]: layer["name"] for layer in json.load(file)["layers"]}
        except (OSError, ValueError, LookupError, TypeError):
            names = {}
        return ", ".join(sorted(names.get(digest, digest) for digest in digests))


class _Deferred(ModuleSpec):
    """The spec of a module that is not there yet. Who reads it waits, and it becomes the real one.

    Until then it has nothing but its name: every other attribute is missing, and so `__getattr__` is asked.
    """

    def __init__(self, name: str, find: Callable[[], ModuleSpec]) -> None:
        self.__dict__.update(name=name, _find=find)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        find = self.__dict__.get("_find")
        if find is not None:  # else another thread has just been here
            found = find()
            own = {key: value for key, value in self.__dict__.items() if key != "_find"}
            self.__dict__ = {**vars(found), **own}
            self.__class__ = type(found)
        return getattr(self, attribute)


def _ask(finders: Iterable[Any], name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """What the first of the finders says that knows the module, as the import system asks them."""
    for finder in finders:
        spec: ModuleSpec | None = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


def _timeout() -> float:
    try:
        return float(os.environ.get("LIKEWISE_GATE_TIMEOUT") or TIMEOUT)
    except ValueError:
        return TIMEOUT


_gate: Gate | None = None


def install() -> None:
    """Gate this process if its prefix grows. Never raises; harmless when it is done."""
    global _gate
    if _gate is not None:
        return
    try:
        _gate = Gate(sys.prefix)
    except (OSError, ValueError):
        return  # nothing grows here, or not any more
    sys.meta_path.insert(0, _gate)
    os.register_at_fork(after_in_child=_gate.after_fork)


def wait_for(name: str) -> None:
    """Wait until everything is there that a script, or a top-level module, needs.

    Parameters
    ----------
    name : str
        ``bin/<file>``, or the module's name.

    Raises
    ------
    NodeError
        When it can't be had, or did not come in time.
    """
    install()
    why = _gate.wait(name) if _gate else ""
    if why:
        from likewise.errors import NodeError

        raise NodeError(f"It can't be started: {why}", where=name)


def main() -> NoReturn:
    """``wait NAME``: for scripts that are not there yet (the ``sh`` in their place waits with this)."""
    from likewise.errors import NodeError, UsageError

    try:
        if len(sys.argv) != 3 or sys.argv[1] != "wait":
            raise UsageError("likewise.node.gate understands: wait NAME.")
        wait_for(sys.argv[2])
    except (NodeError, UsageError) as error:
        sys.stderr.write(f"likewise: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
