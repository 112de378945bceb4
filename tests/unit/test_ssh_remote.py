"""Scripts for hosts: they come through standard input, whatever shell the user has there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from likewise.cluster.ssh.remote import READER, end_cluster_script, end_script, exports, framed, start_script
from likewise.errors import UsageError

SHELLS = [shell for shell in ("dash", "bash", "busybox", "zsh", "ksh", "tcsh", "fish") if shutil.which(shell)]
TRAPS = {
    "QUOTES": 'it\'s "so" `date` $HOME $(date) \\ \\n !! %',
    "LINES": "first\n.\n\n  last \n",
    "EMPTY": "",
    "KEY": "-----BEGIN-----\n" + "A" * 5000 + "\n-----END-----\n",
    "UMLAUT": "ä→\t\x1b",
}


def run(shell: str, script: str, rest: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """What sshd does with a command line, and the client with the script."""
    words = [shell, "sh", "-c"] if shell == "busybox" else [shell, "-c"]
    return subprocess.run(
        [*words, READER],
        input=framed(script) + rest,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ},
        capture_output=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_variables_arrive_as_they_are_and_the_rest_of_the_input_is_left(shell: str) -> None:
    """Through any login shell, values with quotes and line breaks arrive, and what follows is the program's."""
    done = run(shell, start_script(["sh", "-c", 'env -0; cat; exit "$1"', "sh", "7"], TRAPS), b"lifeline\n")
    assert done.returncode == 7, done.stderr
    head, _, told = done.stdout.partition(b"\n")
    assert head.startswith(b"likewise: session ")
    *variables, last = told.split(b"\0")
    found = dict(line.decode().partition("=")[::2] for line in variables)
    assert {name: found.get(name) for name in TRAPS} == TRAPS
    assert last == b"lifeline\n"


def test_the_hosts_own_dask_settings_do_not_count() -> None:
    """What a login there sets for Dask or likewise is gone, other variables stay."""
    script = start_script(["env"], {"DASK_CONFIG": "/dev/null"})
    done = run("sh", script, DASK_DISTRIBUTED__X="1", DASK_CONFIG="/etc", LIKEWISE_CLUSTER="old", EDITOR="vi")
    lines = done.stdout.decode().splitlines()
    assert "EDITOR=vi" in lines
    assert "DASK_CONFIG=/dev/null" in lines
    assert not [line for line in lines if line.startswith(("DASK_DISTRIBUTED", "LIKEWISE", "s="))]


def test_the_command_line_says_nothing(tmp_path: Path) -> None:
    """What ps shows while the script is read, and after, holds no value of a variable."""
    with subprocess.Popen(["sh", "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        shown = []
        script = framed(start_script(["sleep", "30"], {"TOKEN": "secret"}))
        process.stdin.write(script[: len(script) // 2])
        process.stdin.flush()
        shown.append(Path(f"/proc/{process.pid}/cmdline").read_bytes())
        process.stdin.write(script[len(script) // 2 :])
        process.stdin.flush()
        process.stdout.readline()
        while not (now := Path(f"/proc/{process.pid}/cmdline").read_bytes()) or now.startswith(b"sh\0"):
            time.sleep(0.01)
        shown.append(now)
        process.kill()
    assert shown[1] == b"sleep\x0030\0"
    assert not [line for line in shown if b"secret" in line or b"TOKEN" in line]


def test_input_that_ends_too_early_runs_nothing() -> None:
    """Half a script, when the connection breaks, is not run."""
    whole = framed("echo one\necho two\n")
    done = subprocess.run(["sh", "-c", READER], input=whole[:-4], capture_output=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (97, b"")


def test_names_that_no_shell_can_set_are_refused() -> None:
    """They would have to go on a command line."""
    with pytest.raises(UsageError, match=r"a\.b"):
        exports({"a.b": "x"})


def test_a_session_is_ended_with_all_that_it_started() -> None:
    """Children in process groups of their own go, too; the count says when nothing is left; others live."""
    other = subprocess.Popen(["sleep", "30"])
    leader = subprocess.Popen(["bash", "-mc", "sleep 30 & sleep 30 & wait"], start_new_session=True)
    try:
        while run("sh", end_script(leader.pid, "0")).stdout.strip() != b"3":
            time.sleep(0.01)
        assert run("sh", end_script(leader.pid, "KILL")).stdout.strip() == b"3"
        assert leader.wait(10) == -signal.SIGKILL
        while (left := run("sh", end_script(leader.pid, "KILL"))).stdout.strip() != b"0":
            assert not left.stderr
        assert other.poll() is None
    finally:
        other.kill()
        leader.kill()
        other.wait()


def test_a_cluster_is_ended_wherever_its_processes_are() -> None:
    """Those that carry its id, in whatever session; those of another cluster live."""
    mine = subprocess.Popen(["sleep", "30"], env={"LIKEWISE_CLUSTER": "a" * 16}, start_new_session=True)
    theirs = subprocess.Popen(["sleep", "30"], env={"LIKEWISE_CLUSTER": "b" * 16})
    try:
        assert run("sh", end_cluster_script("a" * 16, "TERM")).stdout.strip() == b"1"
        assert mine.wait(10) == -signal.SIGTERM
        assert theirs.poll() is None
    finally:
        mine.kill()
        theirs.kill()
        theirs.wait()
