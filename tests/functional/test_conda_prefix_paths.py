"""The paths of a prefix that files are found to have: found among much else, and only where they are the prefix."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from likewise.scanner import conda_spellings
from likewise.scanner.conda_spellings import Spellings


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix that has another path by way of ``link``, and one ``by-name``."""
    folder = tmp_path / "real" / "prefix"
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "by-name").symlink_to(folder)
    return folder


def test_what_files_have(prefix: Path, tmp_path: Path) -> None:
    """In scripts and flags, and among the bytes of a program that look like paths; each is found once."""
    link, name = f"{tmp_path}/link/prefix", f"{tmp_path}/by-name"
    random.seed(1)
    noise = random.randbytes(1 << 16).replace(b"/", b"\0/")
    spellings = Spellings(str(prefix))
    text = f"#!/usr/bin/env sh\nx='{prefix}/x' /usr/lib/../lib\nexec {link}/bin/python -I{name}/include {link}/lib\n"
    assert list(spellings.of(noise + text.encode() + noise)) == [str(prefix), link, name]
    assert list(spellings.of(b"")) == spellings.known == [str(prefix), link, name]
    assert spellings.beginning(f"{link}/lib") == link
    assert spellings.beginning(f"{link}-old/lib") is None


def test_what_is_not_the_prefix(prefix: Path, tmp_path: Path) -> None:
    """Other folders, what is gone, ways round it, and names that are no text."""
    (tmp_path / "other").mkdir()
    (prefix / "self").symlink_to(".")
    paths = [tmp_path / "other/x", tmp_path / "gone/x", prefix / "self/x", tmp_path / "other/../real/prefix"]
    data = "\n".join(map(str, paths)).encode() + b"\n" + os.fsencode(tmp_path) + b"/\xff\xfe/x\n"
    assert list(Spellings(str(prefix)).of(data)) == [str(prefix)]


def test_a_prefix_behind_a_link(prefix: Path, tmp_path: Path) -> None:
    """With all links resolved it is known at once."""
    assert Spellings(str(tmp_path / "by-name")).known == [str(tmp_path / "by-name"), str(prefix)]


def test_the_disk_is_not_asked_for_everything(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place is asked for once, and no more than so many."""
    asked: list[str] = []
    real = conda_spellings._identity
    monkeypatch.setattr(conda_spellings, "_identity", lambda place: asked.append(place) or real(place))
    monkeypatch.setattr(conda_spellings, "MOST_LOOKS", 50)
    spellings = Spellings(str(prefix))
    data = "".join(f"/gone/{n}/x\n/usr/{n}/x\n" for n in range(1_000)).encode()
    for _ in range(2):
        assert list(spellings.of(data + f"{tmp_path}/link/prefix".encode())) == [str(prefix)]
    assert len(asked) == len(set(asked)) == 51
