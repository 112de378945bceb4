"""The user's netrc, which pip and uv both ask."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from likewise.indexes.secret import Credential, credential
from likewise.indexes.stated import unreadable
from likewise.model.snapshot import Problem

DEFAULT = "default"


@dataclass(frozen=True)
class Netrc:
    """Host → credential; `path` is None where there is no such file."""

    path: Path | None = None
    hosts: Mapping[str, Credential] = field(default_factory=dict)

    def get(self, host: str, *, known: bool, user: str = "") -> Credential | None:
        """The credential for `host`.

        The entry for all other hosts is used only for one that is `known`, an index's: a page may link to any host.
        With `user`, only that user's entry counts.
        """
        found = self.hosts.get(host) or (self.hosts.get(DEFAULT) if known else None)
        return found if found and (not user or found.user.reveal() == user) else None


def read_netrc(environ: Mapping[str, str], home: Path, problems: list[Problem]) -> Netrc:
    """The file that ``NETRC`` names, else ``.netrc`` (or ``_netrc``) in `home`."""
    chosen = environ.get("NETRC")
    paths = [Path(os.path.expanduser(chosen))] if chosen else [home / ".netrc", home / "_netrc"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return Netrc()
    try:
        hosts = netrc.netrc(str(path)).hosts
    except (netrc.NetrcParseError, UnicodeDecodeError, OSError):  # their words may be the file's
        problems.append(unreadable(str(path), "can't be understood"))
        return Netrc()
    return Netrc(path, {host: credential(login, password or "") for host, (login, _, password) in hosts.items()})
