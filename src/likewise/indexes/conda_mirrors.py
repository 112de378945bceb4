"""Mirrors of conda's channels, as rattler and pixi are told of them.

Source: pixi's documentation ("Mirror configuration"): the table ``mirrors`` of each ``config.toml``. Where a channel
has mirrors, they are asked in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from likewise.indexes.secret import Secret
from likewise.indexes.stated import unreadable
from likewise.model.snapshot import Problem

Mirrors = Mapping[str, tuple[Secret, ...]]
"""The beginning of a URL → what stands there instead, the first one first; a mirror's URL may hold a credential."""


class _Config(msgspec.Struct):
    mirrors: dict[str, list[str]] = {}


def find_mirrors(environ: Mapping[str, str], home: Path, problems: list[Problem]) -> Mirrors:
    """The mirrors that are configured; what can't be read is told among `problems`."""
    found: dict[str, tuple[Secret, ...]] = {}
    for path in _places(environ, home):
        try:
            config = msgspec.toml.decode(path.read_bytes(), type=_Config)
        except OSError:
            continue
        except (msgspec.DecodeError, ValueError, RecursionError):  # their words may be the file's
            problems.append(unreadable(str(path), "can't be understood"))
            continue
        for channel, mirrors in config.mirrors.items():
            found[channel.rstrip("/")] = tuple(Secret(one.rstrip("/")) for one in mirrors)
    return found


def mirrored(url: str, mirrors: Mirrors) -> tuple[Secret, ...]:
    """Where the file at `url` is fetched, the best place first: there, if it has no mirrors."""
    fitting = [channel for channel in mirrors if url.startswith(f"{channel}/")]
    if not fitting:
        return (Secret(url),)
    channel = max(fitting, key=len)
    return tuple(Secret(one.reveal() + url[len(channel) :]) for one in mirrors[channel])


def _places(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    """All files that there may be, the one that counts most last."""
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    folders = [Path("/etc/rattler"), Path("/etc/pixi"), config / "rattler", config / "pixi"]
    return (folder / "config.toml" for folder in (*folders, Path(environ.get("PIXI_HOME") or home / ".pixi")))
