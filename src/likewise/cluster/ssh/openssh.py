"""What OpenSSH's configuration says about a host, in OpenSSH's own words: ``ssh -G`` resolves it.

asyncssh reads such files, too, but knows neither the system-wide one nor ``StrictHostKeyChecking`` nor
``/etc/ssh/ssh_known_hosts``, and stops at an ``IdentityFile`` that does not exist. Its reader serves where there is no
``ssh`` program.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from likewise.errors import UsageError

SYSTEM_CONFIG = "/etc/ssh/ssh_config"

_FAST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""The processor's own instructions do these; they move several times as much as ChaCha20 or CTR with a MAC."""

_TIMEOUT = 20.0  # seconds until a host counts as unreachable, unless ConnectTimeout says otherwise
_ALIVE = 30.0  # seconds between questions whether the other end is still there


@dataclass(frozen=True, kw_only=True)
class Route:
    """How to reach one host.

    Attributes
    ----------
    host : str
        The name or address to connect to, as far as it is known (``HostName``).
    arguments : dict
        For `asyncssh.connect`. Not shown: there may be a password among them.
    jumps : tuple of str
        Hosts to go through, the first one first.
    strict : str
        What to do with an unknown host key: ``yes``, ``accept-new`` (take it and remember it) or ``no`` (take it).
    remember : str
        The file for accepted host keys, "" for nowhere.
    """

    host: str
    arguments: dict[str, Any] = field(repr=False)
    jumps: tuple[str, ...] = ()
    strict: str = "yes"
    remember: str = ""


async def find_route(host: str, connect_options: Mapping[str, Any]) -> Route:
    """Resolve `host` as ``ssh host`` would; `connect_options` come before the configuration.

    Parameters
    ----------
    host : str
        A name, an address, ``user@host``, or an alias of the configuration.
    connect_options : mapping
        Keywords of `asyncssh.connect`. ``config`` may name another configuration file, or be None for none.

    Raises
    ------
    UsageError
        When OpenSSH does not understand its configuration, or the name is none.
    """
    if not host or host.startswith("-"):
        raise UsageError(f"{host!r} is not the name of a host.", where="hosts")
    options = dict(connect_options)
    config = options.pop("config", ())
    if isinstance(config, (list, tuple)) and len(config) == 1:
        config = config[0]
    program = shutil.which("ssh")
    if program is None or (isinstance(config, (list, tuple)) and config):
        files = config or [p for p in (Path("~/.ssh/config").expanduser(), SYSTEM_CONFIG) if os.access(p, os.R_OK)]
        return Route(host=host, arguments={**_defaults(), "config": files, **options})
    text = await _ask_openssh(program, host, options, config)
    return route_from(parse_settings(text), options, exists=os.path.exists)


async def _ask_openssh(program: str, host: str, options: Mapping[str, Any], config: Any) -> str:
    argv = [program, "-G"]
    argv += ["-F", "none" if config is None else os.path.expanduser(config)] if config != () else []
    argv += ["-l", str(options["username"])] if options.get("username") else []
    argv += ["-p", str(options["port"])] if options.get("port") else []
    # In a thread: the event loop that Dask uses on Windows starts no programs.
    done = await asyncio.get_running_loop().run_in_executor(None, partial(_run, [*argv, "--", host]))
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        raise UsageError(
            f"OpenSSH's configuration can't be used: {words}.", where=host, todo=f"Try `ssh -G {host}` in a terminal."
        )
    return done.stdout.decode("utf-8", "replace")


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def parse_settings(text: str) -> dict[str, list[str]]:
    """The answer of ``ssh -G``: each option, in lower case, with its values in their order."""
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        settings.setdefault(name.lower(), []).append(value)
    return settings


