"""A pinned file, fetched with the credentials of its index, and checked."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from likewise.errors import FetchError, LayerError
from likewise.indexes.http import Trouble, as_trouble, ask
from likewise.indexes.pages import project_page
from likewise.indexes.secret import Secret
from likewise.indexes.urls import realm
from likewise.indexes.values import Indexes
from likewise.model.plan import LockedFile

PATIENCE = 30.0
"""Seconds without a sign of life after which a server is given up."""

MOST = 32 * 2**30
"""Bytes that a file may have whose size the index does not tell."""

PAUSES = (0.2, 1.0)
"""Seconds before a file is asked for again, after something that may have passed."""

_CHUNK = 2**20
_ELSEWHERE = (401, 403, 404, 410)
"""Answers of a place that may have moved, or that wants a token which only the index's page has."""
_SHA256 = re.compile(r"[0-9a-f]{64}")

Advance = Callable[[int], None]
"""Called with the number of further bytes that have arrived."""


def fetch(
    file: LockedFile, into: Path, *, indexes: Indexes, timeout: float = PATIENCE, advance: Advance | None = None
) -> Path:
    """Bring `file` into the folder `into`.

    It appears under its name when all of it has arrived and has the pinned sha256; one that is there already, with
    that sha256, is not fetched again. Where its address does not answer for it, the index's page is asked for another
    one: addresses with a token in their query change from hour to hour, and are kept nowhere.

    Parameters
    ----------
    file : LockedFile
    into : Path
        Made if need be.
    indexes : Indexes
        They know the credentials. One that fits is sent to the scheme, host and port it is for, and nowhere else.
    timeout : float, default 30
        Seconds without a sign of life after which the server is given up.
    advance : callable, optional
        Told of each piece that has arrived, in bytes.

    Returns
    -------
    Path

    Raises
    ------
    FetchError
        It could not be had, or is another one than was pinned.
    LayerError
        It can't be written into that folder: the disk is full, for one.
        In either case nothing is left behind.
    """
    _check(file)
    place = into / file.filename
    try:
        into.mkdir(parents=True, exist_ok=True)
        if not (place.is_file() and _sha256_of(place) == file.sha256):
            _bring(file, place, indexes, timeout, advance or (lambda amount: None))
    except OSError as error:  # of this machine: what a server does is a `Trouble`
        raise LayerError(
            f"{file.filename} can't be kept ({error.strerror or error}).",
            where=str(into),
            todo="Make room there, or point LIKEWISE_CACHE to another folder.",
        ) from error
    return place


def _bring(file: LockedFile, place: Path, indexes: Indexes, timeout: float, advance: Advance) -> None:
    """Fetch `file` to `place`, where it appears in one step."""
    handle, temporary = tempfile.mkstemp(prefix=".fetch-", dir=place.parent)
    try:
        with os.fdopen(handle, "w+b", buffering=0) as target:
            trouble = _from_anywhere(file, target, indexes, timeout, advance)
        if trouble is not None:
            raise _failure(file, trouble, indexes)
        os.replace(temporary, place)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _check(file: LockedFile) -> None:
    """Its name becomes a path, so it must be one and no more."""
    if not re.fullmatch(r"[A-Za-z0-9_][^/\\:\0]*", file.filename):
        raise FetchError("That is no name of a distribution's file.", where=file.filename)
    if not _SHA256.fullmatch(file.sha256):
        raise FetchError(
            "It has no sha256 to be checked against, so it is not fetched.",
            where=file.filename,
            todo="Use an index that tells the hashes of its files.",
        )


def _from_anywhere(
    file: LockedFile, target: IO[bytes], indexes: Indexes, timeout: float, advance: Advance
) -> Trouble | None:
    """Fill `target`; what was in the way, or None."""
    trouble = _patiently(file, Secret(indexes.true_url(file.url)), target, indexes, timeout, advance)
    if trouble is None or trouble.status not in _ELSEWHERE:
        return trouble
    for url in _addresses(file, indexes, timeout):
        second = _patiently(file, url, target, indexes, timeout, advance)
        if second is None:
            return None
    return trouble


