"""How long a conda prefix takes to be on an empty node, beside py-rattler's own installation from the same channel.

The channel is made here: this machine's CPython with its libraries, numpy, distributed and likewise with all that they
require, and made-up packages until there are as many packages and files as are asked for. One prefix of all of it is
installed; likewise puts its layers into a store, as archives. Then these take turns, each as whole processes:

- *rattler, cold*: py-rattler installs what that prefix has into a new one, with an empty package cache.
- *rattler, warm*: the same with the package cache that this leaves.
- *likewise, cold*: a node with an empty cache makes the prefix from the archives, every file checked: ``likewise.node
  materialise``. *bare* is without bytecode, which py-rattler does not make: whoever imports something compiles it.
- *likewise, warm*: another prefix with the same layers on that node.
- *likewise, start*: all of it as a node of a cluster does it, from ``bootstrap.sh`` and the kit to a Python that runs.

Solving, scanning and packing come before; the client's stages are shown, and what one process that does all of a
node's work needs for each part of it. What is written is synchronised before each run and not within it. The page cache
is warm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import msgspec
from floor import materialise, measure, say

import likewise.node.materialise as making
from likewise.model.keys import manifest_key
from likewise.model.manifest import Manifest
from likewise.node.cache import open_cache
from likewise.node.layers import LayerShelf
from likewise.node.sources import DirectoryStore
from likewise.prepared import Prepared
from likewise.sync import prepare

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

FILE_SIZE = 8000  # bytes of a made-up file
INSTALL = """
import asyncio, os, pathlib, rattler, sys
meta, prefix, cache = map(pathlib.Path, sys.argv[1:])
records = [rattler.PrefixRecord.from_path(path) for path in sorted(meta.glob("*.json"))]
asyncio.run(rattler.install(records, prefix, cache_dir=cache, show_progress=False))
os._exit(0)  # at the end of an interpreter its threads may crash
"""
COMPARED = {
    "rattler, cold": "",
    "rattler, warm": "",
    "likewise, cold": "rattler, cold",
    "likewise, cold, bare": "rattler, cold",
    "likewise, warm": "rattler, warm",
    "likewise, warm, bare": "rattler, warm",
    "likewise, start": "rattler, cold",
}
"""What is measured, and with what it is compared."""


def main() -> int:
    """Make what is missing, run, print the tables."""
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    user = user_prefix(arguments)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="conda.") as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        os.chdir(folder / "empty")  # so that there is no loose code
        os.environ["LIKEWISE_CACHE"] = str(folder / "client")
        with dask.config.set({"likewise.streaming": False}):
            say("filling the store")
            prepared = prepare(python=str(user / "bin" / "python"))
            prepare(python=str(user / "bin" / "python")).close()
        try:
            runs = compare(prepared, user, folder, arguments.runs)
            node = node_stages(folder / "stages", prepared)
        finally:
            prepared.close()
        value = {"command": arguments.command, "load": round(load, 2), **summary(prepared, user, runs, node)}
        print(as_table(value), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(value, indent=1) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each; the median counts (default 5)")
    parser.add_argument("--packages", type=int, default=185, help="of the prefix (default 185)")
    parser.add_argument("--files", type=int, default=12_859, help="of all packages (default 12,859)")
    parser.add_argument(
        "--folder", type=Path, default=REPOSITORY / ".bench" / "conda",
        help="on the file system to measure; channel and prefix stay there (default .bench/conda)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as JSON")
    arguments = parser.parse_args()
    for name in ("folder", "json"):
        path = getattr(arguments, name)
        setattr(arguments, name, path and path.absolute())
    arguments.folder.mkdir(parents=True, exist_ok=True)
    arguments.command = shlex.join(["python", "bench/conda.py", *sys.argv[1:]])
    return arguments


def user_prefix(arguments: argparse.Namespace) -> Path:
    """The user's prefix, with a channel beside it; made when it is not there, or has another likewise than this."""
    from support.conda_channel import install
    from support.users import likewise_wheel

    place: Path = arguments.folder / f"{arguments.packages}-{arguments.files}"
    complete = place / "complete"
    this = hashlib.sha256(likewise_wheel().read_bytes()).hexdigest()
    if not complete.exists() or complete.read_text() != this:
        shutil.rmtree(place, ignore_errors=True)
        say("making the channel")
        names = make_channel(place / "channel", place / "work", arguments.packages, arguments.files)
        say("installing the prefix")
        install(place / "prefix", names, [place / "channel"], place / "cache")
        complete.write_text(this)
    return place / "prefix"


