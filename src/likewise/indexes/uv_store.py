"""The credentials that ``uv auth login`` has kept, in uv's own file (uv's documentation, "The uv credentials store").

The stores of operating systems, which uv can be told to use in its place, are not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from likewise.indexes.pip_config import read_text
from likewise.indexes.secret import Credential, Secret, bearer, credential
from likewise.indexes.stated import unreadable
from likewise.indexes.urls import realm
from likewise.model.snapshot import Problem


@dataclass(frozen=True)
class Kept:
    """A credential, and what it is for: a URL and all beneath it."""

    service: Secret
    credential: Credential

    def is_for(self, url: str) -> bool:
        """Whether `url` has the same scheme, host and port, and a path that begins with that of the service."""
        service = self.service.reveal()
        path, given = urlsplit(service).path.rstrip("/"), urlsplit(url).path
        return realm(service) == realm(url) and (given == path or given.startswith(f"{path}/"))


@dataclass(frozen=True)
class UvStore:
    """What uv has kept; `folder` is None where there is no such file."""

    folder: Path | None = None
    kept: tuple[Kept, ...] = ()

    def get(self, url: str, user: str = "") -> Credential | None:
        """The credential for `url`, of several that with the longest path. With `user`, only that user's counts."""
        fitting = [one for one in self.kept if one.is_for(url) and (not user or one.credential.user.reveal() == user)]
        best = max(fitting, key=lambda one: len(urlsplit(one.service.reveal()).path), default=None)
        return best.credential if best else None


class _Entry(msgspec.Struct):
    service: str
    username: str | None = None
    scheme: str = "basic"
    password: str | None = None
    token: str | None = None


class _File(msgspec.Struct):
    credential: list[_Entry] = []


def read_uv_store(
    environ: Mapping[str, str], home: Path, folder: Path, system: str, problems: list[Problem]
) -> UvStore:
    """The file in ``UV_CREDENTIALS_DIR`` (relative to `folder`), else in uv's folder for its own data."""
    chosen = environ.get("UV_CREDENTIALS_DIR")
    place = folder / chosen if chosen else _usual(environ, home, system)
    text = read_text(place / "credentials.toml", problems)
    try:
        entries = msgspec.toml.decode(text, type=_File).credential
    except (msgspec.DecodeError, ValueError, RecursionError):  # their words may be the file's
        problems.append(unreadable(str(place / "credentials.toml"), "can't be understood"))
        return UvStore()
    kept = tuple(one for one in map(_kept, entries) if realm(one.service.reveal())[1])
    return UvStore(place, kept) if kept else UvStore()


def _kept(entry: _Entry) -> Kept:
    service = entry.service if "://" in entry.service else f"https://{entry.service}"
    if entry.scheme == "bearer":
        return Kept(Secret(service), bearer(entry.token or ""))
    return Kept(Secret(service), credential(entry.username or "", entry.password))


def _usual(environ: Mapping[str, str], home: Path, system: str) -> Path:
    if system == "win32":
        own = Path(environ.get("APPDATA") or home / "AppData" / "Roaming") / "uv" / "data"
    else:
        own = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "uv"
    old = home / "Library" / "Application Support" / "uv"
    return (old if system == "darwin" and old.is_dir() else own) / "credentials"
