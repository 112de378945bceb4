"""The bench's look at memory: real processes, also those whose parents have gone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
PROGRAM = """
import json, os, subprocess, sys
import memory

memory.adopt_orphans()
eater = "import time; held = bytearray(80 << 20); print('full', flush=True); time.sleep(60)"
# the shell ends at once, and leaves a Python behind that nobody waits for
child = subprocess.Popen(["sh", "-c", '"$0" -c "$1" & echo $!', sys.executable, eater], stdout=subprocess.PIPE)
family = memory.Family(child.pid)
with family.watched():
    pid, word = int(child.stdout.readline()), child.stdout.readline()
    child.wait()
    family._end.wait(4 * memory.INTERVAL)
left = memory.end_descendants(patience=0.1)
print(json.dumps({"peaks": family.peaks, "left": left, "alive": pid in memory.descendants(os.getpid())}))
"""


def test_an_orphan_is_measured_and_ended() -> None:
    """A process whose parent has ended is still seen, with its peak, and does not outlive the way that left it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=BENCH, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 80 << 20 < told["peaks"]["helper"] < 200 << 20
    assert len(told["left"]) == 1 and "bytearray" in told["left"][0]
    assert not told["alive"]
