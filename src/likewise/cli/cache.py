"""``likewise cache``: what is kept on this machine, and removing it."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from likewise.cli import options
from likewise.console.text import counted, format_age, format_bytes, table
from likewise.errors import UsageError

if TYPE_CHECKING:
    from likewise.cluster.caches import CacheInfo, CachePruned

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.group()
def command() -> None:
    """The store of layers and the node caches on this machine."""


@command.command()
@options.as_json
def info(json: bool) -> None:
    """What is kept, where, and how much of it."""
    from likewise.cluster.caches import cache_info

    found = cache_info()
    options.give(found, describe_info(found, now=time.time()), json=json)


@command.command()
@click.option("--all", "everything", is_flag=True, help="Everything that no living cluster uses, however young.")
@click.option("--older-than", metavar="AGE", help="What was last used longer ago than this: 90m, 12h, 7d.")
@options.as_json
def prune(everything: bool, older_than: str | None, json: bool) -> None:
    """Remove what has expired, and what killed processes left behind."""
    if everything and older_than:
        raise UsageError("--all and --older-than exclude each other.", todo="Give one of them.")
    age = parse_age(older_than) if older_than else None
    from likewise.cluster.caches import prune_caches

    pruned = prune_caches(age, everything=everything)
    options.give(pruned, describe_pruned(pruned), json=json)


def describe_info(info: CacheInfo, *, now: float) -> str:
    """The caches for people."""
    store = info.store
    used = f", least recently used {format_age(now - store.oldest_use)} ago" if store.oldest_use else ""
    lines = [
        options.title(f"store: {counted(store.items, 'item')}, {format_bytes(store.bytes)}{used}"),
        f"in {store.root}",
        f"{counted(store.leased, 'item')} in use by {counted(store.leases, 'living cluster')}",
    ]
    kinds = [(kind, f"{k.items:,}", format_bytes(k.bytes)) for kind, k in store.by_kind.items()]
    lines += [table(kinds, right=[1, 2])] if kinds else []
    for node in info.nodes:
        what = f"{counted(node.prefixes, 'prefix', 'prefixes')}, {counted(node.layers, 'layer')}"
        lines += ["", options.title(f"node cache: {what}, {format_bytes(node.bytes)}"), f"in {node.root}"]
        lines += [f"{counted(node.in_use, 'prefix', 'prefixes')} in use"]
    return "\n".join(lines)


def describe_pruned(pruned: CachePruned) -> str:
    """What was removed, for people."""
    store = pruned.store
    text = f"store: removed {counted(store.removed, 'item')}, {format_bytes(store.freed_bytes)} freed"
    if store.kept_leased:
        text += f"; {counted(store.kept_leased, 'item')} kept, a living cluster uses them"
    lines = [text]
    for node in pruned.nodes:
        what = f"{counted(node.prefixes, 'prefix', 'prefixes')} and {counted(node.layers, 'layer')}"
        lines.append(f"{node.root}: removed {what}, {format_bytes(node.freed_bytes)} freed")
    return "\n".join(lines)


def parse_age(text: str) -> timedelta:
    """``90m``, ``12h``, ``7d``, ``3600`` (seconds) as a duration.

    Raises
    ------
    UsageError
        When it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise UsageError(f"{text!r} is no age.", todo="Write it like 90m, 12h or 7d.")
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
