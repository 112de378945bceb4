"""A file's text, or the reason why it has none."""

from __future__ import annotations

from pathlib import Path

from likewise.errors import UsageError
from likewise.model.text import LIMIT, encoding_of


def read_text(path: Path) -> str:
    """The text of `path`: UTF-8, or UTF-16 with a byte order mark, as PowerShell's ``>`` writes it.

    Raises
    ------
    UsageError
        It is not there, no file, too large, empty, or in another encoding.
    """
    try:
        if path.is_dir():
            raise UsageError("This is a folder.", where=str(path), todo="Name a file.")
        with path.open("rb") as stream:
            data = stream.read(LIMIT + 1)
    except OSError as error:
        raise UsageError(f"It can't be read: {error.strerror}.", where=str(path)) from error
    if len(data) > LIMIT:
        raise UsageError(f"It has more than {LIMIT >> 20} MiB.", where=str(path), todo="Name another file.")
    text = _decode(data, path)
    if not text.strip():
        raise UsageError("The file is empty.", where=str(path), todo="Write it again; was the disk full?")
    return text


def _decode(data: bytes, path: Path) -> str:
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"It is no {encoding.upper().removesuffix('-SIG')} text (byte {error.start}).",
            where=str(path),
            todo="Write it as UTF-8.",
        ) from None
    if "\0" in text:
        raise UsageError("It is no text.", where=str(path), todo="Name another file.")
    return text
