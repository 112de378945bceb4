"""Bundles in folders: who may read them, what is written anew, and what readers see meanwhile."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.errors import StoreError, UsageError
from likewise.model.bundle import BootstrapFile
from likewise.model.digest import digest_bytes
from likewise.store.export import write_folder
from support.commands import likewise


def bundle(tmp_path: Path, **content: bytes) -> dict[str, BootstrapFile]:
    """A bundle of small files; those whose name begins with ``layers`` lie on the disk."""
    files = {}
    for key, data in content.items():
        name, path = key.replace("__", "/"), None
        if name.startswith("layers"):
            path = tmp_path / digest_bytes(data)
            path.write_bytes(data)
        files[name] = BootstrapFile(
            name=name, size=len(data), sha256=digest_bytes(data), path=path, data=b"" if path else data
        )
    return files


@pytest.fixture
def files(tmp_path: Path) -> dict[str, BootstrapFile]:
    """A layer, a kit and the script."""
    return bundle(tmp_path, script=b"#!/bin/sh\n", kits__k=b"kit", layers__ab__abc=b"layer")


@pytest.fixture(params=[0o077, 0o000, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """What people have in their profiles."""
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def modes(folder: Path) -> set[tuple[bool, int]]:
    """Of the folder and everything in it: whether it is a folder, and its permissions."""
    paths = [folder, *folder.rglob("*")]
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in the folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_permissions_do_not_depend_on_the_umask(files: dict[str, BootstrapFile], tmp_path: Path, umask: int) -> None:
    """What is written is for its owner alone, or for everybody's eyes, as was asked, and can be changed later."""
    folder = tmp_path / "new" / "folder"
    for shared, expected in ((False, {(True, 0o700), (False, 0o600)}), (True, {(True, 0o755), (False, 0o644)})):
        write_folder(folder, files, shared=shared, prune=False)
        assert modes(folder) == expected
    assert contents(folder) == {name: file.read() for name, file in files.items()}


def test_second_time_nothing_is_written(files: dict[str, BootstrapFile], tmp_path: Path) -> None:
    """Writing the same again leaves the files alone and says so."""
    first = write_folder(tmp_path / "f", files, shared=False, prune=False)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "f").rglob("*")}
    second = write_folder(tmp_path / "f", files, shared=False, prune=False)
    assert (first.written, first.unchanged, first.bytes) == (3, 0, sum(file.size for file in files.values()))
    assert (second.written, second.unchanged, second.bytes) == (0, 3, 0)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "f").rglob("*")} == before


@pytest.mark.parametrize("damage", [b"lay", b"LAYER", b"", None])
def test_damage_is_repaired(files: dict[str, BootstrapFile], tmp_path: Path, damage: bytes | None) -> None:
    """A file that was cut short, changed or removed is written again; whoever reads the old one keeps it."""
    write_folder(tmp_path / "f", files, shared=False, prune=False)
    path = tmp_path / "f" / "layers" / "ab" / "abc"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    with open(tmp_path / "f" / "script", "rb") as other, open(path if damage is not None else os.devnull, "rb") as old:
        assert write_folder(tmp_path / "f", files, shared=False, prune=False).written == 1
        assert (old.read(), other.read()) == (damage or b"", b"#!/bin/sh\n")
    assert path.read_bytes() == b"layer"


def test_former_environments_stay_until_pruned(files: dict[str, BootstrapFile], tmp_path: Path) -> None:
    """Other layers stay, as nodes may still be told to start in them; pruning removes them, and nothing of yours."""
    folder = tmp_path / "f"
    write_folder(folder, files, shared=False, prune=False)
    (folder / "notes.txt").write_text("mine")
    newer = {**files, **bundle(tmp_path, layers__ab__abd=b"newer")}
    del newer["layers/ab/abc"]
    assert write_folder(folder, newer, shared=False, prune=False).removed == 0
    assert set(contents(folder)) == {*files, *newer, "notes.txt"}
    assert write_folder(folder, newer, shared=False, prune=True).removed == 1
    assert set(contents(folder)) == {*newer, "notes.txt"}


def test_script_appears_last(files: dict[str, BootstrapFile], tmp_path: Path) -> None:
    """A writer that fails half-way has not yet replaced what leads to the rest, and leaves no half file."""
    gone = {**files, **bundle(tmp_path, layers__zz__zzz=b"gone")}
    gone["layers/zz/zzz"].path.unlink()  # type: ignore[union-attr]
    with pytest.raises(StoreError, match="can't be written"):
        write_folder(tmp_path / "f", gone, last=["script"], shared=False, prune=False)
    assert set(contents(tmp_path / "f")) == {"kits/k", "layers/ab/abc"}


def test_killed_writers_leave_nothing_for_long(files: dict[str, BootstrapFile], tmp_path: Path) -> None:
    """A temporary file of yesterday is removed; one of a moment ago may be somebody's."""
    folder = tmp_path / "f"
    write_folder(folder, files, shared=False, prune=False)
    for name, age in (("old", 2 * 86400), ("new", 0)):
        path = folder / f".likewise-{name}"
        path.touch()
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    write_folder(folder, files, shared=False, prune=False)
    assert [path.name for path in folder.glob(".*")] == [".likewise-new"]


def test_folder_of_everybody_is_refused(files: dict[str, BootstrapFile], tmp_path: Path) -> None:
    """Where everybody may write, anybody could replace the script that nodes run."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f").chmod(0o1777)
    with pytest.raises(UsageError, match="Everybody can write"):
        write_folder(tmp_path / "f", files, shared=True, prune=False)
    assert list((tmp_path / "f").iterdir()) == []


def test_file_in_the_way(files: dict[str, BootstrapFile], tmp_path: Path) -> None:
    """A file where a folder is needed is an error that names the place."""
    (tmp_path / "f").write_text("")
    with pytest.raises(UsageError, match="no folder"):
        write_folder(tmp_path / "f", files, shared=False, prune=False)
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "layers").write_text("")
    with pytest.raises(StoreError, match="can't be written"):
        write_folder(tmp_path / "g", files, shared=False, prune=False)


def test_places_are_checked_before_anything_else(tmp_path: Path) -> None:
    """A place that can't work is refused by the command line at once: nothing was scanned, and no folder made."""
    done = likewise("bundle", tmp_path / "f", "--store", "https://example.org/x", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["where"] == "script"
    assert "scan" not in done.stderr
    assert not (tmp_path / "f").exists()
