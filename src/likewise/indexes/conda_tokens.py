"""Tokens that anaconda-client keeps, each in a file named after a URL: conda and mamba put them into channels' URLs.

Sources: conda's ``gateways/anaconda_client.py`` and ``CondaHttpAuth``, mamba's ``context.cpp``. A token for a server's
interface (``https://api.…``, ``https://…/api``) counts for its channels (``conda`` in place of ``api``). Tokens in
``ANACONDA_API_TOKEN`` and ``BINSTAR_API_TOKEN`` are for uploads: no installer sends them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from likewise.indexes.conda_config import CondaConfig, own_place
from likewise.indexes.secret import Secret
from likewise.indexes.stated import unreadable
from likewise.model.origins import redact
from likewise.model.snapshot import Problem

_ENDING = ".token"
_INTERFACE = re.compile(r"(?<=[./])api(?=[./]|$)")
_BUMP = "/conda"
"""Servers of Anaconda's have their channels beneath this."""


def anaconda_tokens(
    config: CondaConfig, *, environ: Mapping[str, str], home: Path, problems: list[Problem]
) -> dict[str, Secret]:
    """URL that channels lie beneath -> token, if conda is not told to leave them alone."""
    found: dict[str, Secret] = {}
    for folder in _folders(environ, home) if config.tokens else ():
        for path in sorted(folder.glob(f"*{_ENDING}")):
            try:
                token = path.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError):
                problems.append(unreadable(str(path), "can't be read"))
                continue
            url = unquote_plus(path.name).removesuffix(_ENDING).rstrip("/")
            if token and "://" in url:
                found |= {place: Secret(token) for place in (url, _INTERFACE.sub("conda", url, count=1))}
    return found


def with_anaconda_token(url: str, tokens: Mapping[str, Secret], config: CondaConfig) -> str:
    """`url` with the token of the nearest place that it lies beneath, "" when there is none."""
    nearest = max((place for place in tokens if f"{url}/".startswith(f"{place}/")), key=len, default="")
    if not nearest:
        return ""
    base = _base(url, config)
    return f"{base}/t/{tokens[nearest].reveal()}{url[len(base) :]}"


def _base(url: str, config: CondaConfig) -> str:
    """What a channel's name stands behind: the token comes there."""
    places = [redact(base).rstrip("/") for base in (config.alias or own_place(), *config.custom.values())]
    fitting = [place for place in places if place and url.startswith(f"{place}/")]
    if fitting:
        return max(fitting, key=len)
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, _BUMP if parts.path.startswith(f"{_BUMP}/") else "", "", ""))


def _folders(environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """conda's folder last: it counts most."""
    return home / ".continuum" / "anaconda-client" / "tokens", _of_conda(environ, home)


def _of_conda(environ: Mapping[str, str], home: Path) -> Path:
    if chosen := environ.get("BINSTAR_CONFIG_DIR"):
        return Path(chosen) / "data"
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "ContinuumIO" / "binstar"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "binstar"
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "binstar"
