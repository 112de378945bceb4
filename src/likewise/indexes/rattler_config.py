"""What ``config.toml`` says, which rattler and pixi read: mirrors of channels, and where credentials are kept.

Source: pixi's documentation ("The configuration of Pixi itself"): system, user, pixi's own home, the workspace. Later
files count more; ``PIXI_CONFIG_FILE`` stands in place of all but the workspace's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from likewise.indexes.stated import unreadable
from likewise.model.snapshot import Problem

_TRUE = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True)
class RattlerConfig:
    """What is configured.

    Attributes
    ----------
    mirrors : mapping
        Channel -> what is asked in its place; any of these URLs may hold a credential.
    credentials : Path or None
        The file that pixi looks for credentials in before it asks the system's keyring.
    """

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    credentials: Path | None = None


class _File(msgspec.Struct):
    mirrors: dict[str, list[str]] = {}
    credentials: str = msgspec.field(default="", name="authentication-override-file")
    credentials_once: str = msgspec.field(default="", name="authentication_override_file")


def read_rattler_config(environ: Mapping[str, str], home: Path, problems: list[Problem]) -> RattlerConfig:
    """Read it; what can't be read is told among `problems`."""
    mirrors: dict[str, tuple[str, ...]] = {}
    credentials = ""
    for path in _places(environ, home):
        try:
            file = msgspec.toml.decode(path.read_bytes(), type=_File)
        except OSError:
            continue
        except (msgspec.DecodeError, ValueError, RecursionError):  # their words may be the file's
            problems.append(unreadable(str(path), "can't be understood"))
            continue
        mirrors |= {channel: tuple(places) for channel, places in file.mirrors.items()}
        credentials = file.credentials or file.credentials_once or credentials
    return RattlerConfig(mirrors, Path(os.path.expanduser(credentials)) if credentials else None)


def _places(environ: Mapping[str, str], home: Path) -> Iterator[Path]:
    """All files that there may be, the one that counts most last."""
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    folders = [Path("/etc/rattler"), Path("/etc/pixi"), config / "rattler", config / "pixi"]
    if sys.platform == "darwin":
        folders += [home / "Library/Application Support" / name for name in ("rattler", "pixi")]
    folders.append(Path(environ.get("PIXI_HOME") or home / ".pixi"))
    places = [folder / "config.toml" for folder in folders]
    if chosen := environ.get("PIXI_CONFIG_FILE"):
        places = [Path(chosen)]
    elif environ.get("PIXI_NO_CONFIG", "").lower() in _TRUE:
        places = []
    yield from places
    if workspace := environ.get("PIXI_PROJECT_ROOT"):
        yield Path(workspace) / ".pixi" / "config.toml"
