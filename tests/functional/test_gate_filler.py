"""The gate and the real filler: one program that uses what is on its way in every way at once."""

from __future__ import annotations

from pathlib import Path

from support.nodes import distribution
from support.streams import streams

ONE = distribution(
    "one", {"purelib/one/__init__.py": b"import two\nVALUE = 1 + two.VALUE\n", "purelib/one/data.txt": b"data"}
)
TWO = distribution("two", {"purelib/two.py": b"VALUE = 2\n", "purelib/shared/two.py": b"VALUE = 20\n"})
SHARED = distribution("shared", {"purelib/shared/three.py": b"VALUE = 30\n"})
NEVER = distribution("never", {"purelib/never.py": b""})

PROGRAM = """
import importlib.resources, importlib.util, os, subprocess, sys, threading
found = [importlib.util.find_spec(name) is not None for name in ("one", "never", "nothing")]
print("up", found, flush=True)
got = []
def load():
    import one
    got.append(one.VALUE)
threads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads:
    thread.start()
child = subprocess.Popen([sys.executable, "-c", "import shared.two as a, shared.three as b; print(a.VALUE + b.VALUE)"],
                         stdout=subprocess.PIPE, text=True)
forked = os.fork()
if not forked:
    import one
    os._exit(one.VALUE)
for thread in threads:
    thread.join()
print(got, child.communicate()[0].strip(), os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]))
print(importlib.resources.files("one").joinpath("data.txt").read_text(), "never" in sys.modules, flush=True)
sys.stdin.read()
"""


def test_everything_at_once(tmp_path: Path) -> None:
    """Probes, threads, a forked child, a subprocess, a shared namespace, data; what nobody imports may never come."""
    with streams(tmp_path) as make:
        stream = make(ONE, TWO, SHARED, NEVER)
        stream.hold(ONE, TWO, SHARED, NEVER)
        with stream.running(PROGRAM) as process:
            assert process.stdout and process.stdout.readline() == "up [True, True, False]\n", process.communicate()[1]
            stream.release(TWO, SHARED, ONE)
            lines = [process.stdout.readline() for _ in range(2)]
            assert lines == ["[3, 3, 3, 3] 50 3\n", "data False\n"], process.communicate()[1]
            assert not stream.is_there(NEVER)
            stream.release(NEVER)
            process.communicate(timeout=60)
