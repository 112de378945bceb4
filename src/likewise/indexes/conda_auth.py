"""What conda-auth knows of channels: conda's configuration says how one signs in to which, keyring has the secrets.

Sources: conda's ``get_session`` (which setting counts for a channel), conda-auth's ``handlers`` and ``storage``. Up to
version 0.2.1 a secret is an entry of its own; after that there is one entry per channel, a JSON object.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

import msgspec

from likewise.indexes.conda_config import CondaConfig, SignIn, located, own_place
from likewise.indexes.keyring import Question, ask_keyring
from likewise.indexes.secret import Credential, Secret, bearer, credential
from likewise.model.origins import redact
from likewise.model.snapshot import Problem

KEYRING = "conda-auth"
"""The first part of the names under which it keeps secrets."""

TOKEN, BASIC = "token", "http-basic"
_RECORD = "credential"


class _Record(msgspec.Struct):
    username: str | None = None
    password: str | None = None
    token: str | None = None


def sign_in(url: str, config: CondaConfig) -> SignIn | None:
    """How one signs in to the channel at `url`, or to one that it lies beneath; the last setting counts."""
    return next((one for one in reversed(config.auth) if _is_meant(url, one.channel, config)), None)


def credentials_of_conda_auth(
    urls: Collection[str],
    config: CondaConfig,
    *,
    environ: Mapping[str, str],
    python: str,
    problems: list[Problem],
) -> dict[str, Secret]:
    """Those of the channels at `urls`, each with the value of ``Authorization`` that it wants.

    Parameters
    ----------
    urls : collection of str
        Without credentials.
    config : CondaConfig
    environ : mapping
        Environment variables of the child process that asks keyring.
    python : str
        The interpreter whose keyring is asked.
    problems : list of Problem
        What goes wrong is told there.
    """
    known = {url: one for url in urls if (one := sign_in(url, config)) and one.how in (TOKEN, BASIC)}
    asked = {url: one for url, one in known.items() if one.secret is None}
    found: dict[str, Credential | None] = {
        url: _own(one, one.secret) for url, one in known.items() if one.secret is not None
    }
    if asked:
        questions = [question for url, one in asked.items() for question in _questions(url, one, config)]
        answers = ask_keyring(python, questions, environ=environ)
        if answers.why:
            message = f"A credential for a channel of conda's was not found: {answers.why}."
            problems.append(Problem(code="keyring", subject="channels", message=message))
        for place, (url, one) in enumerate(asked.items()):
            record, entry = answers.found[2 * place : 2 * place + 2]
            found[url] = _of_record(one, record) or _of_entry(one, entry)
    return {url: _header(url, one) for url, one in found.items() if one}


def _questions(url: str, one: SignIn, config: CondaConfig) -> Sequence[Question]:
    """Two of them: for the entry of today's conda-auth, and for that of earlier ones."""
    names = tuple(dict.fromkeys((*([one.target] if one.target else []), canonical(url, config), one.channel)))
    today = tuple(f"{KEYRING}::{_RECORD}::{name}" for name in names)
    before = tuple(f"{KEYRING}::{one.how}::{name}" for name in names)
    return Question(today, _RECORD), Question(before, TOKEN if one.how == TOKEN else one.user)


def _of_record(one: SignIn, found: Credential | None) -> Credential | None:
    try:
        record = msgspec.json.decode(found.password.reveal(), type=_Record) if found and found.password else _Record()
    except msgspec.DecodeError:  # its words may be the secret's
        return None
    if one.how == TOKEN:
        return bearer(record.token) if record.token else None
    user = one.user or record.username or ""
    return credential(user, record.password) if record.password and user == record.username else None


def _of_entry(one: SignIn, found: Credential | None) -> Credential | None:
    if found is None or found.password is None:
        return None
    return bearer(found.password.reveal()) if one.how == TOKEN else found


def _own(one: SignIn, secret: Secret) -> Credential:
    """A credential that conda's configuration itself has."""
    return bearer(secret.reveal()) if one.how == TOKEN else credential(one.user, secret.reveal())


def _header(url: str, one: Credential) -> Secret:
    """conda's own place wants a word of its own before a token."""
    token = one.password.reveal() if one.bearer and one.password else ""
    own = bool(token) and _domain(url) == _domain(own_place())
    return Secret(f"token {token}" if own else one.header())


def _domain(url: str) -> str:
    return ".".join((urlsplit(url).hostname or "").split(".")[-2:])


def _is_meant(url: str, channel: str, config: CondaConfig) -> bool:
    """Whether a setting for `channel`, a name, a URL or a pattern of URLs, counts for what is at `url`."""
    meant = (place if "://" in place else f"{own_place()}/{place}" for place in located(channel, config))
    if any(f"{url}/".startswith(f"{redact(place).rstrip('/')}/") for place in meant if redact(place)):
        return True
    try:
        wanted, asked = urlsplit(channel), urlsplit(url)
    except ValueError:
        return False
    pattern = f"{wanted.netloc}{wanted.path}"
    return bool(pattern) and wanted.scheme == asked.scheme and fnmatchcase(f"{asked.netloc}{asked.path}", pattern)


def canonical(url: str, config: CondaConfig) -> str:
    """conda's own word for a channel: its name, if it lies where channels of that name, or all, do; else its URL."""
    for name, base in config.custom.items():
        place = f"{redact(base).rstrip('/')}/{name}"
        if f"{url}/".startswith(f"{place}/"):
            return f"{name}{url[len(place) :]}"
    alias = redact(config.alias).rstrip("/") if config.alias else own_place()
    return url[len(alias) + 1 :] if alias and url.startswith(f"{alias}/") else url
