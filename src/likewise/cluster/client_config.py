"""Which part of the client's Dask configuration goes to the nodes. Pure.

Everything goes, except what could be a secret, what is a path of the client, and what is no plain data. Where Dask
has a default for such a key, the default is sent, so that no file on the node can fill the hole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MISSING = object()

# Never sent: addresses of other clusters, what the parent of this client sent to it, TLS (which goes by variables
# of its own), and which files hold the configuration.
_LEFT_OUT = frozenset(
    {
        "scheduler-address",
        "internal-inherit-config",
        "config",
        "root-config",
        "distributed.comm.tls",
        "distributed.comm.require-encryption",
        "distributed.client.security-loader",
    }
)
_SECRET = re.compile(
    r"(^|[-_.])(password|passwd|passphrase|secret|secrets|token|tokens|credential|credentials|auth|authorization|cookie"
    r"|api-?key|access-?key|private-?key|account-?key|shared-?key|sas|key)($|[-_.])",
    re.IGNORECASE,
)
_PATH_KEY = re.compile(r"(^|[-_])(directory|dir|file|filename|path|folder|home|logging-file-config)$", re.IGNORECASE)
_PATH_VALUE = re.compile(r"^(~|/[^/\s]|[A-Za-z]:[\\/]|\\\\|file:)")
_URL_SECRET = re.compile(
    r"[a-z][a-z0-9+.-]*://([^/@\s]+@|\S*[?&](\S*(token|sig|signature|key|password|secret)\S*)=)", re.I
)
# URL routes of Dask's own dashboards begin with a slash and are no paths.
_ROUTES = re.compile(r"(^|\.)(http|dashboard)\.")


def portable_config(
    config: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The part of `config` that nodes get.

    Parameters
    ----------
    config : mapping
        The client's configuration (`dask.config.config`).
    defaults : mapping, optional
        What the libraries themselves say (`dask.config.merge(*dask.config.defaults)`).

    Returns
    -------
    dict
        JSON-serialisable; shares nothing with `config`.
    tuple of str
        Dotted names of what was left out although the user had set it, for a notice.
    """
    left_out: list[str] = []
    kept = _mapping(config, defaults or {}, "", left_out)
    return kept, tuple(sorted(left_out))


def _mapping(config: Mapping[str, Any], defaults: Mapping[str, Any], above: str, left_out: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in config.items():
        dotted = f"{above}{name}".replace("_", "-")
        if dotted in _LEFT_OUT:
            continue
        if not isinstance(name, str):  # JSON would make it one
            left_out.append(dotted)
            continue
        default = _default(defaults, name)
        if isinstance(value, Mapping) and name != "logging" and not _SECRET.search(name):
            kept[name] = _mapping(value, default if isinstance(default, Mapping) else {}, f"{dotted}.", left_out)
            continue
        chosen = _leaf(name, dotted, value)
        if chosen is _MISSING and value != default:
            left_out.append(dotted)
        chosen = default if chosen is _MISSING else chosen
        if chosen is not _MISSING:
            kept[name] = chosen
    return kept


def _default(defaults: Mapping[str, Any], name: str) -> Any:
    """What the libraries say; Dask takes ``-`` and ``_`` in names for the same."""
    for spelling in (name, name.replace("_", "-"), name.replace("-", "_")):
        if spelling in defaults:
            return defaults[spelling]
    return _MISSING


def _whole(section: Mapping[str, Any], dotted: str) -> Any:
    """All or nothing: a logging handler without its file name would keep the node from starting."""
    lost: list[str] = []
    kept = _mapping(section, {}, f"{dotted}.", lost)
    return _MISSING if lost else kept


def _leaf(name: str, dotted: str, value: Any) -> Any:
    """`value` as plain data, or `_MISSING` when it may not go."""
    if value is None or isinstance(value, bool):
        return value
    if _SECRET.search(name) or (_PATH_KEY.search(name) and not isinstance(value, (int, float))):
        return _MISSING
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        is_path = _PATH_VALUE.match(value) and not _ROUTES.search(dotted)
        return _MISSING if is_path or _URL_SECRET.search(value) else value
    if isinstance(value, Mapping):
        return _whole(value, dotted)
    if isinstance(value, (list, tuple)):
        items = [_leaf("", dotted, item) for item in value]
        return _MISSING if any(item is _MISSING for item in items) else items
    return _MISSING  # an object that JSON has no word for
