"""What a store says of itself, what a key is, and the pure rule for what expires."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import msgspec

from likewise.errors import StoreError
from likewise.model.keys import LEASES, WANTED

RESERVED = frozenset({"tmp", LEASES, "lock", WANTED})
"""Names in a store's directory that are no kind of content."""

_KEY = re.compile(r"[a-z][a-z-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")


def check_key(key: str) -> str:
    """`key`, which is also a relative path, when it may be one (see `likewise.model.keys`).

    Raises
    ------
    StoreError
        When it may not.
    """
    if not _KEY.fullmatch(key) or key.partition("/")[0] in RESERVED:
        raise StoreError(f"{key!r} can't be a key of the store.")
    return key


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One content of a store. `used` is the time of its last use, in seconds since the epoch; `size` in bytes."""

    key: str
    size: int
    used: float


class KindInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How many items of one kind there are, and their bytes."""

    items: int
    bytes: int


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The value of ``likewise cache info``.

    Attributes
    ----------
    root : str
    items, bytes : int
        Number and bytes of all content.
    by_kind : dict of str to KindInfo
        By the first component of the key: ``layers``, ``manifests``, ``kits``, ``notes``, …
    leased : int
        Items that a living cluster uses, so that `prune` keeps them.
    leases : int
        Living leases.
    oldest_use : float or None
        Seconds since the epoch at which the least recently used item was used.
    """

    root: str
    items: int
    bytes: int
    by_kind: dict[str, KindInfo]
    leased: int
    leases: int
    oldest_use: float | None


class PruneReport(msgspec.Struct, frozen=True, kw_only=True):
    """The value of ``likewise cache prune``.

    Attributes
    ----------
    removed : int
        Items removed.
    freed_bytes : int
        Bytes freed, those of abandoned temporary files included.
    kept_leased : int
        Items that had to go by age or size and stayed because a living cluster uses them.
    kept_recent : int
        The same, for those that were used within the grace time.
    swept : int
        Temporary files and folders removed that a killed process had left.
    """

    removed: int
    freed_bytes: int
    kept_leased: int
    kept_recent: int
    swept: int


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What `choose_expired` says: what to remove, and what should go but is leased, or was used just now."""

    remove: tuple[Item, ...]
    leased: tuple[Item, ...]
    recent: tuple[Item, ...]


def choose_expired(
    items: Iterable[Item],
    *,
    now: float,
    max_age: float,
    max_size: int | None,
    grace: float,
    leased: Collection[str],
) -> Choice:
    """Decide what goes, least recently used first.

    Parameters
    ----------
    items : iterable of Item
    now, max_age, grace : float
        Seconds. What was used within `max_age` stays unless the size limit wants it; within `grace`, always.
    max_size : int or None
        Bytes that may remain. Leased and very recent content counts, and may exceed it.
    leased : collection of str
        Keys in use.
    """
    ordered = sorted(items, key=lambda item: (item.used, item.key))
    excess = sum(item.size for item in ordered) - max_size if max_size is not None else 0
    remove: list[Item] = []
    spared: list[Item] = []
    recent: list[Item] = []
    for item in ordered:
        age = max(0.0, now - item.used)  # a clock that was set back must not make content immortal
        if age < max_age and excess <= 0:
            continue
        if item.key in leased:
            spared.append(item)
        elif age < grace:
            recent.append(item)
        else:
            remove.append(item)
            excess -= item.size
    return Choice(remove=tuple(remove), leased=tuple(spared), recent=tuple(recent))
