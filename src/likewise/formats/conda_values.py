"""What files of conda, mamba and pixi say, whatever their format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from likewise.formats.listing import Pin
from likewise.model.conda import UNKNOWN_CHANNEL, CondaPackage
from likewise.model.origins import redact
from likewise.model.snapshot import Problem
from likewise.model.subdirs import NOARCH, platform_of

PIP_CHANNELS = ("pypi", "<pip>", "pypi_0")
"""What conda writes in place of a channel, or of a build, for what pip installed."""

_ARCHIVE = re.compile(r"(?P<name>[^/]+)-(?P<version>[^-/]+)-(?P<build>[^-/]+)\.(?:tar\.bz2|conda)")
_TOKEN = re.compile(r"(^|/)t/[^/]+(?=/|$)/?")


@dataclass(frozen=True)
class Contents:
    """What one environment has on one platform.

    Attributes
    ----------
    packages : tuple of CondaPackage
        Sorted by name. One whose version is "" is only asked for (`CondaPackage.requested`), and may be any that suits.
    pins : tuple of Pin
        What pip installed, by version.
    requirements : tuple of str
        What pip is asked for (PEP 508), in any version that suits.
    channels : tuple of str
        Those that the file asks for, apart from its packages: URLs and names, without credentials, the first one first.
    """

    packages: tuple[CondaPackage, ...]
    pins: tuple[Pin, ...] = ()
    requirements: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


@dataclass(frozen=True)
class CondaListing:
    """What a file says.

    Attributes
    ----------
    form : str
        What the file is, for people: ``conda-lock.yml``.
    contents : mapping
        By name of the environment ("" where the file has one only) and subdir ("" where it does not say for which).
    problems : tuple of Problem
    secrets : mapping
        Channel URL without credentials -> as the file has it. For this process only.
    options : str
        Lines of a requirements file that tell pip where files are, perhaps with credentials. For this process only.
    """

    form: str
    contents: Mapping[tuple[str, str], Contents]
    problems: tuple[Problem, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: str = field(default="", repr=False)


def archive_of(url: str) -> CondaPackage | None:
    """What the URL (or path) of a package's archive says: channel, subdir, name, version, build; None for any other.

    Its fragment may be the archive's md5 or sha256, as in explicit lists (conda's documentation, "Explicit
    specification file"): 32 or 64 hexadecimal digits, or ``sha256:`` and the latter. Where the archive lies in no
    folder of a platform, that folder stands for the channel, which it hardly is, and the subdir is "".
    """
    plain, _, digest = url.partition("#")
    plain = plain.partition("?")[0]
    if "://" not in plain:
        plain = plain.replace("\\", "/")
    folder, _, filename = plain.rpartition("/")
    match = _ARCHIVE.fullmatch(unquote(filename))
    if match is None:
        return None
    channel, _, subdir = folder.rpartition("/")
    if subdir != NOARCH and platform_of(subdir) is None:
        channel, subdir = folder, ""
    if "://" not in channel:
        channel = f"file:///{channel.lstrip('/')}" if re.match("/|[A-Za-z]:/", channel) else ""
    digest = digest.strip()
    return CondaPackage(
        name=match["name"].lower(),
        version=match["version"],
        build=match["build"],
        channel=clean_channel(channel),
        subdir=subdir,
        url=redact(plain) if "://" in plain else "",
        sha256=hexadecimal(digest, 64),
        md5=hexadecimal(digest, 32),
    )


def hexadecimal(text: str, digits: int) -> str:
    """A hash of so many digits, in lower case and without the name of its algorithm; "" for anything else."""
    digest = text.lower().removeprefix("sha256:").removeprefix("md5:")
    return digest if re.fullmatch(f"[0-9a-f]{{{digits}}}", digest) else ""


def is_virtual(name: str) -> bool:
    """Whether it is a virtual package: something of a machine, and nothing that can be installed."""
    return name.startswith("__")


def clean_channel(text: str) -> str:
    """A channel's name or URL without credentials; "" for what is none."""
    text = text.strip()
    if text in UNKNOWN_CHANNEL:
        return ""
    if "://" in text:
        return redact(text).rstrip("/")
    return _TOKEN.sub(r"\1", text).strip("/")


def secret_channels(texts: tuple[str, ...]) -> dict[str, str]:
    """Of those URLs that hold a credential: without it -> with it."""
    cleaned = {clean_channel(text): text.strip().rstrip("/") for text in texts if "://" in text}
    return {clean: text for clean, text in cleaned.items() if clean and clean != text}


def channels_of(packages: tuple[CondaPackage, ...]) -> tuple[str, ...]:
    """The channels that packages came from, the one with the most packages first."""
    counts: dict[str, int] = {}
    for package in packages:
        if package.channel:
            counts[package.channel] = counts.get(package.channel, 0) + 1
    return tuple(sorted(counts, key=lambda channel: -counts[channel]))
