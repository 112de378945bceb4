"""The folder of derived files."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from likewise.layers.relocate import Derived
from likewise.model.digest import Digest
from support.replica import NoFacts


class BothHaveRead(NoFacts):
    """Lets nobody go on before two have read a file."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=60)

    def remember(self, path: str, stat: os.stat_result, digest: Digest) -> None:
        """Wait for the other."""
        self._barrier.wait()


def make(path: str) -> None:
    """What every caller derives."""
    Path(path).write_text("derived")


def test_two_that_find_a_damaged_file_at_once_both_get_it_whole(tmp_path: Path) -> None:
    """Who comes second neither fails nor takes away what the first was given."""
    damaged = Path(Derived(tmp_path, NoFacts()).file("key", make=make))
    for _ in range(20):
        damaged.write_text("dam")
        derived = Derived(tmp_path, BothHaveRead())
        with ThreadPoolExecutor(2) as pool:
            paths = list(pool.map(lambda _, derived=derived: derived.file("key", make=make), range(2)))
        assert paths == [str(damaged)] * 2
        assert damaged.read_text() == "derived"


def test_many_that_make_one_file_at_once_get_the_same(tmp_path: Path) -> None:
    """Losing the race is no failure, and leaves nothing behind."""
    start = threading.Barrier(8, timeout=60)

    def call(key: str) -> str:
        start.wait()
        return Derived(tmp_path, NoFacts()).file(key, make=make)

    with ThreadPoolExecutor(8) as pool:
        for key in map(str, range(20)):
            assert len(set(pool.map(call, [key] * 8))) == 1
    assert [p for p in tmp_path.rglob("*") if p.name.startswith(".")] == []
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 20
