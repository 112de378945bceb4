"""Which files other machines may be told of: those that anybody may have, at addresses that are no secret."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from likewise.indexes.http import Trouble
from likewise.indexes.pages import project_page
from likewise.indexes.secret import Secret
from likewise.indexes.urls import is_public
from likewise.indexes.values import Index, Indexes
from likewise.model.plan import LockedFile

PATIENCE = 10.0
"""Seconds without a sign of life after which an index is given up."""

AT_ONCE = 8
"""Questions to private indexes at the same time."""


def open_to_nodes(files: Iterable[LockedFile], indexes: Indexes) -> frozenset[LockedFile]:
    """Those of `files` that nodes may be told of, to fetch them where they are, without any credential.

    A private index may have its files on another host, at addresses that are secrets themselves. So it does not suffice
    that their own host wants no credential (`Indexes.open_to_all`): the index that names a file must want none either,
    unless the file lies with a public index, where anybody finds it. Where nothing tells which index names it, private
    ones are asked whether they have that name; an index that does not say counts as one that has it.

    Parameters
    ----------
    files : iterable of LockedFile
    indexes : Indexes
    """
    private = {index.name: url for index, url in indexes.true_pages() if _is_private(index, url, indexes)}
    names = {index.name for index, _ in indexes.true_pages()}

    def is_open(file: LockedFile) -> bool:
        place = indexes.index_of(file.url)
        if not indexes.open_to_all(file) or place in private:
            return False
        if is_public(file.url):
            return True
        if named := file.index if file.index in names else place:
            return named not in private
        return not any(_has(url, file, indexes) for url in private.values())

    asked = tuple(dict.fromkeys(files))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return frozenset(file for file, is_it in zip(asked, pool.map(is_open, asked), strict=True) if is_it)


def _is_private(index: Index, url: Secret, indexes: Indexes) -> bool:
    """Whether somebody needs a credential for it, or a token in its address."""
    return url.reveal() != index.url or bool(indexes.authorization(url.reveal()))


def _has(url: Secret, file: LockedFile, indexes: Indexes) -> bool:
    """Whether the index at `url` has the name of which this is a file."""
    try:
        return bool(project_page(url, file.filename.partition("-")[0], indexes, timeout=PATIENCE))
    except Trouble as trouble:
        return trouble.status != 404
