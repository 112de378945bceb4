"""URLs of indexes: the credential in them, what of them may be shown, and which of them belong together."""

from __future__ import annotations

import ipaddress
import os
import re
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote, unquote, unquote_plus, urlsplit, urlunsplit

from likewise.indexes.default import default_index
from likewise.indexes.secret import Credential, credential

HIDDEN = "***"
"""Stands in a URL where a token was."""

_PYTORCH = re.compile(r"(?:/.*)?/whl(?:/(?:nightly|test))?(?:/(?P<label>cpu|cu\d+|rocm[\d.]+|xpu))?/?")
"""The paths of PyTorch's indexes: they have old versions of many distributions beside PyTorch's own."""

_PORTS = {"http": 80, "https": 443}
_RANDOM = re.compile(r"(?=(?:.*[0-9]){4})(?=(?:.*[A-Za-z]){4})([A-Za-z0-9]{16,}|[A-Za-z0-9_-]{20,})")
_MIXED = re.compile(r"(?=.*[a-z])(?=.*[A-Z])((?=.*[0-9])[A-Za-z0-9]{12,}|[A-Za-z0-9_-]{16,})")
_MARKED = re.compile(r"(?=.*[A-Z0-9])(gl[a-z]{1,6}t-|(gh[a-z]|github_pat|npm|hf|dckr_pat)_|eyJ)[A-Za-z0-9_.-]{12,}")
"""What GitLab, GitHub, npm, Hugging Face and Docker put before their tokens, and how each JSON web token begins."""
_WORDS = re.compile(
    r"(?<![^_-])[A-Za-z]{1,5}(?![^_-])|[A-Z]?(?=[a-z]*[aeiouy])[a-z]{3,}|[A-Z][a-z]{2,}|[A-Z]{4,}|[^A-Za-z]+"
)
"""What names of people's own making consist of: words, each with a capital perhaps, short parts, numbers."""


def as_url(text: str, folder: Path) -> str:
    """`text` as a URL: a path, relative to `folder`, becomes a ``file:`` URL."""
    if "://" in text or text.startswith("file:"):
        return text
    return Path(os.path.abspath(folder / os.path.expanduser(text))).as_uri()


def without_credential(url: str) -> tuple[str, Credential | None]:
    """`url` without user info and fragment, and the credential that the user info was.

    Raises
    ------
    ValueError
        The URL can't be understood. The message has nothing of it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("This is no URL.") from None
    if not parts.scheme or not (host or parts.scheme == "file"):
        raise ValueError("This is no URL.")
    clean = urlunsplit((parts.scheme, _netloc(host, port), parts.path, parts.query, ""))
    if parts.username is None or not (parts.username or parts.password):
        return clean, None
    password = None if parts.password is None else unquote(parts.password)
    return clean, credential(unquote(parts.username), password)


def with_credential(url: str, given: Credential | None) -> str:
    """`url`, which has none, with `given` as user info, which can't be a bearer token."""
    if given is None or given.bearer:
        return url
    info = quote(given.user.reveal(), safe="")
    info += f":{quote(given.password.reveal(), safe='')}" if given.password else ""
    return url.replace("://", f"://{info}@", 1)


def plain(url: str) -> str:
    """`url` without user info, query and fragment; "" when it can't be understood, and so not be cleaned."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, _netloc(parts.hostname or "", parts.port), parts.path, "", ""))
    except ValueError:
        return ""


def printable(url: str) -> str:
    """An index's `url` as it may be shown and stored: `plain`, and tokens in its path `HIDDEN`."""
    parts = urlsplit(plain(url))
    segments = parts.path.split("/")
    for position in secret_segments(plain(url)):
        segments[position] = HIDDEN
    return urlunsplit(parts._replace(path="/".join(segments)))


def secret_segments(url: str) -> tuple[int, ...]:
    """Positions in the path of an index's `url`, split at ``/``, that hold a token, or look as if they did.

    Servers that know no other way put it behind ``/t/``; anything else that looks random is taken for one, which costs
    nothing but a less telling name. Paths of files (``/packages/3f/2a/9c…``) are not asked about.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        return ()
    segments = parts.path.split("/")
    behind = {i + 1 for i, one in enumerate(segments[:-1]) if one == "t" and segments[i + 1]}
    random = {i for i, one in enumerate(segments) if _looks_random(one)}
    return tuple(sorted(behind | random))


def _looks_random(segment: str) -> bool:
    """Whether it looks like a token: many digits, or both cases in an order that no words have."""
    if _RANDOM.fullmatch(segment) or _MARKED.fullmatch(segment):
        return True
    return _MIXED.fullmatch(segment) is not None and len(_WORDS.sub("", segment)) >= 3


def secret_parts(url: str) -> int:
    """How many parts the path of an index's `url` has up to and with its last token; 0 when it has no token."""
    positions = secret_segments(url)
    return positions[-1] + 1 if positions else 0


def secret_texts(url: str) -> tuple[str, ...]:
    """The tokens in the path and the query of an index's `url`."""
    parts = urlsplit(url)
    segments = parts.path.split("/")
    return (*(segments[position] for position in secret_segments(url)), *_query_texts(parts.query))


def _query_texts(query: str) -> tuple[str, ...]:
    """`query` and all that it gives values, as written and as meant: which of them is a token, nobody can tell."""
    pairs = [one.partition("=") for one in re.split("[&;]", query)]
    values = [value if equals else name for name, equals, value in pairs]
    return tuple(text for one in (query, *values) for text in (one, unquote(one), unquote_plus(one)) if text)


def realm(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what a credential is given for (RFC 7617), and never sent beyond."""
    try:
        parts = urlsplit(url)
        return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "", "", 0


def common_path(one: str, other: str) -> int:
    """How many leading parts the paths of two URLs share."""
    pairs = zip(urlsplit(one).path.split("/"), urlsplit(other).path.split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def is_public(url: str) -> bool:
    """Whether anybody can publish on this index: the usual one, what belongs to it, and what calls itself a mirror."""
    host, usual = realm(url)[1], realm(default_index())[1]
    return bool(usual) and (f".{host}".endswith(f".{usual}") or host.partition(".")[0] in ("mirror", "mirrors"))


def is_of_pytorch(url: str) -> bool:
    """Whether this is one of PyTorch's indexes: each has the builds for one accelerator, and says so in its path."""
    return _PYTORCH.fullmatch(urlsplit(url).path) is not None


def pytorch_build(url: str) -> str:
    """The label (``cu126``) of the builds that one of PyTorch's indexes has, "" for all, or no such index."""
    found = _PYTORCH.fullmatch(urlsplit(url).path)
    return (found["label"] or "") if found else ""


def is_of_this_machine(url: str) -> bool:
    """Whether no other machine has that address."""
    host = (urlsplit(url).hostname or "localhost").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _netloc(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"
