"""Where rattler, pixi and their kin keep credentials: files of one form, and an entry of the system's keyring per host.

Sources: rattler's ``authentication_storage`` and pixi's ``pixi_auth``. py-rattler finds by itself what is in the file
that ``RATTLER_AUTH_FILE`` names, in keyring and in ``~/.rattler/credentials.json``; not what pixi is told to read.
A credential is kept for a host, or for all beneath ``*.domain``, and for that domain itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from likewise.indexes.keyring import Question, ask_keyring
from likewise.indexes.secret import Credential, Secret, bearer, credential
from likewise.indexes.stated import unreadable
from likewise.model.snapshot import Problem

KEYRING = "rattler"
"""The name that all of its entries have in keyring; the user is the host."""


class _Basic(msgspec.Struct):
    username: str = ""
    password: str = ""


class _OAuth(msgspec.Struct):
    access_token: str = ""


class _Entry(
    msgspec.Struct,
    rename={"bearer": "BearerToken", "basic": "BasicHTTP", "token": "CondaToken", "oauth": "OAuth"},
):
    bearer: str = ""
    basic: _Basic | None = None
    token: str = ""
    oauth: _OAuth | None = None


class Stored(msgspec.Struct, frozen=True):
    """What is kept for a host: a value of ``Authorization``, or a token that belongs into URLs."""

    header: Secret | None = None
    token: Secret | None = None


def own_files(environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """The files that py-rattler reads, the one that counts most first."""
    chosen = environ.get("RATTLER_AUTH_FILE")
    return (*([Path(chosen)] if chosen else []), home / ".rattler" / "credentials.json")


def read_stored(path: Path, problems: list[Problem]) -> dict[str, Stored]:
    """Host, or ``*.domain`` -> what a file keeps for it; one that can't be read is told among `problems`."""
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=dict[str, _Entry])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, RecursionError):  # their words may be the file's
        problems.append(unreadable(str(path), "can't be understood"))
        return {}
    return {_host(place): _stored(entry) for place, entry in entries.items()}


def stored_for(host: str, known: Mapping[str, Stored]) -> Stored | None:
    """What is kept for `host`."""
    return next((known[name] for name in kept_under(host) if name in known), None)


def kept_under(host: str) -> Iterator[str]:
    """The names under which rattler looks for the credential of `host`, one after the other."""
    yield host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        yield from (".".join(["*", *labels[first:]]) for first in range(len(labels)))


def kept_by_rattler(
    hosts: Collection[str], *, environ: Mapping[str, str], home: Path, python: str
) -> dict[str, Stored]:
    """What py-rattler itself finds for those of `hosts` that it knows, but for netrc.

    Parameters
    ----------
    hosts : collection of str
    environ : mapping
        Environment variables.
    home : Path
    python : str
        An interpreter through whose keyring the system's is asked, "" for none.
    """
    known: dict[str, Stored] = {}
    for path in reversed(own_files(environ, home)):
        known |= read_stored(path, [])
    found = {host: one for host in hosts if (one := stored_for(host, known))}
    left = [(host, name) for host in sorted(hosts) if host not in found for name in kept_under(host)]
    if left and python:
        answers = ask_keyring(python, [Question((KEYRING,), name) for _, name in left], environ=environ)
        for (host, name), answer in zip(left, answers.found, strict=True):
            if answer and answer.user.reveal() == name:
                found.setdefault(host, _of_keyring(answer))
    return found


def _of_keyring(answer: Credential) -> Stored:
    try:
        return _stored(msgspec.json.decode(answer.password.reveal() if answer.password else "", type=_Entry))
    except msgspec.DecodeError:  # its words may be the secret's
        return Stored()


def _stored(entry: _Entry) -> Stored:
    if entry.token:
        return Stored(token=Secret(entry.token))
    if entry.basic:
        return Stored(Secret(credential(entry.basic.username, entry.basic.password).header()))
    token = entry.bearer or (entry.oauth.access_token if entry.oauth else "")
    return Stored(Secret(bearer(token).header()) if token else None)


def _host(place: str) -> str:
    """The host of what stands before an entry, without a port: that is how rattler looks for it."""
    return place.rpartition("://")[2].partition("/")[0].partition(":")[0]
