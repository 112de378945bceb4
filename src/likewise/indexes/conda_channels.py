"""Channels of conda, as URLs, and the credentials that reach them: in this process alone.

A token may be in a channel's URL (``/t/TOKEN/``), a user and password too; conda's configuration has such URLs,
anaconda-client's files have tokens for them, mamba keeps credentials in ``~/.mamba/auth/authentication.json``, pixi in
the file that its configuration names, conda-auth in keyring. What else rattler keeps (its own files, keyring, netrc)
rattler finds by itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from likewise.indexes.conda_auth import credentials_of_conda_auth
from likewise.indexes.conda_config import CondaConfig, located, own_place, read_conda_config
from likewise.indexes.conda_mirrors import Mirrors, mirrors_of
from likewise.indexes.conda_tokens import anaconda_tokens, with_anaconda_token
from likewise.indexes.rattler_config import RattlerConfig, read_rattler_config
from likewise.indexes.rattler_store import Stored, kept_by_rattler, read_stored, stored_for
from likewise.indexes.secret import Secret, credential
from likewise.indexes.stated import unreadable
from likewise.model.origins import redact, redact_channel
from likewise.model.snapshot import Problem


@dataclass(frozen=True)
class Channels:
    """Channels, the first one first.

    Attributes
    ----------
    names : tuple of str
        URLs, or names where conda's own place is meant; without credentials.
    places : mapping
        Name -> URL with a token in its path, of those that have one.
    headers : mapping
        URL without credentials, or host with the beginning of a path -> value of ``Authorization``.
    mirrors : mapping
        What is asked in place of URLs that begin so; see `likewise.indexes.conda_mirrors`.
    problems : tuple of Problem
    """

    names: tuple[str, ...]
    places: Mapping[str, Secret] = field(default_factory=dict)
    headers: Mapping[str, Secret] = field(default_factory=dict)
    mirrors: Mirrors = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def reveal(self) -> dict[str, tuple[str, ...]]:
        """What is asked in the place of channels, with tokens and credentials: `places`, and `mirrors` before them."""
        places = {name: (place.reveal(),) for name, place in self.places.items()}
        return places | {url: tuple(one.reveal() for one in mirrors) for url, mirrors in self.mirrors.items()}

    def authorization(self, host: str, path: str) -> dict[str, str] | None:
        """The headers that a request needs; the longest place that it lies beneath counts, without its token."""
        header = _nearest(self.headers, _beneath(redact(f"https://{host}{path}")))
        return {"Authorization": header.reveal()} if header else None


def find_channels(
    named: Sequence[str],
    *,
    environ: Mapping[str, str],
    home: Path,
    python: str,
    secrets: Mapping[str, str] | None = None,
) -> Channels:
    """The channels that an environment names, or that conda is configured to ask.

    Parameters
    ----------
    named : sequence of str
        Names and URLs, perhaps with credentials; none for the configured ones.
    environ : mapping
        Environment variables.
    home : Path
    python : str
        An interpreter whose keyring may know a credential.
    secrets : mapping, optional
        URL without credentials -> with them, as a file has it.
    """
    problems: list[Problem] = []
    config = read_conda_config(environ, home, problems)
    rattlers = read_rattler_config(environ, home, problems)
    texts = list(dict.fromkeys(place for name in named or config.channels for place in located(name, config)))
    cleaned = {text: redact_channel(text).rstrip("/") for text in texts}
    kept = _read_kept(config, rattlers, environ, home, problems)
    mirrors = mirrors_of(rattlers)
    plain = [redact(one.reveal()).rstrip("/") for places in mirrors.values() for one in places]
    names = [*cleaned.values(), *plain] if kept or config.auth else []
    urls = {name: url for name in names if name and (url := _as_url(name))}
    with_tokens = _with_tokens(urls, kept, environ, home, python)
    headers = kept.headers_for(urls.values())
    known, roots = {**_known_secrets(config), **(secrets or {})}, _secret_roots(config)
    places = {}
    for text, clean in cleaned.items():
        with_secret = text
        if text.rstrip("/") == clean:
            with_secret = known.get(clean) or _beneath_root(clean, roots) or with_tokens.get(clean, "")
        if with_secret:
            place, header = _parted(with_secret)
            if header:
                headers[_beneath(clean)] = header
            if place != clean:
                places[clean] = Secret(place)
    signed = credentials_of_conda_auth(set(urls.values()), config, environ=environ, python=python, problems=problems)
    headers |= {_beneath(url): header for url, header in signed.items()}
    return Channels(
        tuple(dict.fromkeys(cleaned.values())),
        places,
        headers,
        {
            channel: tuple(Secret(with_tokens.get(one.reveal(), one.reveal())) for one in places)
            for channel, places in mirrors.items()
        },
        tuple(problems),
    )


@dataclass(frozen=True)
class _Kept:
    """Credentials that are kept apart from the URLs of channels.

    Attributes
    ----------
    config : CondaConfig
        It says where tokens come in a URL.
    headers, tokens : mapping
        Of mamba: host with the beginning of a path -> value of ``Authorization``, or token.
    pixi : mapping
        Of the file that pixi's configuration names: host, or ``*.domain`` -> either.
    anaconda : mapping
        Of anaconda-client: the beginning of a URL -> token.
    """

    config: CondaConfig
    headers: Mapping[str, Secret]
    tokens: Mapping[str, Secret]
    pixi: Mapping[str, Stored]
    anaconda: Mapping[str, Secret]

    def __bool__(self) -> bool:
        return bool(self.headers or self.tokens or self.pixi or self.anaconda)

    def headers_for(self, urls: Iterable[str]) -> dict[str, Secret]:
        """Host, perhaps with the beginning of a path -> value of ``Authorization``."""
        hosts = {_host(url) for url in urls}
        found = {host: one.header for host in hosts if (one := stored_for(host, self.pixi)) and one.header}
        return {**found, **self.headers}

    def with_token(self, url: str) -> str:
        """`url` with a token in its path, "" when there is none."""
        stored = stored_for(_host(url), self.pixi)
        if stored and stored.token:
            return _behind_host(url, stored.token)
        token = _nearest(self.tokens, _beneath(url))
        return _behind_host(url, token) if token else with_anaconda_token(url, self.anaconda, self.config)


def _read_kept(
    config: CondaConfig, rattlers: RattlerConfig, environ: Mapping[str, str], home: Path, problems: list[Problem]
) -> _Kept:
    headers, tokens = _of_mamba(home, problems)
    pixi = read_stored(rattlers.credentials, problems) if rattlers.credentials else {}
    first = environ.get("RATTLER_AUTH_FILE")
    if pixi and first:  # as pixi has it; py-rattler finds these by itself
        pixi |= dict.fromkeys(read_stored(Path(first), []), Stored())
    anaconda = anaconda_tokens(config, environ=environ, home=home, problems=problems)
    return _Kept(config, headers, tokens, pixi, anaconda)


def _with_tokens(
    urls: Mapping[str, str], kept: _Kept, environ: Mapping[str, str], home: Path, python: str
) -> dict[str, str]:
    """Name of a channel -> its URL with a token, of those that have one; but not where rattler puts one there, too."""
    found = {name: place for name, url in urls.items() if (place := kept.with_token(url))}
    hosts = {_host(place) for place in found.values()}
    rattlers = kept_by_rattler(hosts, environ=environ, home=home, python=python)
    return {name: place for name, place in found.items() if not (rattlers.get(_host(place)) or Stored()).token}


def _as_url(name: str) -> str:
    """Where a channel is, "" when nobody here knows that."""
    return name if "://" in name or not own_place() else f"{own_place()}/{name}"


def _known_secrets(config: CondaConfig) -> dict[str, str]:
    """URLs of channels with credentials that are configured, by themselves without."""
    names = [*config.channels, *config.default_channels, *config.several]
    return _secrets(place for name in names for place in located(name, config))


def _secret_roots(config: CondaConfig) -> dict[str, str]:
    """The same of the places that channels lie beneath."""
    return _secrets([config.alias, *(f"{base}/{name}" for name, base in config.custom.items())])


def _secrets(texts: Iterable[str]) -> dict[str, str]:
    return {clean: text for text in texts if "://" in text and (clean := redact(text).rstrip("/")) not in ("", text)}


def _beneath_root(url: str, roots: Mapping[str, str]) -> str:
    """`url` with the credential of the nearest place that it lies beneath, "" when there is none: conda does so, too
    (its `Channel.from_url`, which knows the alias and custom channels again)."""
    root = max((one for one in roots if f"{url}/".startswith(f"{one}/")), key=len, default="")
    return roots[root] + url[len(root) :] if root else ""


def _parted(url: str) -> tuple[str, Secret | None]:
    """A URL without user info (its token stays in its path), and the header that says the same."""
    parts = urlsplit(url.rstrip("/"))
    user, at, host = parts.netloc.rpartition("@")
    plain = urlunsplit((parts.scheme, host, parts.path, "", ""))
    if not at:
        return plain, None
    name, _, password = user.partition(":")
    return plain, Secret(credential(unquote(name), unquote(password)).header())


def _behind_host(url: str, token: Secret) -> str:
    """`url` with a token where mamba and rattler put it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/t/{token.reveal()}{parts.path}", "", ""))


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _nearest(known: Mapping[str, Secret], place: str) -> Secret | None:
    """What is known for `place`, or for the nearest one that it lies beneath."""
    fitting = [one for one in known if place == one or place.startswith(f"{one}/")]
    return known[max(fitting, key=len)] if fitting else None


