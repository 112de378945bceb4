"""Forked processes that are given one thing at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.node.crew import Crew
from support.streams import eventually


def task(text: str) -> str:
    return text.ljust(16)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def finished(crew: Crew, also: int, count: int) -> dict[str, str]:
    found: dict[str, str] = {}
    while len(found) < count:
        found.update((name.strip(), problem) for name, problem in crew.finished(10, also=also))
    return found


def test_results_and_errors(pipe: tuple[int, int], tmp_path: Path) -> None:
    """Each is done by a process that is free, of which there are as many as are at work at once; errors are told."""

    def work(name: str) -> None:
        (tmp_path / name.strip()).write_text(str(os.getpid()))
        if name.startswith("bad"):
            raise ValueError("it is näughty" * 10_000)

    with Crew(work) as crew:
        for names in (["one", "two"], ["three", "bad"], ["four"]):
            for name in names:
                crew.give(task(name))
            assert crew.busy == len(names)
            problems = finished(crew, pipe[0], len(names))
            assert problems == {n: "it is näughty" * 10_000 if n == "bad" else "" for n in names}
    pids = {path.read_text() for path in tmp_path.iterdir()}
    assert len(pids) == 2 and not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_calm_ones(pipe: tuple[int, int], tmp_path: Path) -> None:
    """Those that are to give way to others do, and are not given what may not wait."""

    def work(name: str) -> None:
        (tmp_path / name.strip()).write_text(f"{os.getpid()} {os.nice(0)}")

    with Crew(work) as crew:
        for name, nice in (("calm", 7), ("quick", 0), ("calm again", 7)):
            crew.give(task(name), nice=nice)
            finished(crew, pipe[0], 1)
    said = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    ours = os.nice(0)
    assert said["calm"] == said["calm again"] != said["quick"]
    assert (said["calm"][1], said["quick"][1]) == (str(min(ours + 7, 19)), str(ours))


def test_looks_up_when_asked(pipe: tuple[int, int]) -> None:
    """Waiting for results ends as soon as something can be read from the other descriptor."""
    with Crew(lambda name: time.sleep(60)) as crew:
        crew.give(task("long"))
        os.write(pipe[1], b"x")
        assert crew.finished(60, also=pipe[0]) == [] and crew.busy == 1


def test_killed_one(pipe: tuple[int, int]) -> None:
    """A process that is killed fails what it was doing, with the reason, and another one takes its place."""

    def work(name: str) -> None:
        if name.startswith("die"):
            os.kill(os.getpid(), signal.SIGKILL)

    with Crew(work) as crew:
        crew.give(task("die"))
        assert "signal 9" in finished(crew, pipe[0], 1)["die"]
        crew.give(task("live"))
        assert finished(crew, pipe[0], 1) == {"live": ""}


def test_killed_while_idle(pipe: tuple[int, int], tmp_path: Path) -> None:
    """One that is killed while it has nothing to do is replaced, and nobody spins because of it."""

    def work(name: str) -> None:
        (tmp_path / name.strip()).write_text(str(os.getpid()))

    with Crew(work) as crew:
        crew.give(task("one"))
        finished(crew, pipe[0], 1)
        pid = int((tmp_path / "one").read_text())
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        assert crew.finished(10, also=pipe[0]) == []
        assert not os.path.exists(f"/proc/{pid}")
        crew.give(task("two"))
        assert finished(crew, pipe[0], 1) == {"two": ""}


def test_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """When the process that gives the work is killed, the others end at once, whatever they wait for."""
    code = (
        "import os, sys, time; from likewise.node.crew import Crew\n"
        "def work(name):\n"
        "    open(f'{sys.argv[1]}/{os.getpid()}', 'w').close(); time.sleep(600)\n"
        "with Crew(work) as crew:\n"
        "    crew.give('a' * 16); crew.give('b' * 16); crew.finished(600, also=0)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE)
    eventually(lambda: len(os.listdir(tmp_path)) == 2)
    process.kill()
    process.wait()
    assert process.stdin
    process.stdin.close()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in os.listdir(tmp_path)))
