"""Channels of conda, as URLs, and the credentials that reach them: in this process alone.

A token may be in a channel's URL (``/t/TOKEN/``), a user and password too; mamba keeps credentials in
``~/.mamba/auth/authentication.json``, conda-auth in keyring. What rattler keeps (its own file, keyring, netrc) rattler
finds by itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from likewise.indexes.conda_config import CondaConfig, read_conda_config
from likewise.indexes.conda_mirrors import Mirrors, find_mirrors
from likewise.indexes.keyring import Question, ask_keyring
from likewise.indexes.secret import Secret, credential
from likewise.indexes.stated import unreadable
from likewise.model.origins import redact, redact_channel
from likewise.model.snapshot import Problem

DEFAULTS = "defaults"
OWN_DEFAULTS = ("main", "r")
"""What ``defaults`` means where nobody has said it: names beneath the place of all channels."""

KEYRING = "conda-auth"
"""The first part of the names under which conda-auth keeps credentials."""


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
    known, roots = {**_known_secrets(config), **(secrets or {})}, _secret_roots(config)
    texts = list(dict.fromkeys(place for name in named or config.channels for place in located(name, config)))
    headers, tokens = _of_mamba(home, problems)
    names, places = [], {}
    for text in texts:
        clean = redact_channel(text).rstrip("/")
        names.append(clean)
        with_secret = text
        if text.rstrip("/") == clean:
            with_secret = known.get(clean) or _beneath_root(clean, roots) or _with_token(clean, tokens)
        if with_secret:
            place, header = _parted(with_secret)
            if header:
                headers[_beneath(clean)] = header
            if place != clean:
                places[clean] = Secret(place)
    headers |= _of_conda_auth(config, environ, python, problems)
    mirrors = find_mirrors(environ, home, problems)
    return Channels(tuple(dict.fromkeys(names)), places, headers, mirrors, tuple(problems))


def located(name: str, config: CondaConfig) -> tuple[str, ...]:
    """Where a channel is: a URL, or its name for conda's own place (conda's documentation, "Channels").

    ``defaults`` is several.
    """
    name = name.strip().rstrip("/")
    if "://" in name or not name:
        return (name,) if name else ()
    if name == DEFAULTS:
        chosen = config.default_channels or OWN_DEFAULTS
        return tuple(place for one in chosen if one != DEFAULTS for place in located(one, config))
    first = name.partition("/")[0]
    base = config.custom.get(name) or config.custom.get(first) or config.alias
    return (f"{base}/{name}",) if base else (name,)


def _known_secrets(config: CondaConfig) -> dict[str, str]:
    """URLs of channels with credentials that are configured, by themselves without."""
    names = [*config.channels, *config.default_channels]
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


def _with_token(url: str, tokens: Mapping[str, Secret]) -> str:
    """`url` with a token that is known for it, where mamba puts it: behind the host; "" when there is none."""
    token = _nearest(tokens, _beneath(url)) if "://" in url else None
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/t/{token.reveal()}{parts.path}", "", "")) if token else ""


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


def _of_conda_auth(
    config: CondaConfig, environ: Mapping[str, str], python: str, problems: list[Problem]
) -> dict[str, Secret]:
    """What conda-auth keeps in keyring, of the channels that the configuration names for it."""
    asked = {channel: how for channel, how in config.auth.items() if how[0] in ("token", "http-basic")}
    if not asked:
        return {}
    questions = [
        Question((f"{KEYRING}::{how}::{channel}",), "token" if how == "token" else user)
        for channel, (how, user) in asked.items()
    ]
    answers = ask_keyring(python, questions, environ=environ)
    if answers.why:
        message = f"A credential for a channel of conda's was not found: {answers.why}."
        problems.append(Problem(code="keyring", subject="channels", message=message))
    found = {}
    for (channel, (how, _)), answer in zip(asked.items(), answers.found, strict=True):
        place = next(iter(located(channel, config)), "")
        if answer is None or "://" not in place:
            continue
        token = f"Bearer {answer.password.reveal()}" if answer.password else ""
        found[_beneath(place)] = Secret(token if how == "token" else answer.header())
    return found
