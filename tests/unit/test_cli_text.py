"""Numbers, times and tables as people read them."""

from __future__ import annotations

import pytest

from likewise.console.text import counted, format_age, format_bytes, format_seconds, table


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (53_400_000, "53.4 MB"),
        (395_000_000, "395 MB"),
        (999_960, "1.00 MB"),
        (1_420_000_000, "1.42 GB"),
        (2.5e15, "2500 TB"),
    ],
)
def test_bytes_have_three_digits_and_a_decimal_unit(count: float, text: str) -> None:
    """A number of bytes is shown with a decimal unit that leaves about three digits."""
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.004, "0.00 s"),
        (9.99, "9.99 s"),
        (9.999, "10.0 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (185, "3 min 05 s"),
    ],
)
def test_durations_keep_what_matters(seconds: float, text: str) -> None:
    """A duration has hundredths below ten seconds, tenths below a hundred, and minutes beyond."""
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "moments"), (61, "1 minute"), (7200, "2 hours"), (86400, "1 day"), (3e6, "34 days")]
)
def test_ages_are_in_one_unit(seconds: float, text: str) -> None:
    """An age is told in the largest unit that fits."""
    assert format_age(seconds) == text


def test_counts_agree_with_their_nouns() -> None:
    """One thing is singular, none and many are plural, and thousands are separated."""
    assert [counted(n, "file") for n in (0, 1, 30189)] == ["0 files", "1 file", "30,189 files"]
    assert counted(2, "entry", "entries") == "2 entries"


def test_columns_are_aligned() -> None:
    """Columns are as wide as their widest cell, numbers stand to the right, and no line ends with blanks."""
    rows = [("numpy", "12", ""), ("pandas", "3", "modified")]
    assert table(rows, head=("name", "n", ""), right=[1]).splitlines() == [
        "name     n",
        "numpy   12",
        "pandas   3  modified",
    ]


def test_an_empty_table_is_nothing() -> None:
    """No rows and no head make no text."""
    assert table([]) == ""


def test_a_cell_can_not_break_its_row_or_steer_the_terminal() -> None:
    """Line breaks and escape sequences in a file name are replaced."""
    assert table([("a\nb\x1b[31m", "c")]) == "a�b�[31m  c"
