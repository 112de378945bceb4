"""Forked helpers: each piece of work is done once, and whatever happens to a helper is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from likewise.errors import NodeError
from likewise.node.helpers import run_forked


@pytest.mark.parametrize("helpers", [1, 2, 8])
def test_everything_is_done_once(tmp_path: Path, helpers: int) -> None:
    """However many helpers there are, each number is worked on by exactly one, and results come in order."""

    def work(number: int) -> bytes:
        with (tmp_path / "done").open("ab", buffering=0) as file:
            file.write(number.to_bytes(2, "little"))
        return b"%d" % number

    assert run_forked(3000, work, helpers) == [b"%d" % n for n in range(3000)]
    done = (tmp_path / "done").read_bytes()
    assert sorted(int.from_bytes(done[i : i + 2], "little") for i in range(0, len(done), 2)) == list(range(3000))


def test_more_work_than_a_pipe_holds() -> None:
    """The queue is not limited by the size of a pipe."""
    assert len(run_forked(40_000, lambda number: b"", 2)) == 40_000


def test_nothing_to_do() -> None:
    """No work makes no results."""
    assert run_forked(0, lambda number: b"", 2) == []


def test_error_is_raised_here(tmp_path: Path) -> None:
    """An error keeps its fields on the way, and the other helpers stop after what they are doing."""

    def work(number: int) -> bytes:
        (tmp_path / str(number)).touch()
        if number == 1:
            raise NodeError("It broke.", where="there", todo="Mend it.", details={"number": 1})
        time.sleep(0.05)
        return b""

    with pytest.raises(NodeError) as caught:
        run_forked(500, work, 2)
    assert (
        caught.value.as_dict()
        == NodeError("It broke.", where="there", todo="Mend it.", details={"number": 1}).as_dict()
    )
    assert len(os.listdir(tmp_path)) < 10


def test_unexpected_error_is_told() -> None:
    """A fault in the work itself comes with its traceback."""

    def work(number: int) -> bytes:
        raise ZeroDivisionError("oh")

    with pytest.raises(NodeError, match="ZeroDivisionError: oh") as caught:
        run_forked(2, work, 2)
    assert "in work" in caught.value.details["traceback"]


def test_killed_helper_is_told() -> None:
    """A helper that is killed, by the kernel when memory runs out for example, is an error and not a hang."""

    def work(number: int) -> bytes:
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with pytest.raises(NodeError, match="signal 9"):
        run_forked(50, work, 2)


def test_interrupted_caller_leaves_no_helper(tmp_path: Path) -> None:
    """When the caller is interrupted its helpers end at once."""

    def work(number: int) -> bytes:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)
        return b""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_forked(2, work, 2)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert len(os.listdir(tmp_path)) == 2
    for name in os.listdir(tmp_path):
        assert not os.path.exists(f"/proc/{name}")
