"""Numbers, times and tables as people read them. Pure, and light enough for ``likewise --help``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_UNITS = ("B", "kB", "MB", "GB", "TB")


def format_bytes(count: float) -> str:
    """`count` bytes with a decimal unit and about three digits: ``53 MB``, ``1.42 GB``."""
    value, unit = float(count), 0
    while round(value, 1) >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.{0 if unit == 0 or value >= 100 else 1 if value >= 10 else 2}f} {_UNITS[unit]}"


def format_seconds(seconds: float) -> str:
    """A duration: ``0.31 s``, ``12.4 s``, ``3 min 05 s``."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def format_age(seconds: float) -> str:
    """How long ago something was, in one unit: ``moments``, ``12 minutes``, ``5 hours``, ``3 days``."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' * (count != 1)}"
    return "moments"


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 file``, ``2 files``; `plural` where an s is not enough."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def table(rows: Iterable[Sequence[str]], *, head: Sequence[str] = (), right: Iterable[int] = ()) -> str:
    """Aligned columns, two spaces apart; nothing is cut off or wrapped, so that it can be grepped.

    Parameters
    ----------
    rows : iterable of sequence of str
        All of the same length.
    head : sequence of str, optional
        Column titles.
    right : iterable of int, optional
        Columns aligned to the right.
    """
    lines = [list(map(_one_line, row)) for row in ([head] if head else []) + list(rows)]
    if not lines:
        return ""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _one_line(text: str) -> str:
    """`text` without what would break the row or steer the terminal: a file name may hold anything."""
    return "".join(c if c.isprintable() else "�" for c in text)
