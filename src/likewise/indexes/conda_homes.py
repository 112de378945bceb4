"""Which channel is which: in another spelling, behind a mirror or an alias, or as a part of ``defaults``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from likewise.indexes.conda_config import DEFAULTS, located, read_conda_config
from likewise.indexes.conda_mirrors import find_mirrors
from likewise.model.origins import local_path, redact, redact_channel

_OF_DEFAULTS = re.compile(r"(?:.*/)?pkgs/(?:main|r|free|pro|msys2)")
"""What ``defaults`` consists of, wherever that lies (conda's documentation, "Default channels")."""

_LISTS = ("repodata.json", "repodata.json.zst", "repodata.json.bz2", "repodata_shards.msgpack.zst")


class Spellings:
    """Knows what conda and rattler are configured to take for a channel.

    Parameters
    ----------
    environ : mapping
        Environment variables.
    home : Path
    place : callable
        From a channel's name or URL to its URL, where nothing is configured.
    """

    def __init__(self, environ: Mapping[str, str], home: Path, place: Callable[[str], str]) -> None:
        self._config, self._place = read_conda_config(environ, home, []), place
        mirrors = find_mirrors(environ, home, []).items()
        self._mirrors = {redact(one.reveal()).rstrip("/"): url for url, some in mirrors for one in some}
        self._root = place("name").rstrip("/").removesuffix("name")

    def meant(self, channel: str, asked: Iterable[str]) -> tuple[str, ...]:
        """Those of `asked` that are `channel`, or a part of it."""
        clean, keys = redact_channel(channel).rstrip("/"), self._keys(channel)
        if clean.startswith(self._root):  # what the name stands for may be configured to lie elsewhere
            keys |= self._keys(clean.removeprefix(self._root))
        asked = tuple(asked)
        found = tuple(one for one in asked if keys & self._keys(one))
        if not found and _OF_DEFAULTS.fullmatch(clean):
            keys = self._keys(DEFAULTS)
            found = tuple(one for one in asked if keys & self._keys(one))
        return found

    def joined(self, named: Iterable[str], further: Iterable[str]) -> tuple[str, ...]:
        """`named`, and those of `further` that are none of them in another spelling."""
        found = list(named)
        for one in further:
            if not self.meant(one, found):
                found.append(one)
        return tuple(found)

    def ordered(self, channels: Sequence[str]) -> tuple[str, ...]:
        """`channels`, those that conda is configured to ask first, in that order."""
        order = {key: n for n, name in reversed([*enumerate(self._config.channels)]) for key in self._keys(name)}
        return tuple(sorted(channels, key=lambda one: min(order.get(key, len(order)) for key in self._keys(one))))

    def _keys(self, channel: str) -> set[str]:
        """One spelling of all that there are, of each channel that it is."""
        return {self._key(redact_channel(one).rstrip("/")) for one in located(channel, self._config)}

    def _key(self, channel: str) -> str:
        url = self._place(channel).rstrip("/")
        mirror = max((one for one in self._mirrors if f"{url}/".startswith(f"{one}/")), key=len, default="")
        return self._place(self._mirrors[mirror]).rstrip("/") + url[len(mirror) :] if mirror else url


def is_folder_alone(channel: str) -> bool:
    """Whether it is a folder of this machine that is no channel, such as the one that an archive was installed from."""
    path = local_path(channel)
    return bool(path) and not any((Path(path) / "noarch" / name).is_file() for name in _LISTS)
