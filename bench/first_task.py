"""From the start of the user's process to the result of the first task, beside the other ways to get there.

Every way is one whole process, client imports included, and runs the same first task on one worker with one thread: it
imports the modules that are named with the environment. Ways and environments take turns, so that a machine whose speed
drifts treats them alike. Closing down is not measured, and what goes on behind the first task is waited for before the
next run. Wheels come from a simple index on loopback (`simple_index.py`). What a run may read is read through before,
so that the page cache is warm for everybody; not what is larger than a quarter of the memory.

The first preparation needs a package index. A way that can't run is named with its reason, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from catalogue import WAYS, Way
from environments import (
    ENVIRONMENTS,
    REPOSITORY,
    Environment,
    Place,
    Unavailable,
    find_uv,
    last_words,
    own_environment,
    say,
)
from memory import Family, adopt_orphans, end_descendants
from page_cache import read_through
from plot import bar_chart
from report import Run, as_table, summary
from simple_index import serving

TIMEOUT = 1800
"""Seconds after which a run is ended, and its way left out."""

REST = 370
"""Seconds of rest after many files were removed. For up to six minutes ext4 without a journal gives away no inode
that was freed, and to make one file it may look at all of those (``recently_deleted`` in fs/ext4/ialloc.c)."""


def main() -> int:
    """Prepare, run, print the table."""
    arguments = parse_arguments()
    if arguments.list:
        print(catalogue())
        return 0
    adopt_orphans()
    load, began = os.getloadavg(), time.monotonic()
    with ExitStack() as stack:
        benches = [Bench(environment, arguments, stack) for environment in arguments.env]
        try:
            for bench in benches:
                bench.prepare()
            for number in range(arguments.runs):
                for bench in benches:
                    bench.turn(number)
        except KeyboardInterrupt:
            say("interrupted; what follows are the figures so far")
        value = summary([(b.place, b.runs, b.skipped) for b in benches], facts(arguments, load, began))
        print(as_table(value), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(value, indent=1) + "\n")
        if arguments.svg:
            arguments.svg.write_text(bar_chart(value), encoding="utf-8")
        for bench in benches:
            bench.clean()
    return 0


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each way; the median counts (default 5)")
    parser.add_argument(
        "--runs-of", nargs="+", type=runs_of, metavar="NAME=N", default=[],
        help="fewer runs of one way, or of one environment; 0 leaves it out",
    )  # fmt: skip
    parser.add_argument("--env", nargs="+", choices=list(ENVIRONMENTS), metavar="ENV", help="some of the environments")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), metavar="WAY", help="some of the ways")
    parser.add_argument("--unrehearsed", action="store_true", help="no uncounted runs first, which fill the caches")
    parser.add_argument("--list", action="store_true", help="name the environments and the ways, and end")
    parser.add_argument("--requirements", type=Path, metavar="FILE", help="an environment of your own in place of them")
    parser.add_argument("--task", nargs="+", metavar="MODULE", default=[], help="what the first task imports in it")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="a folder that has all wheels of one environment")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".bench", help="where everything is made")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the bar chart there")
    arguments = parser.parse_args(argv)
    arguments.runs_of = dict(arguments.runs_of)
    if arguments.requirements:
        if not arguments.task:
            parser.error("--requirements needs --task")
        arguments.env = [own_environment(arguments.requirements, tuple(arguments.task))]
    else:
        arguments.env = [ENVIRONMENTS[name] for name in arguments.env or ENVIRONMENTS]
    arguments.command = shlex.join(["python", "bench/first_task.py", *(sys.argv[1:] if argv is None else argv)])
    return arguments


def runs_of(word: str) -> tuple[str, int]:
    """``NAME=N`` of the command line."""
    name, _, number = word.rpartition("=")
    if name not in {**WAYS, **ENVIRONMENTS} or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is not the name of a way or an environment, =, and a number")
    return name, int(number)


def is_due(number: int, count: int, rounds: int) -> bool:
    """Whether a way that has `count` runs has one in round `number` of `rounds`: they are spread evenly."""
    return number * count % rounds < count


def catalogue() -> str:
    """All environments and ways, with what is said of them."""
    lines = ["environments:"]
    lines += [f"  {e.name:22}  {e.about}; the task imports {', '.join(e.task)}" for e in ENVIRONMENTS.values()]
    return "\n".join([*lines, "ways:", *(f"  {name:42}  {way.includes}" for name, way in WAYS.items())])


def facts(arguments: argparse.Namespace, load: Sequence[float], began: float) -> dict[str, Any]:
    """What has to be known of a run of the bench."""
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    return {
        "command": arguments.command,
        "runs": arguments.runs,
        "machine": machine,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "load before": [round(number, 2) for number in load],
    }


class Bench:
    """The measurement of one environment.

    Parameters
    ----------
    environment : Environment
    arguments : Namespace
        The command line.
    stack : ExitStack
        Ends the package index.
    """

    def __init__(self, environment: Environment, arguments: argparse.Namespace, stack: ExitStack) -> None:
        self.environment = environment
        self.place = Place(environment, arguments.folder.absolute(), arguments.requirements, arguments.wheels)
        self.aside = self.place.folder / "aside"
        self._removed = self.place.folder / "removed"
        self.rounds: int = arguments.runs
        self.counts = self._counts(arguments.ways or environment.ways or list(WAYS), arguments.runs_of)
        self.ways = list(self.counts)
        self.runs: dict[str, list[Run]] = {}
        self.skipped: dict[str, str] = {}
        self._unrehearsed = bool(arguments.unrehearsed)
        self._stack = stack
        self._index = ""

    def _counts(self, ways: Sequence[str], fewer: Mapping[str, int]) -> dict[str, int]:
        """How many runs each way has."""
        most = min(self.rounds, fewer.get(self.environment.name, self.rounds))
        counts = {name: min(most, fewer.get(name, most)) for name in ways}
        return {name: count for name, count in counts.items() if count}

    def prepare(self) -> None:
        """Make what the ways presume; those that can't be had are left out, all of them without a client."""
        try:
            self.clean()
            self._require_space()
            say(f"{self.environment.name}: preparing the client's prefix")
            self.place.make_client()
            self.place.make_program()
        except Unavailable as error:
            self._skip_all(str(error))
            return
        for name in list(self.ways):
            for need in WAYS[name].needs:
                self._attempt(name, lambda need=need: self._provide(need))  # type: ignore[misc]
        for name in list(self.ways):
            if WAYS[name].rehearse and not self._unrehearsed and not self.place.was_rehearsed(name):
                say(f"{self.environment.name}: {name}: once, uncounted")
                self._attempt(name, lambda name=name: self._rehearse(name))  # type: ignore[misc]

    def turn(self, number: int) -> None:
        """One run of every way that is due."""
        for name in list(self.ways):
            if is_due(number, self.counts[name], self.rounds):
                self._make_room()
                self._rest()
                self._attempt(name, lambda name=name: self._count(name, number))  # type: ignore[misc]

    def _rehearse(self, name: str) -> None:
        self.measure(WAYS[name])
        if WAYS[name].rehearsal_lasts:
            self.place.note_rehearsed(name)

    def _count(self, name: str, number: int) -> None:
        run = self.measure(WAYS[name])
        self.runs.setdefault(name, []).append(run)
        say(f"{self.environment.name}: run {number + 1} of {self.rounds}: {name}: {run.seconds:.2f} s")

    def _attempt(self, name: str, action: Any) -> None:
        """Do something for a way; when it fails the way is left out from now on, with the reason."""
        if name not in self.ways:
            return
        try:
            action()
        except Unavailable as error:
            say(f"{self.environment.name}: {name} is left out: {error}")
            self.ways.remove(name)
            self.skipped[name] = str(error)

    def _skip_all(self, reason: str) -> None:
        say(f"{self.environment.name} is left out: {reason}")
        self.skipped.update(dict.fromkeys(self.ways, reason))
        self.ways.clear()

    def _provide(self, need: str) -> None:
        say(f"{self.environment.name}: preparing: {need}")
        getattr(self.place, f"make_{need}")()
        if need == "wheels" and not self._index:
            self._index = self._stack.enter_context(serving(self.place.wheels))

    def measure(self, way: Way) -> Run:
        """One run: forget what the way must not find, start the process, wait for its end.

        Raises
        ------
        Unavailable
            With the last words of a process that failed.
        """
        for name in way.forget:
            self._put_aside(self.place.folder / name)
        for step in way.before:
            getattr(self.place, step)()
        if way.bytecode_is_new:
            self._put_bytecode_aside()
        before = self._layers(way)
        read_through(self._read_by(way))
        os.sync()  # what an earlier run has written is not written during this one
        argv = [self.place.folder / way.python / "bin/python", self.place.program, way.function]
        started = time.monotonic()
        child = subprocess.Popen(
            list(map(str, argv)),
            env=self._environ(way, started),
            cwd=self.place.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        family = Family(child.pid)
        with family.watched():
            out, said = self._communicate(child)
            left = end_descendants()
        if child.returncode:
            raise Unavailable(f"exited {child.returncode}: {last_words(said or out)}")
        told = json.loads(out.splitlines()[-1])
        family.note("client", told.pop("peak"))
        made = self._layers(way) - before if way.function == "likewise" else None
        return Run(started=started, peaks=family.peaks, left=left, layers=made, **told)

    def _read_by(self, way: Way) -> list[Path]:
        """What a run of this way may read: it is in the page cache then, whatever came before."""
        own = [way.python, *way.folders.values()]
        served = [self.place.wheels] if "wheels" in way.needs else []
        packed = [self.place.archive] if "archive" in way.needs else []
        return [*(self.place.folder / name for name in own), *served, *packed]

    def _layers(self, way: Way) -> int:
        """How many layers the client's store has."""
        store = self.place.folder / way.folders.get("LIKEWISE_CACHE", "none") / "store"
        return len({path.stem for pattern in ("layers/*/*", "loose/*.listing") for path in store.glob(pattern)})

    def _communicate(self, child: subprocess.Popen[str]) -> tuple[str, str]:
        try:
            return child.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            out, said = child.communicate()
            return out, f"{said}\nnot ready after {TIMEOUT} s"

    def _environ(self, way: Way, started: float) -> dict[str, str]:
        """The environment variables of a way: nothing that steers a Python, Dask or an installer, but the index."""
        steering = ("PYTHON", "VIRTUAL_ENV", "CONDA", "DASK_", "LIKEWISE_", "UV_", "PIP_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(steering)}
        told = {
            "started": started,
            "folder": str(self.place.folder),
            "uv": find_uv(),
            "index": self._index,
            "requirements": str(self.place.requirements),
            "archive": str(self.place.archive),
        }
        index = {"UV_DEFAULT_INDEX": self._index, "PIP_INDEX_URL": self._index, "NO_PROXY": "127.0.0.1"}
        own = {name: str(self.place.folder / folder) for name, folder in way.folders.items()}
        return {
            **kept,
            **own,
            **way.environ,
            **({**index, "UV_NO_CONFIG": "1", "PIP_CONFIG_FILE": os.devnull} if self._index else {}),
            "RAY_USAGE_STATS_ENABLED": "0",
            "BENCH": json.dumps(told),
        }

    def _put_aside(self, path: Path) -> None:
        """Take `path` away without deleting it (see `REST`)."""
        if path.exists():
            self.aside.mkdir(exist_ok=True)
            path.rename(tempfile.mkdtemp(dir=self.aside) + "/it")

    def _put_bytecode_aside(self) -> None:
        for path in list(self.place.plain.glob("lib/**/__pycache__")):
            self._put_aside(path)

    def _require_space(self) -> None:
        free, needs = self.place.free(), self.environment.needs
        if free < needs:
            raise Unavailable(f"needs {needs / 1e9:.0f} GB of free disk, and {free / 1e9:.0f} GB are free")

    def _make_room(self) -> None:
        """Delete what was put aside when there is too little space for more of it."""
        if self.aside.exists() and self.place.free() < self.environment.needs / 2:
            say(f"{self.environment.name}: the disk is nearly full: deleting what was put aside")
            self.clean()

    def _rest(self) -> None:
        """Wait until what was removed here last does not matter any more, in this run of the bench or in another."""
        if self._removed.exists():
            left = min(REST, self._removed.stat().st_mtime + REST - time.time())
            if left > 0:
                say(f"{self.environment.name}: {left:.0f} seconds of rest after many files were removed")
                time.sleep(left)
            self._removed.unlink()

    def clean(self) -> None:
        """Delete what was put aside."""
        if self.aside.exists():
            shutil.rmtree(self.aside, ignore_errors=True)
            os.sync()
            self._removed.touch()


if __name__ == "__main__":
    sys.exit(main())
