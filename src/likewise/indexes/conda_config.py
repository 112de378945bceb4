"""What conda's configuration says about channels and package caches: ``.condarc``, in all of its places (conda's
documentation, "Searching for .condarc"), and mamba's ``.mambarc``. Later files count more; lists of default channels
replace each other, mappings and package caches are joined.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from likewise.indexes.stated import unreadable
from likewise.model.snapshot import Problem

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


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
    auth : dict
        Channel -> how one signs in, and as whom (conda-auth's ``channel_settings``).
    pkgs_dirs : list of str
        Where packages are kept that were fetched; paths, the one that counts most first.
    """

    alias: str = ""
    default_channels: list[str] = field(default_factory=list, repr=False)
    channels: list[str] = field(default_factory=list, repr=False)
    custom: dict[str, str] = field(default_factory=dict, repr=False)
    auth: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
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
    return found


def _places(environ: Mapping[str, str], home: Path) -> list[Path]:
    """All files that there may be, the one that counts most last."""
    roots = [Path("/etc/conda"), Path("/var/lib/conda")]
    if root := environ.get("CONDA_ROOT") or environ.get("MAMBA_ROOT_PREFIX"):
        roots.append(Path(root))
    roots += [Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "conda", home / ".conda"]
    places = [root / name for root in roots for name in (".condarc", "condarc")]
    places += [home / ".condarc", home / ".mambarc"]
    if prefix := environ.get("CONDA_PREFIX"):
        places.append(Path(prefix) / ".condarc")
    places += [Path(os.path.expanduser(environ[name])) for name in ("CONDARC", "MAMBARC") if environ.get(name)]
    return places


def _join(found: CondaConfig, value: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    def text(one: Any) -> str:
        known = _VARIABLE.sub(lambda match: environ.get(match[1] or match[2], match[0]), one)
        return known.strip().rstrip("/")

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
    settings = value.get("channel_settings")
    for one in settings if isinstance(settings, list) else []:
        if isinstance(one, dict) and isinstance(one.get("channel"), str) and isinstance(one.get("auth"), str):
            found.auth[text(one["channel"])] = (one["auth"], str(one.get("username", "")))
