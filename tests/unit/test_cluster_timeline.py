"""What ``likewise run --profile`` asks the processes of a cluster."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from likewise.cluster import timeline


def test_a_process_began_when_it_was_made() -> None:
    """The moment is that of the fork, before it became another program, to a hundredth of a second."""
    before = time.time()
    # a shell that becomes Python after a while, as bootstrap.sh does
    process = subprocess.Popen(["sh", "-c", "sleep 0.3; exec sleep 60"])
    try:
        after = time.time()
        time.sleep(0.5)
        assert before - 0.02 <= timeline.began(process.pid) <= after + 0.02
        assert timeline.began(process.pid) == pytest.approx(psutil.Process(process.pid).create_time(), abs=1.1)
    finally:
        process.kill()
        process.wait()


def test_python_began_when_launch_made_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of the working directory counts where ``launch`` made it; anywhere else nothing is known."""
    prefix, own = tmp_path / "prefixes" / "0123", tmp_path / "work" / "host.7"
    own.mkdir(parents=True)
    os.utime(own, (1000.0, 1000.0))
    monkeypatch.chdir(own)
    assert timeline.entered(str(prefix)) == 1000.0
    monkeypatch.chdir(tmp_path)
    assert timeline.entered(str(prefix)) is None


def test_a_growing_prefix_is_watched_until_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers have the times of their files, those there before the first look too; the end is when the folder goes."""
    there = tmp_path / "growing" / "there"
    there.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(timeline, "_growths", {})

    async def grow() -> dict[str, object]:
        (there / "aa").touch()
        os.utime(there / "aa", (1000.0, 1000.0))
        await timeline.follow()
        (there / "bb").touch()
        os.utime(there / "bb", (2000.0, 2000.0))
        while "bb" not in (told := await timeline.followed())["layers"]:
            await asyncio.sleep(0.01)
        assert told["complete"] is None
        shutil.rmtree(tmp_path / "growing")
        while (told := await timeline.followed())["complete"] is None:
            await asyncio.sleep(0.01)
        return told

    started = time.time()
    told = asyncio.run(asyncio.wait_for(grow(), 20))
    assert told["layers"] == {"aa": 1000.0, "bb": 2000.0}
    assert isinstance(told["complete"], float) and started <= told["complete"] <= time.time()


@pytest.mark.parametrize(
    ("left", "expected", "complete"),
    [("aa 1000.5\nbb 1002.25\n", {"aa": 1000.5, "bb": 1002.25}, 1002.25), ("\n", {}, None), (None, {}, None)],
)
def test_what_came_before_anybody_watched_is_in_what_the_filler_left(
    left: str | None,
    expected: dict[str, float],
    complete: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a prefix that was completed in this launch the times are known all the same; of one from before, none."""
    (tmp_path / "used").mkdir()
    if left is not None:
        (tmp_path / "used" / "0123").write_text(left)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefixes" / "0123"))
    monkeypatch.setattr(timeline, "_growths", {})

    async def ask() -> dict[str, object]:
        await timeline.follow()
        return await timeline.followed()

    assert asyncio.run(ask()) == {"layers": expected, "complete": complete}
