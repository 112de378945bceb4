"""What leaves the node's cache, and when."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Collection
from datetime import timedelta

import msgspec

from likewise.model.layer import LISTING_MAGIC, LayerKind
from likewise.model.manifest import Manifest
from likewise.node.cache import NodeCache, host_name, is_held, locked, start_time, sweep
from likewise.node.disk import remove_tree

CODE_MAX_AGE = timedelta(hours=24)
MAX_AGE = timedelta(days=7)
FOREIGN_MAX_AGE = timedelta(days=30)
"""How long a lease counts whose process can't be seen from here: it runs on another host, or in another container."""
STARTING = timedelta(minutes=5)
"""What belongs to a cluster stays that long without a lease: its first process may just be about to write one."""

_EVERYTHING = "*"
_CLUSTER = re.compile(r"[0-9a-f]{16}")


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed: prefixes and kits by the first 16 digits of their ids, layers by digest, archives by the names
    of their files, clusters (their deltas, and what their agents left) by id."""

    prefixes: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    kits: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()


def prune(
    cache: NodeCache,
    *,
    max_age: timedelta = MAX_AGE,
    code_max_age: timedelta = CODE_MAX_AGE,
    now: float | None = None,
    have_lock: bool = False,
) -> Pruned:
    """Remove what nobody has used for long. What a living process runs from is never touched.

    Parameters
    ----------
    cache : NodeCache
    max_age : timedelta, default 7 days
        For prefixes, kits, and layers that no prefix contains.
    code_max_age : timedelta, default 24 h
        For the user's own code: code layers, and prefixes that contain any; and for archives, which may hold some and
        can be had again. What was added to a running cluster goes with its last process.
    now : float, optional
        Seconds since the epoch instead of the present.
    have_lock : bool
        Whether the caller holds the cache's lock already.
    """
    with contextlib.nullcontext() if have_lock else locked(cache):
        expiry = _Expiry(cache, max_age, code_max_age, time.time() if now is None else now)
        sweep(cache)
        pruned = Pruned(
            prefixes=expiry.prefixes(),
            clusters=expiry.clusters(),
            layers=expiry.layers(),  # after prefixes and deltas, of course
            kits=expiry.kits(),
            archives=expiry.archives(),
        )
        _note(cache)
        return pruned


class Lease(msgspec.Struct, frozen=True):
    """What a living process uses: the name of its prefix, and the id of its cluster; ``*`` while it is being written.

    Either may be "": no prefix of likewise, no cluster with other nodes.
    """

    prefix: str
    cluster: str


def leases(cache: NodeCache, now: float) -> tuple[Lease, ...]:
    """The leases of living processes. Those of ended ones are removed."""
    found = []
    for lease in os.listdir(cache.place("leases")):
        path = f"{cache.place('leases')}/{lease}"
        host, _, pid = lease.rpartition(".")
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                manifest, started, cluster = [*file.read().split(), "", "", ""][:3]
            age = now - os.stat(path).st_mtime
        except OSError:
            continue
        actual = start_time(pid)
        alive = actual is not None and started in (actual, "0", "") if host == host_name() else age < _seconds()
        if not alive:
            _unlink(path)
        elif not manifest:  # it is just being written
            found.append(Lease(_EVERYTHING, _EVERYTHING))
        else:
            found.append(Lease(*("" if field == "-" else field for field in (manifest[:16], cluster))))
    return tuple(found)


def leased(cache: NodeCache, now: float) -> frozenset[str]:
    """Names of the prefixes that living processes run from; ``*`` when that can't be known yet."""
    return frozenset(lease.prefix for lease in leases(cache, now)) - {""}


def leased_clusters(cache: NodeCache, now: float) -> frozenset[str]:
    """Ids of the clusters that living processes belong to; ``*`` when that can't be known yet."""
    return frozenset(lease.cluster for lease in leases(cache, now)) - {""}


def _seconds() -> float:
    return FOREIGN_MAX_AGE.total_seconds()


