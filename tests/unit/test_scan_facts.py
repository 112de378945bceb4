"""Stat facts: what is known of files from earlier scans."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from likewise.model.digest import Digest, digest_bytes
from likewise.scanner import facts as module
from likewise.scanner.facts import KEEP_DAYS, Facts

CONTENT = digest_bytes(b"content")


@pytest.fixture
def old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is old enough to be trusted: the clock of the scan is ahead."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    ahead(monkeypatch, seconds=10)
    return path


def ahead(monkeypatch: pytest.MonkeyPatch, *, seconds: float) -> None:
    """Let the scan's clock be ahead of the real one."""
    now = time.time_ns
    monkeypatch.setattr(module.time, "time_ns", lambda: now() + int(seconds * 1e9))


def remembered(folder: Path, path: Path, digest: Digest = CONTENT) -> None:
    facts = Facts(folder, "/prefix")
    facts.remember(str(path), path.stat(), digest)
    facts.save()


def test_what_was_remembered_is_known_to_the_next_scan(old_file: Path, tmp_path: Path) -> None:
    """The digest comes back for the same stat facts, in another process's Facts of the same prefix alone."""
    remembered(tmp_path / "facts", old_file)
    assert Facts(tmp_path / "facts", "/prefix").digest(str(old_file), old_file.stat()) == CONTENT
    assert Facts(tmp_path / "facts", "/other").digest(str(old_file), old_file.stat()) is None


@pytest.mark.parametrize("change", ["content", "same size", "times put back", "replaced"])
def test_a_changed_file_is_unknown(change: str, old_file: Path, tmp_path: Path) -> None:
    """Size, mtime, ctime and inode all count: even a change that hides its mtime is seen."""
    remembered(tmp_path / "facts", old_file)
    before = old_file.stat()
    time.sleep(0.02)  # the resolution of time stamps
    if change == "content":
        old_file.write_bytes(b"something longer")
    elif change == "same size":
        old_file.write_bytes(b"CONTENT")
    elif change == "times put back":
        old_file.write_bytes(b"CONTENT")
        os.utime(old_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        (tmp_path / "new").write_bytes(b"CONTENT")
        os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(tmp_path / "new", old_file)
    assert Facts(tmp_path / "facts", "/prefix").digest(str(old_file), old_file.stat()) is None


def test_a_young_file_is_not_remembered(tmp_path: Path) -> None:
    """A file written less than two seconds before the scan may be written again under the same time stamp."""
    path = tmp_path / "young"
    path.write_bytes(b"content")
    remembered(tmp_path / "facts", path)
    assert Facts(tmp_path / "facts", "/prefix").digest(str(path), path.stat()) is None


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa1a\x01"])
def test_a_damaged_file_counts_as_empty(damage: bytes, old_file: Path, tmp_path: Path) -> None:
    """It is replaced by the next save."""
    remembered(tmp_path / "facts", old_file)
    (kept,) = (tmp_path / "facts").iterdir()
    kept.write_bytes(damage)
    assert Facts(tmp_path / "facts", "/prefix").digest(str(old_file), old_file.stat()) is None
    remembered(tmp_path / "facts", old_file)
    assert Facts(tmp_path / "facts", "/prefix").digest(str(old_file), old_file.stat()) == CONTENT


def test_a_folder_that_cannot_be_written_costs_only_time(old_file: Path, tmp_path: Path) -> None:
    """Saving where there is no folder to be had does not fail."""
    (tmp_path / "occupied").write_text("a file")
    remembered(tmp_path / "occupied", old_file)
    assert (tmp_path / "occupied").read_text() == "a file"


def test_nothing_new_is_not_written(old_file: Path, tmp_path: Path) -> None:
    """A scan that learnt nothing leaves the file alone."""
    remembered(tmp_path / "facts", old_file)
    (kept,) = (tmp_path / "facts").iterdir()
    before = kept.stat().st_ino
    facts = Facts(tmp_path / "facts", "/prefix")
    assert facts.digest(str(old_file), old_file.stat()) == CONTENT
    facts.save()
    assert kept.stat().st_ino == before


def test_facts_that_nobody_asks_for_are_forgotten(
    old_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a month without use they are dropped at the next save; those in use stay."""
    other = tmp_path / "other"
    other.write_bytes(b"content")
    facts = Facts(tmp_path / "facts", "/prefix")
    for path in (old_file, other):
        facts.remember(str(path), path.stat(), CONTENT)
    facts.save()
    for days in (KEEP_DAYS - 1, KEEP_DAYS + 1):
        ahead(monkeypatch, seconds=days * 86400)
        facts = Facts(tmp_path / "facts", "/prefix")
        assert facts.digest(str(old_file), old_file.stat()) == CONTENT
        facts.save()
    facts = Facts(tmp_path / "facts", "/prefix")
    assert facts.digest(str(old_file), old_file.stat()) == CONTENT
    assert facts.digest(str(other), other.stat()) is None


def test_two_scans_that_save_at_once_leave_one_whole_file(old_file: Path, tmp_path: Path) -> None:
    """Saving is atomic: whoever comes last wins, and nothing temporary remains."""
    barrier = threading.Barrier(4)

    def scan() -> None:
        facts = Facts(tmp_path / "facts", "/prefix")
        facts.remember(str(old_file), old_file.stat(), CONTENT)
        barrier.wait()
        facts.save()

    threads = [threading.Thread(target=scan) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((tmp_path / "facts").iterdir())) == 1
    assert Facts(tmp_path / "facts", "/prefix").digest(str(old_file), old_file.stat()) == CONTENT
