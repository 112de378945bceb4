"""The text of a RECORD, as many tools write it."""

from __future__ import annotations

import pytest

from likewise.scan.record import parse_record

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
    assert parse_record(text) == expected


def test_quotes_that_do_not_match_are_an_error() -> None:
    """Half a RECORD is no list of files."""
    with pytest.raises(ValueError, match="end of data"):
        parse_record('"a.py,,\nb.py,,\n')
