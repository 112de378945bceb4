"""What conda's configuration says about channels and package caches: ``.condarc``, in all of its places (conda's
documentation, "Searching for .condarc"), and mamba's ``.mambarc``. Later files count more; lists of default channels
replace each other, mappings and package caches are joined.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from likewise.indexes.secret import Secret
from likewise.indexes.stated import unreadable
from likewise.model.snapshot import Problem

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_FALSE = frozenset({"false", "no", "off", "0", "n"})

DEFAULTS = "defaults"
OWN_DEFAULTS = ("main", "r")
"""What ``defaults`` means where nobody has said it: names beneath the place of all channels."""


@dataclass(frozen=True)
class SignIn:
    """How one signs in to a channel (conda's ``channel_settings``, of which conda-auth takes what it needs).

    Attributes
    ----------
    channel : str
        A name, a URL, or a pattern of URLs.
    how : str
        ``token``, ``http-basic``, or what another plugin understands.
    user : str
        "" where the place of the secret says it.
    target : str
        The name under which the secret is kept, "" for the channel's.
    secret : Secret or None
        A token or password that the configuration itself has.
    """

    channel: str = field(repr=False)
    how: str
    user: str = ""
    target: str = ""
    secret: Secret | None = None


@dataclass
class CondaConfig:
    """Where channels are, as somebody configured it. Any of these texts may hold a credential.

    Attributes
    ----------
    alias : str
        What the name of a channel stands behind, "" for conda's own place.
    default_channels : list of str
        What ``defaults`` means; empty for conda's own.
    channels : list of str
        What is asked when nobody names channels.
    custom : dict
        Name, or the first part of one -> what it stands behind.
    several : dict
        A name that means several channels (``custom_multichannels``) -> these, the first one first.
    auth : list of SignIn
        The last one that is meant counts.
    tokens : bool
        Whether tokens that anaconda-client keeps are put into URLs.
    pkgs_dirs : list of str
        Where packages are kept that were fetched; paths, the one that counts most first.
    """

    alias: str = field(default="", repr=False)
    default_channels: list[str] = field(default_factory=list, repr=False)
    channels: list[str] = field(default_factory=list, repr=False)
    custom: dict[str, str] = field(default_factory=dict, repr=False)
    several: dict[str, list[str]] = field(default_factory=dict, repr=False)
    auth: list[SignIn] = field(default_factory=list, repr=False)
    tokens: bool = True
    pkgs_dirs: list[str] = field(default_factory=list)


def read_conda_config(environ: Mapping[str, str], home: Path, problems: list[Problem]) -> CondaConfig:
    """Read it; what can't be read is told among `problems`."""
    found = CondaConfig()
    for path in _places(environ, home):
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        try:
            value = yaml.load(text, Loader=yaml.BaseLoader)
        except (yaml.YAMLError, RecursionError):  # their words may be the file's
            problems.append(unreadable(str(path), "is no YAML"))
            continue
        if isinstance(value, dict):
            _join(found, value, environ)
    found.tokens = _is_true(environ.get("CONDA_ADD_ANACONDA_TOKEN"), found.tokens)
    return found


def _places(environ: Mapping[str, str], home: Path) -> list[Path]:
    """All files that there may be, the one that counts most last."""
    roots = [Path("/etc/conda"), Path("/var/lib/conda")]
    program = environ.get("CONDA_EXE")  # <root>/bin/conda
    own = Path(program).parent.parent if program else None
    if root := environ.get("CONDA_ROOT") or own or environ.get("MAMBA_ROOT_PREFIX"):
        roots.append(Path(root))
    roots += [Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "conda", home / ".conda"]
    places = [place for root in roots for place in _within(root)]
    places += [home / ".condarc", home / ".mambarc"]
    if prefix := environ.get("CONDA_PREFIX"):
        places += _within(Path(prefix))
    places += [Path(os.path.expanduser(environ[name])) for name in ("CONDARC", "MAMBARC") if environ.get(name)]
    return places


def _within(folder: Path) -> list[Path]:
    more = sorted(path for path in (folder / "condarc.d").glob("*") if path.suffix in (".yml", ".yaml"))
    return [folder / ".condarc", folder / "condarc", *more]


def _join(found: CondaConfig, value: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    def known(one: str) -> str:
        return _VARIABLE.sub(lambda match: environ.get(match[1] or match[2], match[0]), one)

    def text(one: str) -> str:
        return known(one).strip().rstrip("/")

    def texts(one: Any) -> list[str]:
        return [text(item) for item in (one if isinstance(one, list) else [one]) if isinstance(item, str) and item]

    if isinstance(alias := value.get("channel_alias"), str):
        found.alias = text(alias)
    found.default_channels = texts(value.get("default_channels", [])) or found.default_channels
    found.channels = texts(value.get("channels", [])) or found.channels
    found.pkgs_dirs = [*texts(value.get("pkgs_dirs", [])), *found.pkgs_dirs]
    custom = value.get("custom_channels")
    if isinstance(custom, dict):
        found.custom |= {name: text(url) for name, url in custom.items() if isinstance(url, str)}
    several = value.get("custom_multichannels")
    if isinstance(several, dict):
        found.several |= {name: texts(channels) for name, channels in several.items()}
    settings = value.get("channel_settings")
    found.auth += [_sign_in(one, known) for one in (settings if isinstance(settings, list) else []) if _says_how(one)]
    for name in ("add_binstar_token", "add_anaconda_token"):
        found.tokens = _is_true(value.get(name), found.tokens)


def _says_how(one: Any) -> bool:
    return isinstance(one, dict) and all(isinstance(one.get(key), str) and one[key] for key in ("channel", "auth"))


def _sign_in(one: Mapping[str, Any], known: Callable[[str], str]) -> SignIn:
    how = one["auth"].strip()

    def text(key: str) -> str:
        return known(value) if isinstance(value := one.get(key), str) else ""

    secret = text("token" if how == "token" else "password")
    channel = text("channel").strip().rstrip("/")
    return SignIn(channel, how, text("username"), text("auth_target"), Secret(secret) if secret else None)


def _is_true(said: Any, before: bool) -> bool:
    return said.strip().lower() not in _FALSE if isinstance(said, str) and said else before


def located(name: str, config: CondaConfig) -> tuple[str, ...]:
    """Where a channel is: a URL, or its name for conda's own place (conda's documentation, "Channels").

    ``defaults`` is several, and so is what is configured to be (``custom_multichannels``).
    """
    name = name.strip().rstrip("/")
    several = (config.default_channels or OWN_DEFAULTS) if name == DEFAULTS else config.several.get(name)
    if several:
        return tuple(place for one in several if one != name for place in _located(one, config))
    return _located(name, config)


def _located(name: str, config: CondaConfig) -> tuple[str, ...]:
    """Where one channel is; what is among several is no name of several itself."""
    name = name.strip().rstrip("/")
    if "://" in name or not name:
        return (name,) if name else ()
    first = name.partition("/")[0]
    base = config.custom.get(name) or config.custom.get(first) or config.alias
    return (f"{base}/{name}",) if base else (name,)


@lru_cache(maxsize=1)
def own_place() -> str:
    """The URL that all names of channels stand behind where nobody has said another: rattler knows it, "" without."""
    try:
        from rattler import Channel
    except ImportError:
        return ""
    return str(Channel("x").base_url).rstrip("/").removesuffix("/x")
