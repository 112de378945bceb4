"""Which conda packages anybody may fetch: those at an address for which no credential is known here.

A credential may be anywhere where conda, mamba, conda-auth or rattler look for one. rattler's own part of keyring is
not asked: whoever fetches without what is there is refused, and that is all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from likewise.indexes.conda_channels import Channels, find_channels
from likewise.indexes.conda_config import read_conda_config
from likewise.indexes.netrc_file import Netrc, read_netrc
from likewise.indexes.urls import secret_segments
from likewise.model.origins import redact


def open_to_all(urls: Iterable[str], *, environ: Mapping[str, str], home: Path, python: str) -> frozenset[str]:
    """Those of the packages at `urls` that need no credential, as far as anybody has told.

    Parameters
    ----------
    urls : iterable of str
        ``https://host/channel/subdir/name-version-build.conda``, or a ``file:`` URL.
    environ : mapping
        Environment variables.
    home : Path
    python : str
        An interpreter whose keyring may know a credential.
    """
    asked = frozenset(urls)
    if not asked:
        return asked
    config = read_conda_config(environ, home, [])
    named = [*sorted({_channel(url) for url in asked}), *config.channels, *config.default_channels, *config.custom]
    known = find_channels(named, environ=environ, home=home, python=python)
    netrc, hosts = read_netrc(environ, home, []), _signed_in(environ, home)
    return frozenset(url for url in asked if _is_open(url, known, netrc, hosts))


def _channel(url: str) -> str:
    """The channel of a package: its URL without subdir and file name."""
    return url.rsplit("/", 2)[0]


def _is_open(url: str, known: Channels, netrc: Netrc, hosts: Collection[str]) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return parts.scheme == "file"
    if redact(url) != url or secret_segments(_channel(url)):
        return False
    if any(url.startswith(f"{place}/") for place in known.places):
        return False
    signed_in = host in hosts or any(host.endswith(one[1:]) for one in hosts if one.startswith("*."))
    return not signed_in and not known.authorization(host, parts.path) and not netrc.get(host, known=False)


def _signed_in(environ: Mapping[str, str], home: Path) -> frozenset[str]:
    """The hosts, perhaps beginning with ``*.``, in the file that rattler and pixi keep credentials in.

    Source: rattler's documentation ("Authentication"): ``RATTLER_AUTH_FILE``, else ``~/.rattler/credentials.json``.
    """
    path = Path(os.path.expanduser(environ.get("RATTLER_AUTH_FILE") or home / ".rattler" / "credentials.json"))
    try:
        places = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, msgspec.DecodeError):
        return frozenset()
    return frozenset(place.rpartition("://")[2].partition("/")[0].partition(":")[0] for place in places)
