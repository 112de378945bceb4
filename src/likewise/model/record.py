"""The text of a `RECORD` (recording installed projects, PEP 376 and 627): a claim about files, not a fact."""

from __future__ import annotations

import csv
import io
from binascii import a2b_base64
from collections.abc import Iterable, Iterator
from typing import cast

from likewise.model.digest import Digest, digest_from_record

Claim = tuple[str, Digest | None, int]
"""One line: a path relative to the site directory, as written, the sha256 and the size (bytes) it claims; None and -1
where it claims nothing that can be used."""


def parse_record(text: str) -> list[Claim]:
    """Every file that a `RECORD` names, in its order, repetitions included. Directories and empty lines are left out.

    Quoted fields follow the rules of csv. Where nothing is quoted the last two commas separate the fields, so that a
    path with an unquoted comma, as careless tools write it, is still read as it was meant.

    Raises
    ------
    ValueError
        When quotes don't match.
    """
    rows: Iterable[list[str]]
    if '"' in text:
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error as error:
            raise ValueError(str(error)) from error
    else:
        rows = (line.rsplit(",", 2) for line in text.replace("\r\n", "\n").split("\n"))
    named = [row for row in rows if row and row[0] and not row[0].endswith("/")]
    digests = _digests([row[1] if len(row) > 1 else "" for row in named])
    sizes = [int(row[2]) if len(row) > 2 and row[2].isdecimal() and len(row[2]) < 19 else -1 for row in named]
    return list(zip([row[0] for row in named], digests, sizes, strict=True))


def _digests(fields: list[str]) -> list[Digest | None]:
    """`digest_from_record` for all fields; those in the form that all tools write are decoded in one go."""
    usual = [len(f) == 50 and f.startswith("sha256=") for f in fields]
    # 43 digits and one more are 33 bytes, the last without meaning.
    text = "A".join([f[7:] for f, is_usual in zip(fields, usual, strict=True) if is_usual] + [""])
    try:
        raw = a2b_base64(text.encode("ascii").translate(_URL_SAFE)).hex()
    except ValueError:
        raw = ""
    if len(raw) != 66 * sum(usual):  # a strange character among them
        return [digest_from_record(field) for field in fields]
    known = cast("Iterator[Digest]", iter([raw[i : i + 64] for i in range(0, len(raw), 66)]))
    return [next(known) if is_usual else digest_from_record(f) for f, is_usual in zip(fields, usual, strict=True)]


_URL_SAFE = bytes.maketrans(b"-_", b"+/")
