"""The pages of an index: what files it has for one project (PEP 503, PEP 691)."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin, urlsplit

import msgspec
from packaging.utils import canonicalize_name

from likewise.indexes.http import Trouble, as_trouble, ask, content_type, whole
from likewise.indexes.secret import Secret
from likewise.indexes.values import Indexes

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
MOST = 256 * 2**20
"""No page has more bytes."""

WITHIN = 300.0
"""Seconds in which all of a page has to come."""

_HTML = ("text/html", "application/vnd.pypi.simple.v1+html", "application/xhtml+xml")
_JSON = "application/vnd.pypi.simple.v1+json"
_HASH = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Link:
    """One file of a page: its name, where it is (with whatever token that has), and its sha256, "" if not told."""

    filename: str
    url: Secret = field(repr=False)
    sha256: str = ""


class _File(msgspec.Struct):
    filename: str
    url: str
    hashes: dict[str, str] = msgspec.field(default_factory=dict)


class _Page(msgspec.Struct):
    files: list[_File]
    meta: dict[str, object] = msgspec.field(default_factory=dict)


def project_page(index: Secret, project: str, indexes: Indexes, *, timeout: float) -> tuple[Link, ...]:
    """The files that an index offers for `project`.

    Parameters
    ----------
    index : Secret
        The index's true URL.
    project : str
        A distribution's name.
    indexes : Indexes
    timeout : float
        Seconds without a sign of life.

    Raises
    ------
    Trouble
        It does not answer, or with something else than such a page.
    """
    parts = urlsplit(index.reveal())
    url = parts._replace(path=f"{parts.path.rstrip('/')}/{quote(canonicalize_name(project))}/").geturl()
    try:
        with ask(url, indexes, timeout=timeout, accept=ACCEPT) as response:
            data = whole(response, MOST, WITHIN)
            return read_page(data, content_type(response.headers), response.url)
    except (OSError, http.client.HTTPException) as error:
        trouble = as_trouble(error, timeout)
    raise trouble


def read_page(data: bytes, kind: str, url: str) -> tuple[Link, ...]:
    """The files that a page lists.

    Parameters
    ----------
    data : bytes
    kind : str
        Its content type, without parameters.
    url : str
        Where it was: links may be relative to it.

    Raises
    ------
    Trouble
        It is no page of an index.
    """
    try:
        if kind == _JSON:
            return _read_json(data, url)
        if kind in _HTML:
            parser = _Anchors()
            parser.feed(data.decode("utf-8", "replace"))
            base = urljoin(url, parser.base)
            return tuple(_link(urljoin(base, href)) for href in parser.links)
    except ValueError as error:  # its words have the URL
        raise Trouble("it answers with a page that has a link which is no URL") from error
    raise Trouble(f"it answers with {kind or 'something'}, which is no page of an index")


def _read_json(data: bytes, url: str) -> tuple[Link, ...]:
    try:
        page = msgspec.json.decode(data, type=_Page)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: nested too deeply
        page = None
    if page is None or not str(page.meta.get("api-version", "1.0")).startswith("1."):
        raise Trouble("it answers with JSON that is no page of an index")
    return tuple(Link(file.filename, Secret(urljoin(url, file.url)), _sha256(file.hashes)) for file in page.files)


def _sha256(hashes: Mapping[str, str]) -> str:
    return hashes.get("sha256", "").lower()


def _link(url: str) -> Link:
    parts = urlsplit(url)
    digest = _HASH.search(parts.fragment)
    filename = unquote(parts.path.rpartition("/")[2])
    return Link(filename, Secret(parts._replace(fragment="").geturl()), digest[1].lower() if digest else "")


class _Anchors(HTMLParser):
    """Collects where the anchors of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        href = dict(attrs).get("href")
        if tag == "base" and href and not self.base:
            self.base = href
        elif tag == "a" and href:
            self.links.append(href)
