"""The environment variables of a node's processes: few, named, and nothing of the client's that was not asked for."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from likewise.errors import UsageError

ALLOWED = frozenset({"HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"})
"""What a login session on the node would have too. ``LC_*`` goes along."""

Role = Literal["scheduler", "worker"]
_MAX_VARIABLE = 128 * 1024 - 1  # Linux: MAX_ARG_STRLEN, 32 pages, for one string of a program's environment


def basic_environ(client: Mapping[str, str], *, without: Collection[str] = ()) -> dict[str, str]:
    """What of the client's variables a process on the same machine gets.

    Parameters
    ----------
    client : mapping
        The client's variables (`os.environ`).
    without : collection of str
        Folders that are taken out of ``PATH``: those of the client's own prefix.
    """
    kept = {k: v for k, v in client.items() if k in ALLOWED or k.startswith("LC_")}
    if without and "PATH" in kept:
        kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if p not in without)
    return kept


def check_environ(env: Mapping[str, str] | None) -> dict[str, str]:
    """The variables that the user asked for, checked.

    Raises
    ------
    UsageError
        When a name or a value can't be an environment variable.
    """
    for name, value in (env or {}).items():
        good = isinstance(name, str) and isinstance(value, str) and name and not {"=", "\0"} & {*name}
        if not good or "\0" in value:
            raise UsageError(
                f"{name!r} can't be set to {type(value).__name__} {value!r:.40}.",
                where="env",
                todo="Give a mapping of names to strings.",
            )
    return dict(env or {})


def dask_environ(config: str) -> dict[str, str]:
    """Variables that make Dask use `config` (as `dask.config.serialize` wrote it) and none of the machine's files.

    ``DASK_CONFIG`` and ``DASK_ROOT_CONFIG`` name the two places that variables can move; `own_config` deals with
    ``~/.config/dask``, which they can't.

    Raises
    ------
    UsageError
        When the configuration is too big for an environment variable.
    """
    if len(config) > _MAX_VARIABLE:
        raise UsageError(
            f"Your Dask configuration is too big to be sent ({len(config)} bytes of at most {_MAX_VARIABLE}).",
            where="dask.config",
            todo="Remove what the cluster does not need, or pass it with client.run.",
        )
    return {"DASK_INTERNAL_INHERIT_CONFIG": config, "DASK_CONFIG": os.devnull, "DASK_ROOT_CONFIG": os.devnull}


def tls_environ(security: Any, role: Role) -> dict[str, str]:
    """TLS for a process of the given role, as text in variables that Dask's configuration reads.

    A worker also is a client of its scheduler (`distributed.get_client` in a task): it uses its own certificate for
    that, never the user's.

    Parameters
    ----------
    security : distributed.Security
        Its certificates and keys are PEM text or paths to such files.
    role : str

    Raises
    ------
    UsageError
        When a certificate file can't be read.
    """
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    cert = _pem(getattr(security, f"tls_{role}_cert"))
    key = _pem(getattr(security, f"tls_{role}_key"))
    values = {
        "CA_FILE": _pem(security.tls_ca_file),
        f"{role.upper()}__CERT": cert,
        f"{role.upper()}__KEY": key,
        "CLIENT__CERT": cert if role == "worker" else None,
        "CLIENT__KEY": key if role == "worker" else None,
        "CIPHERS": security.tls_ciphers,
        "MIN_VERSION": _version(security.tls_min_version),
        "MAX_VERSION": _version(security.tls_max_version),
    }
    variables = {prefix + name: value for name, value in values.items() if value}
    return {**variables, "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}


def _pem(value: str | None) -> str | None:
    if not value or "\n" in value:
        return value
    try:
        return Path(value).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The certificate can't be read ({error}).", where=value, todo="Check `security`.") from error


def _version(value: Any) -> str | None:
    # ssl.TLSVersion.TLSv1_2 is spelled 1.2 in Dask's configuration.
    return None if value is None else value.name.removeprefix("TLSv").replace("_", ".")
