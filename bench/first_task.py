"""From the start of the user's process to the result of the first task, on a node that has nothing.

Every way is one whole process, client imports included, and runs the same first task on one worker with one thread:
it imports numpy, pandas, sklearn.linear_model, pyarrow, scipy.stats and matplotlib. Ways take turns, so that a machine
whose speed drifts treats them alike. Closing down is not measured. The page cache is warm for everybody.

Needs a package index for the first preparation, and in the ways that download; `--find-links` replaces both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".bench"
CLIENT, DASK, NODE = FOLDER / "client", FOLDER / "dask", FOLDER / "node"
ASIDE = FOLDER / "aside"
UV_CACHE, LIKEWISE_CACHE = FOLDER / "uv-cache", FOLDER / "likewise-cache"


@dataclass(frozen=True)
class Way:
    """One way: the function in ways.py, the Python that runs it, what is removed before, and what is in the figure."""

    function: str
    python: Path
    forget: Callable[[], list[Path]]
    includes: str
    environ: dict[str, str]


WAYS = {
    "preinstalled": Way("preinstalled", CLIENT, list, "LocalCluster, bytecode compiled: the limit", {}),
    "uv, empty cache": Way(
        "uv",
        CLIENT,
        lambda: [NODE, FOLDER / "uv-empty"],
        "uv venv, downloads, uv pip install, worker",
        {"UV_CACHE_DIR": str(FOLDER / "uv-empty")},
    ),
    "uv, warm cache": Way(
        "uv", CLIENT, lambda: [NODE], "uv venv, uv pip install by hard links, worker", {"UV_CACHE_DIR": str(UV_CACHE)}
    ),
    "PipInstall": Way(
        "pip",
        DASK,
        lambda: [DASK],
        "LocalCluster that has Dask alone, pip with a warm cache, restart",
        {"PIP_CACHE_DIR": str(FOLDER / "pip-cache")},
    ),
    "likewise, first launch ever": Way(
        "likewise",
        CLIENT,
        lambda: [LIKEWISE_CACHE],
        "hashing, compiling and packing everything, scheduler, worker, TLS",
        {},
    ),
    "likewise, empty node": Way(
        "likewise",
        CLIENT,
        lambda: [LIKEWISE_CACHE / "node"],
        "store filled; scan, unpack, check, scheduler, worker, TLS",
        {},
    ),
    "likewise, warm node": Way("likewise", CLIENT, list, "store and node filled; scan, scheduler, worker, TLS", {}),
}


def main() -> int:
    """Prepare, run, print the table."""
    arguments = parse_arguments()
    uv = find_uv()
    environ = base_environ(arguments, uv)
    prepare(uv, arguments.requirements, environ)
    seconds: dict[str, list[float]] = {name: [] for name in arguments.ways}
    answers: dict[str, Any] = {}
    warm_up(arguments.ways, uv, environ)
    for run in range(arguments.runs):
        for name in arguments.ways:
            took, answers[name] = measure(WAYS[name], uv, environ)
            seconds[name].append(took)
            say(f"run {run + 1} of {arguments.runs}: {name}: {took:.2f} s")
    value = summary(seconds, answers, arguments)
    print(as_table(value))
    shutil.rmtree(ASIDE, ignore_errors=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(value, indent=2) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each way; the median counts (default 3)")
    parser.add_argument(
        "--requirements", type=Path, default=REPOSITORY / "bench" / "w160.txt", help="what the environment holds"
    )
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY", help="some of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as JSON")
    parser.add_argument("--find-links", type=Path, metavar="DIR", help="a folder of wheels in place of the index")
    return parser.parse_args()


def base_environ(arguments: argparse.Namespace, uv: str) -> dict[str, str]:
    """The environment variables of every process here: nothing that steers a Python."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA", "DASK_"))}
    kept |= {
        "BENCH_UV": uv,
        "BENCH_REQUIREMENTS": str(arguments.requirements.resolve()),
        "LIKEWISE_CACHE": str(LIKEWISE_CACHE),
        "UV_CACHE_DIR": str(UV_CACHE),
        "UV_LINK_MODE": "hardlink",
    }
    return kept | ({"BENCH_FIND_LINKS": str(arguments.find_links.resolve())} if arguments.find_links else {})


