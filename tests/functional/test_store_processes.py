"""LocalStore with several processes at once, and with `kill -9` at any moment."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from likewise.store.local import LocalStore
from support.prefixes import clean_environ

WRITE_THE_SAME_KEYS = """
import sys
from pathlib import Path
from likewise.store.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
letter = sys.argv[2].encode()
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    with store.create(f"layers/aa/{number}") as out:
        for _ in range(8):
            out.write(letter * 40_000)
            out.flush()
"""

# A server that forks writers and kills each at a random moment: a fork costs a millisecond, a Python 50.
KILL_WRITERS = """
import hashlib, os, random, signal, sys, time
from pathlib import Path
from likewise.store.local import LocalStore
root, rounds = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(1)

def write_for_ever(seed):
    store, chance = LocalStore(root), random.Random(seed)
    while True:
        data = chance.randbytes(chance.randrange(1, 400_000))
        with store.lease() as lease:
            key = "layers/aa/" + hashlib.sha256(data).hexdigest()
            lease.add([key])
            with store.create(key) as out:
                for start in range(0, len(data), 65536):
                    out.write(data[start:start + 65536])
                    out.flush()

for number in range(rounds):
    child = os.fork()
    if child == 0:
        try:
            write_for_ever(number)
        finally:
            os._exit(1)
    time.sleep(chance.uniform(0.002, 0.02))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
"""

HOLD_A_LEASE = """
import sys, time
from pathlib import Path
from likewise.store.local import LocalStore
lease = LocalStore(Path(sys.argv[1])).lease(sys.argv[2:])
print("ready", flush=True)
time.sleep(600)
"""

HOLD_A_LEASE_AND_START_A_PROGRAM = """
import subprocess, sys, time
from pathlib import Path
from likewise.store.local import LocalStore
lease = LocalStore(Path(sys.argv[1])).lease(sys.argv[2:])
program = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
print("ready", program.pid, sep="\\n", flush=True)
time.sleep(60)
"""

PRUNE_FOR_EVER = """
import sys
from datetime import timedelta
from pathlib import Path
from likewise.store.local import LocalStore
store = LocalStore(Path(sys.argv[1]), grace=timedelta(seconds=float(sys.argv[2])))
print("ready", flush=True)
while True:
    store.prune(timedelta(seconds=float(sys.argv[3])))
"""


def start(script: str, *args: object) -> subprocess.Popen[str]:
    """A Python process that runs `script`; returns when it has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environ(),
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    """End `process` as `kill -9` does."""
    with process:
        process.kill()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_two_writers_of_one_key(store: LocalStore) -> None:
    """Processes that write the same keys at the same moment all succeed; each key holds the whole of one's content."""
    writers = [start(WRITE_THE_SAME_KEYS, store.root, letter) for letter in "abc"]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    for writer in writers:
        writer.communicate()
    for number in range(40):
        data = store.path(f"layers/aa/{number}").read_bytes()
        assert len(data) == 320_000
        assert len(set(data)) == 1
    assert os.listdir(store.root / "tmp") == []


def test_writers_killed_at_random_moments(store: LocalStore) -> None:
    """However often writers are killed, no key ever holds half a content, and all that they left can be swept."""
    subprocess.run(
        [sys.executable, "-c", KILL_WRITERS, store.root, "150"], check=True, env=clean_environ(), timeout=120
    )
    keys = os.listdir(store.root / "layers" / "aa")
    assert keys, "the writers were killed too early to finish anything"
    for key in keys:
        assert hashlib.sha256(store.path(f"layers/aa/{key}").read_bytes()).hexdigest() == key
    abandoned = os.listdir(store.root / "tmp")
    assert abandoned, "no writer was killed in the middle"
    assert os.listdir(store.root / "leases"), "no lease was left behind"
    assert store.info().leases == 0
    report = store.prune()
    assert report.swept == len(abandoned)
    assert report.removed == 0
    assert os.listdir(store.root / "tmp") == os.listdir(store.root / "leases") == []
    store.put_bytes("layers/aa/new", b"usable")
    assert store.get_bytes("layers/aa/new") == b"usable"


def test_lease_ends_with_its_process(store: LocalStore) -> None:
    """Another process's lease keeps content; it ends when that process is killed with `kill -9`."""
    store.put_bytes("layers/aa/a", b"x")
    holder = start(HOLD_A_LEASE, store.root, "layers/aa/a")
    try:
        assert store.info().leased == 1
        assert store.prune(everything=True).kept_leased == 1
        assert store.has("layers/aa/a")
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        assert store.info().leased == 0
        assert store.prune(everything=True).removed == 1
    finally:
        kill(holder)


def rounds(outcomes: list[bool]) -> Iterator[int]:
    """Rounds of a race until both outcomes were seen often, or for 30 seconds."""
    end = time.monotonic() + 30
    number = 0
    while time.monotonic() < end and (number < 300 or min(outcomes.count(True), outcomes.count(False)) < 20):
        yield number
        number += 1


def test_prune_races_with_leases(store: LocalStore) -> None:
    """Content that is there after it was leased stays there, with another process pruning as fast as it can."""
    pruner = start(PRUNE_FOR_EVER, store.root, 0, 0)
    found: list[bool] = []
    key = "layers/aa/a"
    try:
        for number in rounds(found):
            time.sleep(0.002 if number % 2 else 0)  # let the pruner come first, or try to be faster
            with store.lease([key]):
                found.append(store.has(key))
                if not found[-1]:
                    store.put_bytes(key, b"x")
                for _ in range(3):
                    assert store.path(key).exists()
                os.sched_yield()
                assert store.path(key).exists()
        assert pruner.poll() is None
    finally:
        kill(pruner)
    assert True in found
    assert False in found, "the pruner never came between"


def test_prune_races_with_use(store: LocalStore) -> None:
    """Old content that `has` reports stays for the grace time, with another process pruning as fast as it can."""
    pruner = start(PRUNE_FOR_EVER, store.root, 600, 600)
    found: list[bool] = []
    chance = random.Random(1)
    key = "layers/aa/a"
    with store.lease(["kits/other"]):
        try:
            for _ in rounds(found):
                store.put_bytes(key, b"x")
                os.utime(store.path(key), (1, 1))
                time.sleep(chance.uniform(0, 0.001))
                found.append(store.has(key))
                if found[-1]:
                    os.sched_yield()
                    assert store.path(key).exists()
            assert pruner.poll() is None
        finally:
            kill(pruner)
    assert True in found
    assert False in found, "the pruner never came between"


def test_lease_is_not_inherited(store: LocalStore) -> None:
    """A program that a lease's owner has started does not keep the lease alive when the owner is killed."""
    store.put_bytes("layers/aa/a", b"x")
    owner = start(HOLD_A_LEASE_AND_START_A_PROGRAM, store.root, "layers/aa/a")
    assert owner.stdout
    program = int(owner.stdout.readline())
    try:
        assert store.info().leases == 1
        owner.kill()
        owner.wait(10)
        os.kill(program, 0)
        assert store.info().leases == 0
        assert store.prune(timedelta(0)).removed == 1
    finally:
        os.kill(program, signal.SIGKILL)
        kill(owner)