def _beneath(url: str) -> str:
    """Host and path of a URL."""
    parts = urlsplit(url)
    return f"{parts.hostname or ''}{parts.path}".rstrip("/")


class _Mamba(msgspec.Struct):
    """An entry of mamba's file (mamba's documentation, "Authentication")."""

    type: str
    token: str = ""
    user: str = ""
    password: str = ""


def _of_mamba(home: Path, problems: list[Problem]) -> tuple[dict[str, Secret], dict[str, Secret]]:
    """What mamba's file has, by place: values of ``Authorization``, and tokens that belong into URLs."""
    path = home / ".mamba" / "auth" / "authentication.json"
    headers: dict[str, Secret] = {}
    tokens: dict[str, Secret] = {}
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=dict[str, _Mamba])
    except FileNotFoundError:
        return headers, tokens
    except (OSError, msgspec.DecodeError):
        problems.append(unreadable(str(path), "can't be understood"))
        return headers, tokens
    for place, one in entries.items():
        if one.type == "BearerToken":
            headers[_place(place)] = Secret(f"Bearer {one.token}")
        elif one.type == "CondaToken":
            tokens[_place(place)] = Secret(one.token)
        elif one.type == "BasicHTTPAuthentication":
            headers[_place(place)] = Secret(credential(one.user, _decoded(one.password)).header())
    return headers, tokens


def _place(text: str) -> str:
    """Host and path, without a port: that is how requests are told apart."""
    host, slash, path = text.strip().rstrip("/").partition("/")
    return f"{host.partition(':')[0]}{slash}{path}"


def _decoded(password: str) -> str:
    """mamba writes passwords in base64."""
    try:
        return base64.b64decode(password, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return password
