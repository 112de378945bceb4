"""Files of conda, mamba and pixi: which one it is, and what it says of one environment on one platform."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from likewise.errors import UsageError
from likewise.formats.conda_env import FORM as ENVIRONMENT
from likewise.formats.conda_env import read_env
from likewise.formats.conda_lists import read_explicit, read_json, read_list
from likewise.formats.conda_lock import FORM as CONDA_LOCK
from likewise.formats.conda_lock import read_conda_lock
from likewise.formats.conda_values import CondaListing, Contents
from likewise.formats.documents import load_yaml
from likewise.formats.pixi_lock import read_pixi_lock
from likewise.model.subdirs import platform_of, subdir_of
from likewise.model.target import Platform

READABLE = "environment.yml, conda env export, conda list (text, JSON, explicit), conda-lock.yml or pixi.lock"
"""The formats, for people."""

DEFAULT = "default"
"""The environment of a ``pixi.lock`` that nobody has to name."""

_EXPLICIT = re.compile(r"^@EXPLICIT\s*$", re.MULTILINE)
_LIST = re.compile(
    r"^(# packages in environment at|# This file may be used to create an environment using|List of packages in env)"
    r"|^#?\s*Name\s+Version\s+Build",
    re.MULTILINE,
)
_YAML = re.compile(r"^(dependencies|environments|package|packages|metadata|channels|version):", re.MULTILINE)
_JSON_ENV = re.compile(
    r'^\s*\{(?:\s*"(?:name|prefix|channels)"\s*:\s*(?:"[^"]*"|\[[^\]]*\])\s*,)*\s*"dependencies"\s*:\s*\['
)
"""``conda env export --json``; JSON is YAML."""

_HEAD = 4096


def is_conda(text: str) -> bool:
    """Whether `text` is in one of these formats, as far as its beginning tells."""
    head = text.lstrip("\ufeff")[:_HEAD]
    if head.lstrip().startswith("["):
        return '"build_string"' in head or '"build"' in head
    if head.lstrip().startswith("{"):
        return _JSON_ENV.search(head) is not None
    if _EXPLICIT.search(text) or _LIST.search(head):
        return True
    return _YAML.search(head) is not None


def read_conda(text: str) -> CondaListing:
    """Read any of them. The content says what it is.

    Raises
    ------
    UsageError
        It is damaged, or in a version that is not known here.
    """
    text = text.lstrip("\ufeff")
    if text.lstrip().startswith("["):
        return read_json(text)
    if _EXPLICIT.search(text):
        return read_explicit(text)
    if _LIST.search(text[:_HEAD]):
        return read_list(text)
    document: Any = load_yaml(text, "file of conda's")
    if isinstance(document, Mapping):
        if "dependencies" in document:
            return read_env(text)
        if "package" in document:
            return read_conda_lock(document, form=CONDA_LOCK)
        if "environments" in document or "packages" in document:
            return read_pixi_lock(document)
    raise UsageError(f"This is no {ENVIRONMENT} and no lock of conda's or pixi's.", todo=f"Give {READABLE}.")


def choose(
    listing: CondaListing, *, client: Platform | None, machine: Platform, environment: str = ""
) -> tuple[Contents, Platform]:
    """What `listing` says of one environment on one platform, and which platform that is.

    Parameters
    ----------
    listing : CondaListing
    client : Platform, optional
        Default: the file's own platform; of several, that of `machine`, or the first one.
    machine : Platform
        This machine.
    environment : str
        Default: the one called ``default``, or the only one that has anything.

    Raises
    ------
    UsageError
        The file has no such environment or platform, or several environments and none is named.
    """
    name = _environment(listing, environment)
    places = {subdir: one for (owner, subdir), one in listing.contents.items() if owner == name}
    if list(places) == [""]:
        return places[""], client or machine
    wanted = subdir_of(client or machine)
    if wanted not in places and client is not None:
        raise UsageError(
            f"This {listing.form} is for {', '.join(sorted(places))}, and not for {wanted}.",
            todo="Name one of these: --client.",
            details={"platforms": sorted(places)},
        )
    subdir = wanted if wanted in places else next(iter(places))
    platform = platform_of(subdir)
    if platform is None:
        raise UsageError(f"{subdir!r} is no platform that is known here.", todo="Say what the client is: --client.")
    return places[subdir], client or platform


def _environment(listing: CondaListing, environment: str) -> str:
    names = list(dict.fromkeys(name for name, _ in listing.contents))
    if environment:
        if environment not in names:
            raise UsageError(
                f"This {listing.form} has no environment {environment!r}.",
                todo=f"It has {', '.join(filter(None, names)) or 'only one, which has no name'}.",
            )
        return environment
    filled = [
        name for name in names if any(c.packages or c.pins for (n, _), c in listing.contents.items() if n == name)
    ]
    if DEFAULT in filled or len(filled) == 1:
        return DEFAULT if DEFAULT in filled else filled[0]
    raise UsageError(
        f"This {listing.form} has several environments: {', '.join(filled)}.",
        todo="Say which one: --environment NAME.",
        details={"environments": filled},
    )
