"""``python -m likewise.node`` as a process: what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from likewise.model.digest import Digest
from likewise.node.command import Launch, bootstrap_script
from support.nodes import distribution, manifest_of, put, put_manifest

ONE = distribution("one", {"purelib/one.py": b"1\n"})


def node(*argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "likewise.node", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "argv, said",
    [
        ([], "no command ''"),
        (["nonsense"], "no command 'nonsense'"),
        (["materialise"], "needs --cache"),
        (["materialise", "--cache"], "does not understand '--cache'"),
        (["verify", "prefix"], "does not understand 'prefix'"),
    ],
)
def test_usage(argv: list[str], said: str) -> None:
    """A wrong command line is one sentence and exit code 2."""
    done = node(*argv)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_materialise_and_prune(tmp_path: Path) -> None:
    """The prefix is printed as a path, and what was pruned as one JSON document."""
    put(tmp_path / "store", ONE)
    manifest = put_manifest(tmp_path / "store", manifest_of(ONE))
    cache = str(tmp_path / "cache")
    done = node("materialise", "--cache", cache, "--store", str(tmp_path / "store"), "--manifest", manifest.id)
    assert done.stdout == f"{cache}/prefixes/{manifest.id[:16]}\n", done.stderr
    week = time.time() - 8 * 86400
    for path in (f"{cache}/prefixes/{manifest.id[:16]}/launch", f"{cache}/layers/{ONE.digest}.listing"):
        os.utime(path, (week, week))
    pruned = json.loads(node("prune", "--cache", cache).stdout)
    expected = {"prefixes": [manifest.id[:16]], "layers": [ONE.digest], "kits": [], "archives": [], "clusters": []}
    assert pruned == expected


def test_verify_of_no_prefix(tmp_path: Path) -> None:
    """What can't be verified is an error of the node."""
    done = node("verify", "--prefix", str(tmp_path))
    assert done.returncode == 15 and "no prefix of likewise" in done.stderr


def test_launch_argv() -> None:
    """The command prefix is plain words; what Python should run is appended."""
    d = Digest("a" * 64)
    launch = Launch(script="/s/boot strap.sh", cache="/c", store="/st", manifest=d, kit="/k", kit_id=d, kit_sha256=d)
    assert launch.argv()[:4] == ["sh", "/s/boot strap.sh", "--cache", "/c"]
    assert launch.argv()[-1] == "--" and "--stream" not in launch.argv()
    streaming = msgspec.structs.replace(launch, stream=True, first=("numpy", "pandas"))
    assert streaming.argv() == [*launch.argv()[:-1], "--first", "numpy,pandas", "--stream", "--"]
    assert bootstrap_script().startswith(b"#!/bin/sh\n")


LIFELINE = "import sys, time; from likewise.node.lifeline import watch; {before}; watch(grace=0.5); print('unwatched')"


def watcher(before: str, stdin: int) -> subprocess.Popen[str]:
    code = LIFELINE.format(before=before)
    return subprocess.Popen([sys.executable, "-c", code], stdin=stdin, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "before, status",
    [
        ("pass", -signal.SIGTERM),
        ("import signal; signal.signal(signal.SIGTERM, lambda n, f: sys.exit(3))", 3),
        ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", 128 + signal.SIGTERM),
    ],
)
def test_lifeline(before: str, status: int) -> None:
    """When the other end of its standard input closes a process is asked to end, and ended when it does not."""
    process = watcher(before, subprocess.PIPE)
    assert process.stdin
    time.sleep(0.3)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(20) == status


def test_lifeline_of_a_killed_client() -> None:
    """The end of the client is enough, in whatever way it ends."""
    code = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-c', {LIFELINE.format(before='pass')!r}], stdin=subprocess.PIPE)\n"
        "print(p.pid, flush=True)\nimport time; time.sleep(600)"
    )
    client = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert client.stdout
    pid = int(client.stdout.readline())
    client.kill()
    client.wait()
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "\tZ" not in Path(f"/proc/{pid}/status").read_text().replace(" ", "\t"):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_lifeline_without_a_pipe() -> None:
    """A process whose standard input is /dev/null, as a nanny's worker has it, is not watched."""
    process = watcher("pass", subprocess.DEVNULL)
    assert process.communicate(timeout=20)[0] == "unwatched\n" and process.returncode == 0