def route_from(
    settings: Mapping[str, Sequence[str]], options: Mapping[str, Any], *, exists: Callable[[str], bool]
) -> Route:
    """A route from OpenSSH's `settings` and the user's own `options`, which come first.

    Parameters
    ----------
    settings : mapping
        As `parse_settings` returns it.
    options : mapping
        Keywords of `asyncssh.connect`.
    exists : callable
        Whether a file is there.
    """

    def one(name: str, default: str = "") -> str:
        value = settings.get(name, [default])[0]
        return "" if value in ("none", "none none") else value

    tokens = _tokens(one)

    def files(name: str) -> list[str]:
        paths = [os.path.expanduser(expand(_unquote(path), tokens)) for path in settings.get(name, [])]
        return [path for path in paths if exists(path)]

    known = [os.path.expanduser(path) for path in f"{one('userknownhostsfile')} {one('globalknownhostsfile')}".split()]
    arguments: dict[str, Any] = {
        **_defaults(),
        "config": None,
        "username": one("user"),
        "port": int(one("port", "22")),
        "client_keys": files("identityfile"),
        "ignore_encrypted": "passphrase" not in options,
        "known_hosts": [path for path in known if exists(path)],
        "encryption_algs": prefer_fast(one("ciphers").split(",")),
        "compression_algs": ["zlib@openssh.com", "none"] if one("compression") == "yes" else ["none"],
    }
    if certificates := files("certificatefile"):
        arguments["client_certs"] = certificates
    if one("hostkeyalias"):
        arguments["host_key_alias"] = one("hostkeyalias")
    if one("connecttimeout"):
        arguments["connect_timeout"] = float(one("connecttimeout"))
    if one("serveraliveinterval", "0") != "0":
        arguments["keepalive_interval"] = float(one("serveraliveinterval"))
    if agent := settings.get("identityagent", [""])[0]:
        arguments["agent_path"] = _agent(expand(agent, tokens))
    if one("identitiesonly") == "yes":
        arguments["agent_identities"] = [f"{p}.pub" for p in arguments["client_keys"] if exists(f"{p}.pub")] or None
    if one("proxycommand"):
        arguments["proxy_command"] = expand(one("proxycommand"), tokens)
    if not arguments["client_keys"] and "client_keys" not in options:
        del arguments["client_keys"]  # an empty list means none at all, an agent's included
    taken = one("stricthostkeychecking", "ask")
    return Route(
        host=one("hostname"),
        arguments={**arguments, **options},
        jumps=() if "tunnel" in options else tuple(j for j in one("proxyjump").split(",") if j),
        strict={"no": "no", "off": "no", "false": "no", "accept-new": "accept-new"}.get(taken, "yes"),
        remember=known[0] if known else "",
    )


def expand(text: str, tokens: Mapping[str, str]) -> str:
    """`text` with ``%r`` and the like replaced (TOKENS in ssh_config(5)); ``ssh -G`` leaves them in some settings."""
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)


def _tokens(one: Callable[..., str]) -> dict[str, str]:
    name = socket.gethostname()
    return {
        "%": "%",
        "d": os.path.expanduser("~"),
        "h": one("hostname"),
        "i": str(os.getuid()) if hasattr(os, "getuid") else "",
        "j": one("proxyjump"),
        "k": one("hostkeyalias") or one("host") or one("hostname"),
        "L": name.partition(".")[0],
        "l": name,
        "n": one("host") or one("hostname"),
        "p": one("port", "22"),
        "r": one("user"),
        "u": getpass.getuser(),
    }


def prefer_fast(allowed: Sequence[str]) -> list[str]:
    """`allowed` ciphers with the fastest ones first; none is added."""
    names = [name for name in allowed if name]
    return [c for c in _FAST if c in names] + [c for c in names if c not in _FAST]


def _defaults() -> dict[str, Any]:
    return {"connect_timeout": _TIMEOUT, "keepalive_interval": _ALIVE}


def _agent(value: str) -> str | None:
    if value == "none":
        return None
    if value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK")
    return os.path.expanduser(os.path.expandvars(value))


def _unquote(path: str) -> str:
    return path[1:-1] if len(path) > 1 and path[0] == path[-1] == '"' else path
