"""The lifeline: a process ends when whoever started it closes the other end, and hears what is said before."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from likewise.errors import NodeError

WAITING = "from likewise.node.lifeline import watch; print('up', flush=True); watch()"
BECOMING = """
import os, sys, threading, time
from likewise.node.lifeline import watch
threading.Thread(target=watch, daemon=True).start()
print("up", flush=True)
sys.stdin.buffer.raw.readinto(bytearray(3)) == 3 or sys.exit("no data")
os.execv("/bin/cat", ["cat"])
"""


def start(code: str, stdin: int, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=stdin, stdout=subprocess.PIPE, cwd=cwd)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


@pytest.mark.parametrize("unread", [b"", b"something that nobody read\n"])
def test_the_end_of_a_pipe_is_the_end(unread: bytes) -> None:
    """Also when the pipe is not empty."""
    process = start(WAITING, subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(unread)
    process.stdin.close()
    assert process.wait(10) == -15
    process.stdout.close()  # type: ignore[union-attr]


def test_half_a_socket_is_the_end() -> None:
    """sshd may use sockets, and shut down the direction towards the process."""
    ours, theirs = socket.socketpair()
    with ours, start(WAITING, theirs.fileno()) as process:
        theirs.close()
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(10) == -15


def test_what_comes_is_left_for_the_program_that_the_process_becomes() -> None:
    """Watching takes nothing from the pipe."""
    with start(BECOMING, subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"onetwo\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"two\n"
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_worker_hears_where_its_scheduler_is(tmp_path: Path) -> None:
    """The scheduler file appears in its working directory; lines that are none of ours do no harm."""
    code = "import likewise.cluster.lifeline as l, os, time; print('up', flush=True); time.sleep(60)"
    with start(code, subprocess.PIPE, tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(b'nonsense\n{"other": 1}\n[]\n{"scheduler": "tls://h:1"}\n')
        process.stdin.flush()
        while not (tmp_path / "scheduler.json").exists():
            assert process.poll() is None
        assert (tmp_path / "scheduler.json").read_text() == '{"address": "tls://h:1"}'
        process.stdin.close()
        assert process.wait(10) == -15


def test_a_worker_that_has_no_room_for_it_says_so(tmp_path: Path) -> None:
    """Dask would wait for the file for ever."""
    (tmp_path / "scheduler.json.new").symlink_to("/dev/full")
    code = "import likewise.cluster.lifeline, time; time.sleep(60)"
    told = b'{"scheduler": "tls://h:1"}\n'
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=told, cwd=tmp_path, capture_output=True, timeout=30, check=False)
    assert done.returncode == NodeError.exit_code
    assert b"The node's disk is full" in done.stderr and str(tmp_path).encode() in done.stderr
