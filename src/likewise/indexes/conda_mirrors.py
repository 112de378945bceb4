"""Mirrors of conda's channels, as rattler and pixi are told of them.

Source: pixi's documentation ("Mirror configuration"): the table ``mirrors`` of each ``config.toml``. Where a channel
has mirrors, they are asked in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from likewise.indexes.rattler_config import RattlerConfig, read_rattler_config
from likewise.indexes.secret import Secret
from likewise.model.snapshot import Problem

Mirrors = Mapping[str, tuple[Secret, ...]]
"""The beginning of a URL → what stands there instead, the first one first; a mirror's URL may hold a credential."""


def find_mirrors(environ: Mapping[str, str], home: Path, problems: list[Problem]) -> Mirrors:
    """The mirrors that are configured; what can't be read is told among `problems`."""
    return mirrors_of(read_rattler_config(environ, home, problems))


def mirrors_of(config: RattlerConfig) -> Mirrors:
    """The mirrors that `config` names."""
    return {
        channel.rstrip("/"): tuple(Secret(one.rstrip("/")) for one in mirrors)
        for channel, mirrors in config.mirrors.items()
    }


def mirrored(url: str, mirrors: Mirrors) -> tuple[Secret, ...]:
    """Where the file at `url` is fetched, the best place first: there, if it has no mirrors."""
    fitting = [channel for channel in mirrors if url.startswith(f"{channel}/")]
    if not fitting:
        return (Secret(url),)
    channel = max(fitting, key=len)
    return tuple(Secret(one.reveal() + url[len(channel) :]) for one in mirrors[channel])
