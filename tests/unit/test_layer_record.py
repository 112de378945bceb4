"""The text of a RECORD, as many tools write it."""

from __future__ import annotations

import pytest

from likewise.model.record import parse_record

HASH = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a.py,{HASH},0\n", [("a.py", EMPTY)]),
        (f"a.py,{HASH},0\r\nb.py,,\r\n", [("a.py", EMPTY), ("b.py", None)]),
        ("a.py,,\n\n\n", [("a.py", None)]),
        ("a.py", [("a.py", None)]),
        (f"a.py,{HASH}=,0\n", [("a.py", EMPTY)]),
        (f"a.py,{HASH.replace('sha256', 'SHA256')},0\n", [("a.py", EMPTY)]),
        ("a.py,md5=abc,0\nb.py,sha256=short,0\n", [("a.py", None), ("b.py", None)]),
        (f"a.py,{HASH},0\nb.py,sha256=47DEQpj8HBSa!_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n",
         [("a.py", EMPTY), ("b.py", None)]),
        (f'"a,b.py",{HASH},0\nc.py,{HASH},0\n', [("a,b.py", EMPTY), ("c.py", EMPTY)]),
        (f'"a""b.py",{HASH},0\n', [('a"b.py', EMPTY)]),
        ('"a\nb.py",,\n', [("a\nb.py", None)]),
        (f"a,b.py,{HASH},0\n", [("a,b.py", EMPTY)]),
        (f"a/,,\nb.py,{HASH},0\n", [("b.py", EMPTY)]),
        (f"a.py,{HASH},0\na.py,,\n", [("a.py", EMPTY), ("a.py", None)]),
        (f"é \u2028.py,{HASH},0\n", [("é \u2028.py", EMPTY)]),
        ("", []),
    ],
)  # fmt: skip
def test_records_of_all_kinds_are_read(text: str, expected: list[tuple[str, str | None]]) -> None:
    """Quoting, line ends, missing and foreign hashes, directories, repetitions, characters that end lines elsewhere."""
    assert [(name, digest) for name, digest, _ in parse_record(text)] == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [("0", 0), ("17", 17), ("", -1), ("-1", -1), ("1.5", -1), ("0x10", -1), ("9" * 5000, -1), ("²", -1)],
)
def test_a_size_that_is_no_number_is_none(field: str, expected: int) -> None:
    """Whatever stands in the field of the size, reading a RECORD goes on."""
    assert parse_record(f"a.py,{HASH},{field}\n") == [("a.py", EMPTY, expected)]


def test_a_line_without_a_size_has_none() -> None:
    """Lines may end after the hash."""
    assert parse_record(f"a.py,{HASH}\n") == parse_record(f'"a.py",{HASH}\n') == [("a.py", EMPTY, -1)]


def test_quotes_that_do_not_match_are_an_error() -> None:
    """Half a RECORD is no list of files."""
    with pytest.raises(ValueError, match="end of data"):
        parse_record('"a.py,,\nb.py,,\n')
