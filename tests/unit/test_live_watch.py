"""What was touched is seen without a scan."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from likewise.cluster.watch import Watch

LONG_AGO = time.time() - 1000


def touch(path: Path, text: str = "x = 1\n", *, when: float = LONG_AGO) -> Path:
    """A file that was written at a certain time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (when, when))
    for folder in (path.parent, path.parent.parent):
        os.utime(folder, (when, when))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A file, a site directory and a source tree."""
    touch(tmp_path / "loose" / "mine.py")
    touch(tmp_path / "site" / "one.py")
    touch(tmp_path / "editable" / "src" / "two.py")
    return tmp_path


def watch(tree: Path, since: float = LONG_AGO + 1) -> Watch:
    """A watch over it."""
    return Watch([str(tree / "loose" / "mine.py")], [str(tree / "site")], [str(tree / "editable")], since=since)


def test_nothing_was_touched(tree: Path) -> None:
    """What stays as it is has not changed, and reading it is no change."""
    watching = watch(tree)
    (tree / "loose" / "mine.py").read_text()
    assert not watching.changed()


@pytest.mark.parametrize("path", ["loose/mine.py", "site/new-1.0.dist-info/METADATA", "editable/src/two.py"])
def test_an_edit(tree: Path, path: str) -> None:
    """An edited file, a new distribution and an edit deep in a source tree are seen, whatever their time says."""
    watching = watch(tree)
    (tree / path).parent.mkdir(exist_ok=True)
    (tree / path).write_text("x = 'other'\n")
    os.utime(tree / path, (LONG_AGO - 500, LONG_AGO - 500))
    assert watching.changed()


def test_a_new_module_and_a_removed_one(tree: Path) -> None:
    """A file that appears in a watched tree is seen, and one that is gone."""
    watching = watch(tree)
    touch(tree / "editable" / "src" / "three.py")
    assert watching.changed()
    watching = watch(tree)
    (tree / "loose" / "mine.py").unlink()
    assert watching.changed()


def test_what_no_sources_are_in(tree: Path) -> None:
    """Bytecode, build folders and hidden ones beneath a source tree don't count."""
    watching = watch(tree)
    for name in ("__pycache__/two.pyc", ".git/index", "build/x.o"):
        touch(tree / "editable" / "src" / name)
    assert not watching.changed()


def test_what_was_touched_before_the_watch_began(tree: Path) -> None:
    """What is newer than the scan that the watch follows counts as changed: the scan may not have seen it."""
    assert watch(tree, since=LONG_AGO - 1).changed()


def test_the_search_path(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another entry on ``sys.path``, or another working directory, is a change."""
    watching = watch(tree)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tree / "loose")])
    assert watching.changed()
    monkeypatch.undo()
    monkeypatch.chdir(tree)
    assert watching.changed()
