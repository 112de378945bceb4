"""The node's cache: where things lie, and who may use it.

    <cache>/layers/<digest>/<layer path>     unpacked, checked, read-only; <digest>.listing beside it
    <cache>/linked/<digest>.listing          of a layer whose files were linked from where a store has them unpacked;
                                             <digest>/ has those again that stand in a prefix in another form
    <cache>/prefixes/<first 16 of the id>/   hard links to the layers, and what is generated (see `growing`, too)
    <cache>/kits/<first 16 of the id>/       unpacked by bootstrap.sh
    <cache>/leases/<host>.<pid>              "<manifest id> <start time of the process> <cluster id>", - for none
    <cache>/used/<first 16 of an id>         modified when a prefix or a kit was last used
    <cache>/work/<host>.<pid>/               the working directory of each process started from here
    <cache>/archives/<digest>…               packed layers that agents got from others, to unpack and serve
    <cache>/agents/<cluster>.…               door, lock and log of the agent of a cluster
    <cache>/deltas/<cluster>/                what was added to a running cluster
    <cache>/tmp/, <cache>/lock               what is being made, by the one who holds the lock
    <cache>/lock.next                        held by the one who has it next
    <cache>/pruned                           when what had expired was last removed, in seconds since boot

Content becomes visible by a rename and disappears by one, so a kill at any moment leaves something in ``tmp`` at most.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator

import msgspec

from likewise.errors import NodeError
from likewise.model.keys import CACHE_TAG
from likewise.node.disk import READ, check_executable, disk_error, remove_tree

_KINDS = ("layers", "linked", "prefixes", "kits", "tmp", "leases", "used", "work", "archives", "agents", "deltas")


class NodeCache(msgspec.Struct, frozen=True):
    """The places of a cache. `root` is absolute; it contains neither colon, backslash nor line break."""

    root: str

    def place(self, kind: str) -> str:
        """One of the cache's directories."""
        return f"{self.root}/{kind}"

    def layer(self, digest: str) -> str:
        """Where the files of a layer lie. They are all there when its listing is."""
        return f"{self.root}/layers/{digest}"

    def listing(self, digest: str) -> str:
        """The layer's listing."""
        return f"{self.root}/layers/{digest}.listing"

    def linked(self, digest: str) -> str:
        """Where what is kept of a layer lies whose files were linked from a store."""
        return f"{self.root}/linked/{digest}"

    def listings(self, digest: str) -> tuple[str, str]:
        """Where the layer's listing may lie."""
        return self.listing(digest), f"{self.linked(digest)}.listing"

    def prefix(self, manifest_id: str) -> str:
        """The prefix with this id. It is complete when it is there, unless it is growing."""
        return f"{self.root}/prefixes/{manifest_id[:16]}"

    def used(self, name: str) -> str:
        """The file whose modification time is the last use of a prefix or kit."""
        return f"{self.root}/used/{name[:16]}"


def open_cache(root: str) -> NodeCache:
    """The cache at `root`, made when missing, private to this user.

    Raises
    ------
    NodeError
        When it belongs to somebody else, is a link, can be written by everybody, can't be made, or nothing in it can
        be executed.
    """
    root = os.path.abspath(root)
    if any(c in root for c in ":\\\n"):
        raise NodeError(
            "The path of the node's cache contains a colon, a backslash or a line break.",
            where=root,
            todo="Give it another folder; search paths and scripts can't hold such a name.",
        )
    try:
        for path in (root, *(f"{root}/{kind}" for kind in _KINDS)):
            _own_directory(path)
        _tag(root)
        check_executable(root)
    except OSError as error:
        raise disk_error(error, root) from error
    return NodeCache(root)


def _own_directory(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.makedirs(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        problem = "is not a directory of its own"
    elif found.st_uid != os.geteuid():
        problem = "belongs to another user"
    elif found.st_mode & 0o002:
        problem = "can be written by everybody"
    else:
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.chmod(path, 0o700)
        return
    raise NodeError(
        f"The node's cache {problem}, so what it contains can't be trusted.",
        where=path,
        todo="Remove it, or give the node's cache another folder.",
    )


def _tag(root: str) -> None:
    name, content = CACHE_TAG
    with contextlib.suppress(FileExistsError):
        fd = os.open(f"{root}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)


@contextlib.contextmanager
def locked(cache: NodeCache) -> Iterator[None]:
    """Be the only one who makes or removes anything in the cache, waiting for others.

    The kernel frees the lock of a process that is killed. Its forked helpers hold it too, until they end; so who gets
    the lock knows that everything in ``tmp`` is left over. Whoever waits can be seen: `is_awaited`.
    """
    with contextlib.ExitStack() as waiting:
        waiting.callback(os.close, _lock(f"{cache.root}/lock.next"))
        fd = _lock(f"{cache.root}/lock")
    try:
        yield
    finally:
        os.close(fd)


def is_awaited(cache: NodeCache) -> bool:
    """Whether somebody waits for the lock of the cache."""
    return is_held(f"{cache.root}/lock.next")


def _lock(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_held(path: str) -> bool:
    """Whether a process has locked the file."""
    try:
        fd = os.open(path, READ)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: several may look at once
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def host_name() -> str:
    """This host, as it stands in the names of leases and working directories."""
    return os.uname().nodename


def start_time(pid: str) -> str | None:
    """When the process started (clock ticks since boot), None when there is no such process.

    The 22nd field of ``/proc/<pid>/stat`` (proc(5)); the second one, in parentheses, may contain anything.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return None


def sweep(cache: NodeCache) -> None:
    """Remove what ended or killed processes left. The lock must be held."""
    for name in os.listdir(cache.place("tmp")):
        # made without the lock, by bootstrap.sh and by agents: left over when their process is gone
        kind, _, process = name.partition(".")
        if kind not in ("kit", "wheels") or start_time(process) is None:
            remove_tree(f"{cache.place('tmp')}/{name}")
    here = f"{host_name()}."
    for name in os.listdir(cache.place("work")):
        if name.startswith(here) and start_time(name[len(here) :]) is None:
            remove_tree(f"{cache.place('work')}/{name}")