class _Expiry:
    """One pass over a cache, with the lock held."""

    def __init__(self, cache: NodeCache, max_age: timedelta, code_max_age: timedelta, now: float) -> None:
        self._cache = cache
        self._max_age = max_age.total_seconds()
        self._code_max_age = min(max_age, code_max_age).total_seconds()
        self._now = now
        self._kept: set[str] = set()

    def prefixes(self) -> tuple[str, ...]:
        """Remove expired prefixes; note which layers the others contain."""
        removed = []
        live = leased(self._cache, self._now)
        for name in live - {_EVERYTHING}:
            if os.path.isdir(self._cache.prefix(name)):
                _touch(self._cache.used(name), self._now)  # in use until now: the age begins when its processes end
        for name in os.listdir(self._cache.place("prefixes")):
            manifest = _manifest(self._cache.prefix(name))
            if self._prefix_expired(name, manifest, live) and self._remove_prefix(name, manifest):
                removed.append(name)
            elif manifest:
                self._kept.update(manifest.digests())
        return tuple(sorted(removed))

    def _prefix_expired(self, name: str, manifest: Manifest | None, live: Collection[str]) -> bool:
        if name in live or _EVERYTHING in live:
            return False
        has_code = manifest is not None and any(ref.kind is LayerKind.CODE for ref in manifest.layers)
        return self._age(self._last_use(name)) > (self._code_max_age if has_code else self._max_age)

    def _last_use(self, name: str) -> float:
        return max(_mtime(self._cache.used(name)), _mtime(f"{self._cache.prefix(name)}/launch"))

    def _remove_prefix(self, name: str, manifest: Manifest | None) -> bool:
        last_use = self._last_use(name)
        hidden = f"{self._cache.place('tmp')}/expired.{name}"
        os.rename(self._cache.prefix(name), hidden)
        live = leased(self._cache, self._now)
        if name in live or _EVERYTHING in live:  # somebody started while it was still there
            os.rename(hidden, self._cache.prefix(name))
            return False
        for digest in manifest.digests() if manifest else ():
            for listing in self._cache.listings(digest):
                if _mtime(listing):
                    _touch(listing, max(last_use, _mtime(listing)))
        remove_tree(hidden)
        _unlink(self._cache.used(name))
        return True

    def layers(self) -> tuple[str, ...]:
        """Remove layers that no prefix contains and nobody has used for long, and what has no listing."""
        removed = set()
        for kind in ("layers", "linked"):
            names = os.listdir(self._cache.place(kind))
            for digest in {name.partition(".")[0] for name in names} - self._kept:
                place = f"{self._cache.place(kind)}/{digest}"
                limit = self._code_max_age if _is_code(f"{place}.listing") else self._max_age
                if self._age(_mtime(f"{place}.listing")) > limit:
                    _unlink(f"{place}.listing")  # first: without it the layer is not there
                    self._remove(place)
                    removed.add(digest)
        return tuple(sorted(removed))

    def kits(self) -> tuple[str, ...]:
        """Remove kits that nobody has used for long."""
        removed = []
        for name in os.listdir(self._cache.place("kits")):
            path = f"{self._cache.place('kits')}/{name}"
            if sys.executable.startswith(f"{path}/"):  # an agent may run in a kit that nothing else is started from
                _touch(self._cache.used(name), self._now)
            if self._age(max(_mtime(self._cache.used(name)), _mtime(path))) > self._max_age:
                self._remove(path)
                _unlink(self._cache.used(name))
                removed.append(name)
        return tuple(sorted(removed))

    def archives(self) -> tuple[str, ...]:
        """Remove archives that nobody has used for a day, whole or not. The layers themselves stay longer."""
        folder = self._cache.place("archives")
        old = [n for n in os.listdir(folder) if self._age(_mtime(f"{folder}/{n}")) > self._code_max_age]
        for name in old:
            _unlink(f"{folder}/{name}")
        return tuple(sorted(old))

    def clusters(self) -> tuple[str, ...]:
        """Remove what belongs to clusters that have no process here any more."""
        found: dict[str, list[str]] = {}
        for kind in ("deltas", "agents"):
            for name in os.listdir(self._cache.place(kind)):
                if _CLUSTER.fullmatch(name.partition(".")[0]):  # Dask makes folders of its own in there
                    found.setdefault(name.partition(".")[0], []).append(f"{self._cache.place(kind)}/{name}")
        live = leased_clusters(self._cache, self._now)
        removed = []
        for cluster, paths in found.items():
            if cluster in live or _EVERYTHING in live or is_held(f"{self._cache.place('agents')}/{cluster}.lock"):
                self._keep_deltas(cluster)
                continue
            if self._age(max(map(_mtime, paths))) > STARTING.total_seconds():
                for path in paths:
                    self._remove(path)
                removed.append(cluster)
        return tuple(sorted(removed))

    def _keep_deltas(self, cluster: str) -> None:
        """What a delta was made of is kept like what a prefix was made of: it is verified with that."""
        folder = f"{self._cache.place('deltas')}/{cluster}"
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            manifest = _manifest(f"{folder}/{name}")
            self._kept.update(manifest.digests() if manifest else ())

    def _remove(self, path: str) -> None:
        hidden = f"{self._cache.place('tmp')}/expired.{os.path.basename(path)}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, hidden)
            if os.path.isdir(hidden):
                remove_tree(hidden)
            else:
                os.unlink(hidden)

    def _age(self, mtime: float) -> float:
        return self._now - mtime


def _manifest(prefix: str) -> Manifest | None:
    try:
        with open(f"{prefix}/manifest.json", "rb") as file:
            return msgspec.json.decode(file.read(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None


def _note(cache: NodeCache) -> None:
    """Leave the time of this pass for bootstrap.sh, which has one prune where that was long ago.

    It counts in seconds since boot, as a shell can read them without a program.
    """
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/uptime", encoding="ascii") as file:
            seconds = int(file.read().partition(".")[0])
        with open(f"{cache.root}/pruned", "w", encoding="ascii", opener=_private) as file:
            file.write(f"{seconds}\n")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _is_code(listing: str) -> bool:
    head = f"{LISTING_MAGIC}code/".encode()
    try:
        with open(listing, "rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


def _mtime(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _touch(path: str, when: float) -> None:
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        os.utime(path, (when, when))


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