def _addresses(file: LockedFile, indexes: Indexes, timeout: float) -> Iterator[Secret]:
    """Where the indexes' pages say that this very file is."""
    project = file.filename.partition("-")[0]
    for _, index in indexes.true_pages(file.index):
        if realm(index.reveal())[0] not in ("http", "https"):
            continue
        try:
            links = project_page(index, project, indexes, timeout=timeout)
        except Trouble:
            continue
        for link in links:
            if link.filename == file.filename and link.sha256 in ("", file.sha256):
                yield link.url


def _patiently(
    file: LockedFile, url: Secret, target: IO[bytes], indexes: Indexes, timeout: float, advance: Advance
) -> Trouble | None:
    """Try one address, more than once where that may help; what was in the way, or None."""
    for pause in (*PAUSES, None):
        try:
            _copy(file, url, target, indexes, timeout, advance)
            return None
        except Trouble as raised:
            trouble = raised
        if pause is None or not trouble.passing:
            break
        time.sleep(pause)
    return trouble


def _copy(file: LockedFile, url: Secret, target: IO[bytes], indexes: Indexes, timeout: float, advance: Advance) -> None:
    """Write what is at `url` to `target`, anew, and check it."""
    target.seek(0)
    target.truncate()
    digest, size = hashlib.sha256(), 0
    most = MOST if file.size is None else file.size
    pieces = _Pieces(url, indexes, timeout)
    for data in pieces:
        size += len(data)
        if size > most:
            raise Trouble(f"more bytes arrive than the {most} that were pinned")
        digest.update(data)
        _write(target, data)
        advance(len(data))
    if digest.hexdigest() == file.sha256:
        return
    missing = pieces.missing or (file.size or 0) - size
    if missing > 0:
        raise Trouble(f"only {size} bytes arrived, {missing} are missing", passing=True)
    raise Trouble(f"its sha256 is {digest.hexdigest()}")


def _write(target: IO[bytes], data: bytes) -> None:
    """All of `data`: where a disk is nearly full, a part of it may go."""
    left = memoryview(data)
    while left:
        left = left[target.write(left) :]


class _Pieces:
    """What is at `url`, piece by piece; all that goes wrong there is a `Trouble`, and nothing else is."""

    def __init__(self, url: Secret, indexes: Indexes, timeout: float) -> None:
        self._url, self._indexes, self._timeout = url, indexes, timeout
        self.missing = 0  # bytes that were promised and did not come: http.client does not complain

    def __iter__(self) -> Iterator[bytes]:
        try:
            with _opened(self._url, self._indexes, self._timeout) as source:
                while data := source.read(_CHUNK):
                    yield data
                self.missing = getattr(source, "length", None) or 0
            return
        except (OSError, http.client.HTTPException) as error:
            trouble = as_trouble(error, self._timeout)
            trouble.passing = trouble.passing or isinstance(error, http.client.IncompleteRead)
        raise trouble


def _opened(url: Secret, indexes: Indexes, timeout: float) -> contextlib.AbstractContextManager[IO[bytes]]:
    parts = urlsplit(url.reveal())
    if parts.scheme == "file":
        return open(url2pathname(parts.path), "rb")
    return ask(url.reveal(), indexes, timeout=timeout)


def _failure(file: LockedFile, trouble: Trouble, indexes: Indexes) -> FetchError:
    shown = indexes.printable(file.url)
    todo = "See whether the index answers, and try again."
    if trouble.why.startswith("its sha256"):
        todo = f"Pinned is {file.sha256}: find out who changed it, and plan anew only if you trust the change."
    elif trouble.status in _ELSEWHERE and file.index and not indexes.true_pages(file.index):
        todo = (
            f"It was planned with the index {file.index}, which nothing names here: set UV_INDEX to its URL on "
            f"{urlsplit(shown).netloc}, with the credential in it, or write that into netrc."
        )
    elif trouble.status == 401:
        todo = f"Looked for one in: {indexes.why_no_credential(file.url)}."
    elif trouble.status in _ELSEWHERE:
        todo = "It may have been removed since the plan was made: plan anew."
    return FetchError(
        f"{file.filename} could not be had from {shown}: {trouble.why}.",
        where=file.index,
        todo=todo,
        details={"filename": file.filename, "url": shown, "status": trouble.status},
    )


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()
