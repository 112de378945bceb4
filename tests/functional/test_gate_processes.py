"""Processes of a prefix that still grows: children of every kind, scripts, and what happens when a filler dies."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.growing import eventually, finish
from support.growing_small import Grow, grow, small  # noqa: F401

pytestmark = pytest.mark.usefixtures("grow")

CHILDREN = """
import importlib, multiprocessing, subprocess, sys

def load(name):
    module = importlib.import_module(name)
    return [type(finder).__name__ for finder in sys.meta_path].count("Gate"), module.VALUE

if __name__ == "__main__":
    method = sys.argv[1]
    if method == "subprocess":
        code = "import alpha, gamma; print([alpha.core.VALUE, gamma.VALUE])"
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    else:
        with multiprocessing.get_context(method).Pool(2) as pool:
            print([value for _, value in pool.map(load, ["alpha.core", "gamma"])])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "subprocess"])
def test_children_wait_too(grow: Grow, tmp_path: Path, method: str) -> None:  # noqa: F811
    """A child that is started in the middle, in whatever way, waits for what it imports."""
    growing = grow("alpha", "gamma")
    script = tmp_path / "children.py"
    script.write_text(CHILDREN)
    process = growing.start("", str(script), method)
    growing.wait_until_wanted("alpha")
    assert process.poll() is None
    growing.release()
    assert finish(process) == "[1, 3]"


FORK = """
import os, sys, threading, time
name, wanted, log = sys.argv[1:]
thread = threading.Thread(target=__import__, args=(name,))
thread.start()
while wanted not in open(log).read():
    time.sleep(0.01)
child = os.fork()
print("goes on", flush=True)
module = __import__(name)
if not child:
    os._exit(module.VALUE)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(("name", "value", "held"), [("delta", 4, "delta"), ("gamma", 3, "delta")])
def test_fork_while_another_thread_waits(grow: Grow, name: str, value: int, held: str) -> None:  # noqa: F811
    """The child can import what the thread waits for, and what waits for that: no lock is left without an owner."""
    growing = grow(held)
    process = growing.start(FORK, name, f"wanted {held}", str(growing.plan / "log"))
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["goes on\n"] * 2
    growing.release()
    assert finish(process) == str(value)


def test_interrupting(grow: Grow) -> None:  # noqa: F811
    """Ctrl-C ends the wait, and the program can import the module afterwards."""
    growing = grow("alpha")
    stopped = "except KeyboardInterrupt:\n    print('stopped', flush=True)"
    process = growing.start(f"try:\n    import alpha\n{stopped}\nimport alpha\nprint(alpha.SUM)")
    growing.wait_until_wanted("alpha")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopped\n"
    growing.release()
    assert finish(process) == "3"


def test_a_script_that_is_not_there_yet(grow: Grow) -> None:  # noqa: F811
    """What stands in its place waits, and then runs the real one with the same arguments."""
    growing = grow("tool")
    script = growing.prefix / "bin" / "tool"
    process = subprocess.Popen([script, "a", "b c"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    growing.wait_until_wanted("tool")
    assert process.poll() is None
    growing.release()
    assert finish(process) == "7 a b c"


def test_an_entry_point(grow: Grow) -> None:  # noqa: F811
    """Its script is there from the beginning, and waits for the module; so does whoever loads it by its group."""
    growing = grow("delta")
    script = subprocess.Popen([growing.prefix / "bin" / "delta-run"], stdout=subprocess.PIPE, text=True)
    group = "[entry] = entry_points(group='console_scripts', name='delta-run')"
    loaded = growing.start(f"from importlib.metadata import entry_points\n{group}\nentry.load()()")
    growing.wait_until_wanted("delta")
    assert (script.poll(), loaded.poll()) == (None, None)
    growing.release()
    assert [finish(script), finish(loaded)] == ["delta", "delta"]


def test_a_script_that_can_not_be_had(grow: Grow) -> None:  # noqa: F811
    """One sentence on stderr, and the exit code that every failure of a node has."""
    growing = grow(fill=False)
    growing.fail("tool", "No node has it. Start the cluster again.")
    growing.fill()
    done = subprocess.run([growing.prefix / "bin" / "tool"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (15, "")
    reason = "bin/tool: It can't be started: tool: No node has it. Start the cluster again."
    assert done.stderr == f"likewise: {reason}\n"


def test_wrong_arguments(grow: Grow) -> None:  # noqa: F811
    """Anything else than ``wait NAME`` is a usage error."""
    growing = grow(fill=False)
    process = growing.start("from likewise.node.gate import main; main()", "stay", "bin/tool")
    assert "understands: wait NAME" in process.communicate(timeout=60)[1]
    assert process.returncode == 2


def test_a_filler_that_was_killed(grow: Grow) -> None:  # noqa: F811
    """An import that waits starts another filler; it is no child of the program, and survives what ends it."""
    growing = grow("alpha", lazy=True)
    eventually(lambda: growing.log("began"))
    pid = int(growing.log("began")[0])
    process = growing.start("import alpha; print(alpha.SUM)")
    growing.wait_until_wanted("alpha")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(growing.log("began")) > 1)
    growing.release()
    assert finish(process) == "3"
    assert growing.run("import gamma; print(gamma.VALUE)") == "3"
    assert len(growing.log("began")) == 2


def test_no_filler_at_all(grow: Grow) -> None:  # noqa: F811
    """Several processes find that nobody fills: they all go on, and one filler does the work."""
    growing = grow(fill=False)
    processes = [growing.start("import alpha, gamma; print(alpha.SUM)") for _ in range(3)]
    assert [finish(process) for process in processes] == ["3", "3", "3"]
    eventually(lambda: not growing.growing.exists())
    assert len(growing.log("came")) == len(growing.late)


def test_a_prefix_that_is_complete(grow: Grow, tmp_path: Path) -> None:  # noqa: F811
    """Without ``growing`` nothing is gated, and waiting for a script returns at once."""
    growing = grow()
    eventually(lambda: not growing.growing.exists())
    code = "import sys; from likewise.node import gate; gate.install(); gate.wait_for('bin/tool')"
    assert growing.run(f"{code}; print(type(sys.meta_path[0]).__name__)") == "type"