def find_uv() -> str:
    """The uv that came with likewise."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def prepare(uv: str, requirements: Path, environ: dict[str, str]) -> None:
    """The client's environment: the requirements and likewise, bytecode compiled."""
    say("preparing the client's environment")
    FOLDER.mkdir(exist_ok=True)
    install(uv, CLIENT, ["--requirement", str(requirements), "--compile-bytecode"], environ)
    # Apart from the rest, and always anew: what is measured is the checkout as it is.
    argv = ["--refresh-package", "likewise", "--reinstall-package", "likewise", "--compile-bytecode", str(REPOSITORY)]
    index = {k: v for k, v in environ.items() if k != "BENCH_FIND_LINKS"}
    install(uv, CLIENT, argv, index)


def install(uv: str, venv: Path, arguments: list[str], environ: dict[str, str]) -> None:
    """Install into the venv, made when it is not there."""
    if not (venv / "bin" / "python").exists():
        run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], environ)
    links = environ.get("BENCH_FIND_LINKS")
    offline = ["--no-index", "--find-links", links] if links else []
    run([uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), *offline, *arguments], environ)


def warm_up(ways: list[str], uv: str, environ: dict[str, str]) -> None:
    """Whatever presumes something gets one uncounted run: it fills pip's cache, or the store and the node cache."""
    if "PipInstall" in ways:
        say("filling pip's cache")
        measure(WAYS["PipInstall"], uv, environ)
    if any(name.startswith("likewise") for name in ways):
        say("filling the store")
        measure(WAYS["likewise, warm node"], uv, environ)


def measure(way: Way, uv: str, environ: dict[str, str]) -> tuple[float, Any]:
    """One run: forget what the way must not find, start the process, wait for its end; seconds to the first result."""
    for path in way.forget():
        put_aside(path)
    if way.python == DASK:
        wanted = [f"{name}=={version_of(name)}" for name in ("dask", "distributed")]
        install(uv, DASK, [*wanted, "pip", "--compile-bytecode"], environ)
    argv = [str(way.python / "bin" / "python"), str(REPOSITORY / "bench" / "ways.py"), way.function, str(FOLDER)]
    started = time.monotonic()
    answer = json.loads(run(argv, {**environ, **way.environ}).splitlines()[-1])
    return answer.pop("at") - started, answer


def put_aside(path: Path) -> None:
    """Take `path` away without deleting it: ext4 makes new files slowly for a while after many were removed."""
    if path.exists():
        ASIDE.mkdir(exist_ok=True)
        path.rename(tempfile.mkdtemp(dir=ASIDE) + "/it")


def version_of(distribution: str) -> str:
    """The version that the client's environment has."""
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    return run([str(CLIENT / "bin" / "python"), "-c", code], dict(os.environ)).strip()


def run(argv: list[str], environ: dict[str, str]) -> str:
    """Run a command that must succeed, in a folder without any loose code; returns what it printed."""
    empty = FOLDER / "cwd"
    empty.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(argv, env=environ, cwd=empty, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} exited {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def summary(seconds: dict[str, list[float]], answers: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures as one JSON-serialisable value."""
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    limit = medians.get("preinstalled")
    return {
        "requirements": arguments.requirements.name,
        "index": "local folder" if arguments.find_links else "package index",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "runs": arguments.runs,
        "ways": {
            name: {
                "median": round(medians[name], 3),
                "seconds": [round(s, 3) for s in runs],
                "ratio": round(medians[name] / limit, 2) if limit else None,
                "includes": WAYS[name].includes,
                **({"stages": answers[name]["stages"]} if "stages" in answers[name] else {}),
            }
            for name, runs in seconds.items()
        },
    }


def as_table(value: dict[str, Any]) -> str:
    """The figures for people."""
    head = f"{'way':28}  {'median':>7}  {'min':>6}  {'max':>6}  {'ratio':>6}  what the figure includes besides the task"
    lines = [
        f"{value['requirements']}, {value['runs']} runs, {value['machine']['cores']} cores, {value['index']}",
        head,
    ]
    for name, way in value["ways"].items():
        ratio = f"{way['ratio']:6.2f}" if way["ratio"] else "     –"
        low, high = min(way["seconds"]), max(way["seconds"])
        lines.append(f"{name:28}  {way['median']:6.2f}s  {low:6.2f}  {high:6.2f}  {ratio}  {way['includes']}")
    lines.append("\nWhole processes from start to first result, in seconds; ratio to preinstalled. Page cache warm.")
    return "\n".join(lines)


def say(what: str) -> None:
    """How far it is."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
