"""Which conda packages anybody may fetch: those at an address for which no credential is known here.

A credential may be anywhere where conda, anaconda-client, mamba, conda-auth, pixi or rattler look for one; where
conda's configuration says that one has to sign in, none needs to be found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from likewise.indexes.conda_auth import sign_in
from likewise.indexes.conda_channels import Channels, find_channels
from likewise.indexes.conda_config import CondaConfig, own_place, read_conda_config
from likewise.indexes.netrc_file import read_netrc
from likewise.indexes.rattler_config import read_rattler_config
from likewise.indexes.rattler_store import kept_by_rattler, read_stored, stored_for
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
        An interpreter whose keyring may know a credential, "" for none.
    """
    asked = frozenset(url for url in urls if _may_be_open(url))
    if not asked:
        return asked
    config = read_conda_config(environ, home, [])
    channels = {_channel(url) for url in asked}
    named = [*sorted(channels), *config.channels, *config.default_channels, *config.custom]
    known = find_channels(named, environ=environ, home=home, python=python)
    signed = frozenset(channel for channel in channels if _is_signed(channel, config))
    hosts = _signed_in({host for url in asked if (host := _host(url))}, environ, home, python)
    return frozenset(url for url in asked if _channel(url) not in signed and _is_open(url, known, hosts))


def _channel(url: str) -> str:
    """The channel of a package: its URL without subdir and file name."""
    return url.rsplit("/", 2)[0]


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _may_be_open(url: str) -> bool:
    """Whether it is an address of a kind that is asked at all, with no credential and nothing that looks like one."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return parts.scheme == "file"
    return redact(url) == url and not secret_segments(_channel(url))


def _is_open(url: str, known: Channels, hosts: Collection[str]) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return True
    if any(url.startswith(f"{place}/") for place in known.places):
        return False
    return parts.hostname not in hosts and not known.authorization(parts.hostname or "", parts.path)


def _is_signed(channel: str, config: CondaConfig) -> bool:
    """Whether conda signs in to a channel. One that is named counts wherever it is, if nobody knows where that is."""
    if sign_in(channel, config):
        return True
    path = urlsplit(channel).path.strip("/")
    return not config.alias and not own_place() and any(one.channel == path for one in config.auth)


def _signed_in(hosts: Collection[str], environ: Mapping[str, str], home: Path, python: str) -> frozenset[str]:
    """Those of `hosts` for which a credential is kept that counts for all that is there."""
    netrc = read_netrc(environ, home, [])
    credentials = read_rattler_config(environ, home, []).credentials
    named = read_stored(credentials, []) if credentials else {}
    own = kept_by_rattler(hosts, environ=environ, home=home, python=python)
    return frozenset(host for host in hosts if host in own or stored_for(host, named) or netrc.get(host, known=False))