def make_channel(folder: Path, work: Path, packages: int, files: int) -> list[str]:
    """A channel with so many packages, which have so many files together; their names."""
    from support.conda_package import write_channel
    from support.conda_python import Libraries, python_package, wheel_packages
    from support.users import likewise_wheel

    libraries = Libraries()
    real = [*python_package(work, libraries), *wheel_packages(["numpy", str(likewise_wheel())], work, libraries)]
    real += libraries.packages(work)
    missing = files - sum(len(package.files) + len(package.entry_points) for package in real)
    number = packages - len(real)
    if number < 1 or missing < number:
        sys.exit(f"The real packages are {len(real)}, with {files - missing} files: ask for more.")
    made_up = [made_up_package(each, (missing + each) // number) for each in range(number)]
    write_channel(folder, [*real, *made_up])
    shutil.rmtree(work, ignore_errors=True)
    return [package.name for package in [*real, *made_up]]


def made_up_package(number: int, files: int) -> Any:
    """A package with `files` files of data, one of which names the prefix."""
    from support.conda_package import PLACEHOLDER, Package

    random_bytes, folder = random.Random(number).randbytes, f"share/made-up/{number:03}"
    data = {f"{folder}/data{each:03}.txt": random_bytes(FILE_SIZE // 2).hex() for each in range(files - 1)}
    return Package(f"made-up-{number:03}", "1.0", {**data, f"{folder}/where.txt": f"prefix={PLACEHOLDER}\n"})


def compare(prepared: Prepared, user: Path, folder: Path, number: int) -> dict[str, list[dict[str, float]]]:
    """All runs of each way."""
    bare = without_bytecode(prepared)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in COMPARED}
    for each in range(number):
        new = partial(Path, folder, str(each))
        turns: list[dict[str, Callable[[], object]]] = [
            {f"rattler, {how}": partial(install_again, user, new(how), new("packages")) for how in ("cold", "warm")},
            both_prefixes("", new("cache"), prepared, prepared.manifest),
            both_prefixes(", bare", new("bare"), prepared, bare),
            {"likewise, start": partial(start, prepared, new("node"))},
        ]
        first = each % len(turns)  # none always comes after the same
        for turn in [*turns[first:], *turns[:first]]:
            for name, work in turn.items():
                runs[name].append(measure(work))
        did = ", ".join(f"{name} {done[-1]['seconds']:.2f} s" for name, done in runs.items())
        say(f"run {each + 1} of {number}: {did}")
    return runs


def without_bytecode(prepared: Prepared) -> Manifest:
    """The environment without bytecode, in the store."""
    layers = tuple(msgspec.structs.replace(ref, bytecode=None) for ref in prepared.manifest.layers)
    return stored(prepared, msgspec.structs.replace(prepared.manifest, layers=layers))


def stored(prepared: Prepared, manifest: Manifest) -> Manifest:
    """`manifest`, which nodes find in the store."""
    prepared.store.put_bytes(manifest_key(manifest.id), manifest.encode())
    return manifest


def both_prefixes(how: str, cache: Path, prepared: Prepared, manifest: Manifest) -> dict[str, Callable[[], object]]:
    """A node's first prefix, and then a second one with the same layers."""
    second = stored(prepared, msgspec.structs.replace(manifest, needs={**manifest.needs, "SECOND": "1"}))
    return {
        f"likewise, {name}{how}": partial(materialise, cache, prepared.store.root, each)
        for name, each in (("cold", manifest), ("warm", second))
    }


def install_again(user: Path, prefix: Path, packages: Path) -> None:
    """Have py-rattler install what the user's prefix has."""
    subprocess.run([sys.executable, "-c", INSTALL, user / "conda-meta", prefix, packages], check=True)


def start(prepared: Prepared, cache: Path) -> None:
    """Have a node make the prefix and start its Python."""
    subprocess.run([*prepared.launch(cache).argv(), "-c", ""], check=True)


def node_stages(cache: Path, prepared: Prepared) -> dict[str, float]:
    """Seconds that one process needs to make a node's prefix, by what it does."""
    spent: dict[str, float] = {}

    def timed(owner: object, name: str, stage: str) -> Any:
        work = getattr(owner, name)

        def measured(*args: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*args, **more)
            finally:
                spent[stage] = spent.get(stage, 0.0) + time.perf_counter() - began

        return mock.patch.object(owner, name, measured)

    began = time.perf_counter()
    with (
        timed(LayerShelf, "get", "unpack and check"),
        timed(making, "link_layer", "link"),
        timed(making, "layer_files", "make what names the prefix"),
    ):
        making.materialise(
            open_cache(str(cache)), prepared.manifest, [DirectoryStore(str(prepared.store.root))], helpers=1
        )
    return {**spent, "all": time.perf_counter() - began}


def summary(
    prepared: Prepared, user: Path, runs: dict[str, list[dict[str, float]]], node: dict[str, float]
) -> dict[str, Any]:
    """All figures as one JSON-serialisable value."""
    medians = {name: statistics.median(run["seconds"] for run in each) for name, each in runs.items()}
    records = [json.loads(path.read_bytes()) for path in (user / "conda-meta").glob("*.json")]
    stages = prepared.report.stages
    return {
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "packages": len(records),
        "files": sum(len(record["files"]) for record in records),
        "bytes": prepared.manifest.size,
        "modules": next(stage.done["modules"] for stage in stages if stage.name == "bytecode"),
        "client": [{"stage": stage.name, "seconds": round(stage.seconds, 3), "did": stage.summary} for stage in stages],
        "node": {stage: round(seconds, 3) for stage, seconds in node.items()},
        "ways": {
            name: {
                "median": round(medians[name], 3),
                "ratio": round(medians[name] / medians[COMPARED[name]], 2) if COMPARED[name] else None,
                **{kind: [round(run[kind], 3) for run in each] for kind in each[0]},
            }
            for name, each in runs.items()
        },
    }


def as_table(value: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"{value['packages']} packages, {value['files']:,} files, {value['bytes'] / 1e6:,.0f} MB, "
        f"{value['modules']:,} modules with bytecode, {value['machine']['cores']} cores, load {value['load']} before",
        "the client, the first time:",
        *(f"  {one['stage']:26}  {one['seconds']:6.2f}s  {one['did']}" for one in value["client"]),
        "a node, by one process:",
        *(f"  {stage:26}  {seconds:6.2f}s" for stage, seconds in value["node"].items()),
        f"{'':20}  {'median':>7}  {'min':>6}  {'max':>6}  {'user':>6}  {'system':>6}  compared",
    ]
    for name, way in value["ways"].items():
        ratio = f"{way['ratio']:.2f} × {COMPARED[name]}" if COMPARED[name] else ""
        user, system = (statistics.median(way[kind]) for kind in ("user", "system"))
        low, high = min(way["seconds"]), max(way["seconds"])
        lines.append(
            f"{name:20}  {way['median']:6.2f}s  {low:6.2f}  {high:6.2f}  {user:5.2f}s  {system:5.2f}s  {ratio}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
