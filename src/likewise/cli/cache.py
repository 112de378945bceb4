"""``likewise cache``: what is kept on this machine, and removing it."""

from __future__ import annotations

import re
import time
from datetime import timedelta

import click

from likewise.cli import options
from likewise.console.text import counted, format_age, format_bytes, table
from likewise.errors import UsageError

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.group()
def command() -> None:
    """The store of layers and the node caches on this machine."""


@command.command()
@options.as_json
def info(json: bool) -> None:
    """What is kept, where, and how much of it."""
    from likewise.sync import open_store

    found = open_store().info()
    used = f", least recently used {format_age(time.time() - found.oldest_use)} ago" if found.oldest_use else ""
    lines = [
        options.title(f"{counted(found.items, 'item')}, {format_bytes(found.bytes)}{used}"),
        f"in {found.root}",
        f"{counted(found.leased, 'item')} in use by {counted(found.leases, 'living cluster')}",
    ]
    if found.by_kind:
        lines += ["", table([(k, str(v.items), format_bytes(v.bytes)) for k, v in found.by_kind.items()], right=[1, 2])]
    options.give(found, "\n".join(lines), json=json)


@command.command()
@click.option("--all", "everything", is_flag=True, help="Everything that no living cluster uses, however young.")
@click.option("--older-than", metavar="AGE", help="What was last used longer ago than this: 90m, 12h, 7d.")
@options.as_json
def prune(everything: bool, older_than: str | None, json: bool) -> None:
    """Remove what has expired, and what killed processes left behind."""
    if everything and older_than:
        raise UsageError("--all and --older-than exclude each other.", todo="Give one of them.")
    age = parse_age(older_than) if older_than else None
    from likewise.sync import open_store

    report = open_store().prune(age, everything=everything)
    text = f"removed {counted(report.removed, 'item')}, {format_bytes(report.freed_bytes)} freed"
    if report.kept_leased:
        text += f"; {counted(report.kept_leased, 'item')} kept, a living cluster uses them"
    options.give(report, text, json=json)


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
