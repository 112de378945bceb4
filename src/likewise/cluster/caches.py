"""What likewise keeps on this computer, the store and the nodes' caches: what they hold, and emptying them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec

from likewise.node.cache import open_cache
from likewise.node.expiry import CODE_MAX_AGE, MAX_AGE, leased, prune
from likewise.settings import resolve_settings
from likewise.store.values import PruneReport, StoreInfo
from likewise.sync import open_store


class NodeCacheInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One node cache. `in_use` counts the prefixes that living processes run from; `bytes` is disk space."""

    root: str
    prefixes: int
    layers: int
    bytes: int
    in_use: int


class NodeCachePruned(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed from one node cache."""

    root: str
    prefixes: int
    layers: int
    freed_bytes: int


class CacheInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The value of ``likewise cache info``."""

    store: StoreInfo
    nodes: tuple[NodeCacheInfo, ...]


class CachePruned(msgspec.Struct, frozen=True, kw_only=True):
    """The value of ``likewise cache prune``."""

    store: PruneReport
    nodes: tuple[NodeCachePruned, ...]


def cache_info() -> CacheInfo:
    """What is kept.

    Raises
    ------
    StoreError, NodeError
        When a folder is not the user's own, or can't be read.
    """
    settings = resolve_settings()
    return CacheInfo(store=open_store(settings).info(), nodes=tuple(map(_info, _roots(settings.node))))


def prune_caches(older_than: timedelta | None = None, *, everything: bool = False) -> CachePruned:
    """Remove what has expired, and what killed processes left. What a living cluster uses stays in any case.

    Parameters
    ----------
    older_than : timedelta, optional
        Remove what was last used longer ago than this. Default: what the settings say for the store; for node caches
        24 h where there is code of the user's own, 7 days else.
    everything : bool, default False
        Remove all that is not in use.

    Raises
    ------
    StoreError, NodeError
        When a folder is not the user's own, or can't be changed.
    """
    settings = resolve_settings()
    age = timedelta(0) if everything else older_than
    return CachePruned(
        store=open_store(settings).prune(older_than, everything=everything),
        nodes=tuple(_prune(root, age) for root in _roots(settings.node)),
    )


def _prune(root: str, age: timedelta | None) -> NodeCachePruned:
    before = _disk_usage(root)
    removed = prune(
        open_cache(root),
        max_age=MAX_AGE if age is None else age,
        code_max_age=CODE_MAX_AGE if age is None else age,
    )
    return NodeCachePruned(
        root=root,
        prefixes=len(removed.prefixes),
        layers=len(removed.layers),
        freed_bytes=max(0, before - _disk_usage(root)),
    )


def _info(root: str) -> NodeCacheInfo:
    cache = open_cache(root)
    names = os.listdir(cache.place("layers"))
    return NodeCacheInfo(
        root=root,
        prefixes=len(os.listdir(cache.place("prefixes"))),
        layers=sum(name.endswith(".listing") for name in names),
        bytes=_disk_usage(root),
        in_use=len(leased(cache, time.time())),
    )


def _roots(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        yield from sorted(entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))


def _disk_usage(root: str) -> int:
    """Bytes on the disk beneath `root`, a file with several hard links counted once."""
    seen: set[tuple[int, int]] = set()
    total, folders = 0, [root]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:  # removed meanwhile
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif found.st_nlink == 1 or (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total
