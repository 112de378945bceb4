"""Which channel is which: names, aliases, mirrors and ``defaults``."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.indexes.conda_homes import Spellings

ROOT = "https://channels.example"
FORGE = f"{ROOT}/forge"
CONFIG = """
channel_alias: https://alias.example/conda
custom_channels: {corp: https://me:hunter2@corp.example/t/abc/channels}
default_channels: [https://copy.example/pkgs/main, https://copy.example/pkgs/r]
"""


def place(channel: str) -> str:
    """Where a name is when nothing is configured."""
    return channel if "://" in channel else f"{ROOT}/{channel}"


def spellings(home: Path, *, condarc: str = "", config: str = "") -> Spellings:
    """What these files say."""
    (home / ".condarc").write_text(condarc)
    (home / ".config" / "rattler").mkdir(parents=True, exist_ok=True)
    (home / ".config" / "rattler" / "config.toml").write_text(config)
    return Spellings({"CONDARC": str(home / ".condarc")}, home, place)


@pytest.mark.parametrize(
    "channel, asked, condarc",
    [
        ("forge", FORGE, ""),
        (FORGE, "forge", ""),
        (f"{FORGE}/", "forge", ""),
        ("https://me:hunter2@channels.example/t/abc/forge", "forge", ""),
        ("forge", "https://alias.example/conda/forge", CONFIG),
        (FORGE, "https://alias.example/conda/forge", CONFIG),
        ("corp/label/x", "https://corp.example/channels/corp/label/x", CONFIG),
        ("https://copy.example/pkgs/r", "defaults", CONFIG),
        ("https://elsewhere.example/pkgs/main", "defaults", CONFIG),
        ("pkgs/main", "defaults", ""),
        ("defaults", "main", ""),
    ],
)
def test_the_same_channel(tmp_path: Path, channel: str, asked: str, condarc: str) -> None:
    """In whatever spelling, with credentials or without."""
    found = spellings(tmp_path, condarc=condarc)
    assert found.meant(channel, ["https://other.example/forge", asked]) == (asked,)
    assert found.joined([asked], [channel]) == (asked,)


@pytest.mark.parametrize("mirrored", ["https://channels.example", "https://channels.example/forge"])
def test_a_mirror(tmp_path: Path, mirrored: str) -> None:
    """What rattler is told to ask in place of a channel is that channel."""
    tail = mirrored.removeprefix(ROOT)
    found = spellings(tmp_path, config=f'[mirrors]\n"{mirrored}" = ["https://me:hunter2@mirror.example/m{tail}"]\n')
    assert found.meant("https://mirror.example/m/forge", ["forge"]) == ("forge",)


@pytest.mark.parametrize("channel", ["https://other.example/forge", f"{FORGE}/label/dev", f"{FORGE}2", "corp"])
def test_another_channel(tmp_path: Path, channel: str) -> None:
    """One of the same name elsewhere is another one, as is a label."""
    assert spellings(tmp_path).meant(channel, ["forge"]) == ()
    assert spellings(tmp_path).joined(["forge"], [channel]) == ("forge", channel)


def test_the_order_of_the_configuration(tmp_path: Path) -> None:
    """What it does not name comes behind, as it was."""
    found = spellings(tmp_path, condarc="channels: [corp, forge]")
    assert found.ordered(["a", FORGE, "b", f"{ROOT}/corp"]) == (f"{ROOT}/corp", FORGE, "a", "b")
