"""Stat facts of many paths, and whose directories can be believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from likewise.scanner.stats import RACY_NS, facts_of, file_system, is_young, join_paths, kind_in, pack, split_paths

MOUNTS = [
    b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
    b"40 27 0:40 / /home/a\\040b rw shared:1 - nfs4 server:/home rw",
    b"41 27 0:41 / /mnt rw - tmpfs none rw",
    b"42 41 0:42 / /mnt rw master:2 - fuse.bucket bucket rw",
    b"nonsense",
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"/usr/lib", "ext4"),
        (b"/", "ext4"),
        (b"/home/a b", "nfs4"),
        (b"/home/a b/c", "nfs4"),
        (b"/home/a bc", "ext4"),
        (b"/mnt/x", "fuse.bucket"),
        (b"/mntx", "ext4"),
    ],
)
def test_the_innermost_and_latest_mount_counts(path: bytes, kind: str) -> None:
    """The file system of a path is that of the last mount on the nearest place above it."""
    assert kind_in(MOUNTS, path) == kind


def test_without_mounts_nothing_is_told() -> None:
    """Where the kernel has no list of mounts, no file system is named."""
    assert kind_in([], b"/x") == ""


def test_this_machine_has_file_systems(tmp_path: Path) -> None:
    """The kernel's own list is understood."""
    assert file_system("/proc") == "proc"
    assert file_system(str(tmp_path.resolve())) not in ("", "proc")


def test_facts_tell_files_apart(tmp_path: Path) -> None:
    """Paths with the same facts give the same bytes; another order, or one path less, others."""
    paths = [str(tmp_path / name) for name in "abc"]
    for path in paths:
        Path(path).write_text(path)
    assert facts_of("/", paths) == pack(map(os.lstat, paths)) != b""
    assert len({facts_of("/", paths), facts_of("/", paths[::-1]), facts_of("/", paths[:2])}) == 3
    assert facts_of("/", [*paths, "missing"]) == b""
    assert facts_of("/", ["a\0b"]) == b""


def test_a_link_has_facts_of_its_own(tmp_path: Path) -> None:
    """What a link leads to is another file."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert facts_of("/", [str(tmp_path / "link")]) != facts_of("/", [str(tmp_path / "file")])


def test_one_young_file_makes_all_young(tmp_path: Path) -> None:
    """A file is young until two seconds after its last change, whichever of its times is the later."""
    for name in "ab":
        (tmp_path / name).touch()
    os.utime(tmp_path / "a", ns=(0, 0))
    facts = facts_of("/", [str(tmp_path / "a"), str(tmp_path / "b")])
    newest = max((tmp_path / name).stat().st_ctime_ns for name in "ab")
    assert is_young(facts, newest + RACY_NS - 1)
    assert not is_young(facts, newest + RACY_NS)


def test_paths_come_back() -> None:
    """Names that are no UTF-8 too."""
    paths = ["/a/b", "/ä", os.fsdecode(b"/\xff")]
    assert split_paths(join_paths(paths)) == paths
    assert split_paths(join_paths([])) == []
