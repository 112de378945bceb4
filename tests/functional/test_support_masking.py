"""The masking helper, on which many proofs rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.masking import masked

pytestmark = pytest.mark.root


def test_a_masked_folder_is_empty_for_the_command_and_intact_for_everybody_else(tmp_path: Path) -> None:
    """A hidden folder is empty inside, keeps its files outside, and its neighbours stay visible."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    (tmp_path / "b").write_text("y")
    done = masked(["sh", "-c", f"ls {tmp_path}/a; cat {tmp_path}/b"], [tmp_path / "a"], check=True)
    assert done.stdout == "y"
    assert (tmp_path / "a" / "file").read_text() == "x"


def test_masked_files_and_links_are_absent_and_their_neighbours_are_not(tmp_path: Path) -> None:
    """A hidden file can't be opened, and a hidden link is gone though its target stays."""
    (tmp_path / "one file").write_text("1")
    (tmp_path / "two").write_text("2")
    (tmp_path / "link").symlink_to("two")
    done = masked(["ls", tmp_path], [tmp_path / "one file", tmp_path / "link"], check=True)
    assert done.stdout.split() == ["two"]


def test_hiding_what_is_not_there_is_refused(tmp_path: Path) -> None:
    """A misspelt path can't make a test pass by hiding nothing."""
    with pytest.raises(FileNotFoundError):
        masked(["true"], [tmp_path / "typo"])


def test_the_exit_code_and_both_streams_come_back(tmp_path: Path) -> None:
    """The helper is transparent: code, stdout, stderr, and the working directory."""
    done = masked(["sh", "-c", "pwd; echo no >&2; exit 3"], [], cwd=tmp_path)
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (3, str(tmp_path), "no")
