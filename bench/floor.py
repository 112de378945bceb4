"""How near materialising comes to what the file system can do, in the same run, on the same file system.

Two floors, each by one process per core; nothing is read, decompressed or checked:

- *create*: every file of a prefix's layers is created in an empty folder, where it will lie and with its size, its
  content from memory.
- *link*: the same paths as hard links to those files.

What is compared with them takes turns with them, so that a machine whose speed drifts treats all alike. Each is a whole
process `likewise.node materialise`, from a filled store into an empty node cache, to the finished prefix:

- *from archives*: the store has compressed archives, as for nodes that are not on the client's machine.
- *second prefix*: after that, another prefix with the same layers on the same node.
- *from loose layers*: the store has the layers unpacked, as for nodes on the client's machine.

And *into the store* is what a client's first launch does behind it: each layer's files are read, hashed and written
into the store, unpacked.

Folders of earlier runs stay until the end: ext4 makes new files slowly for a while after many were removed. What is
written is synchronised before each run and not within it. The page cache is warm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from likewise.forms import Loose
from likewise.layers.loose import loose_source
from likewise.model.digest import Digest
from likewise.model.keys import layer_key, manifest_key
from likewise.model.layer import FileEntry, LayerKind
from likewise.model.manifest import Manifest, scheme_dirs
from likewise.node.helpers import run_forked
from likewise.node.unpack import Unpacker, read_listing, unpack
from likewise.store.local import LocalStore
from likewise.sync import prepare as fill_store

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / ".bench"
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
COMPARED = {
    "create": (),
    "link": (),
    "from archives": ("create",),
    "second prefix": ("link",),
    "from loose layers": ("create", "link"),
    "into the store": ("create",),
}
"""What is measured, and with which floors it is compared."""
Layers = list[tuple[FileEntry, ...]]


def main() -> int:
    """Fill the store, run, print the table."""
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="floor.") as name:
        folder = Path(name)
        os.environ["LIKEWISE_CACHE"] = str(arguments.cache or folder / "cache")
        os.chdir(name)  # so that there is no loose code
        say("filling the store")
        with_store = fill_store(python=str(arguments.python or client(arguments.requirements)))
        try:
            value = compare(with_store.store, with_store.manifest, folder, arguments)
        finally:
            with_store.close()
        value = {"command": arguments.command, "load": round(load, 2), **value}
        print(as_table(value), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(value, indent=1) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each; the median counts (default 5)")
    parser.add_argument("--python", type=Path, metavar="EXE", help="the environment; default: made from --requirements")
    parser.add_argument("--requirements", type=Path, default=REPOSITORY / "bench" / "w160.txt")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="on the file system to measure (default .bench)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the filled store there for the next time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as JSON")
    arguments = parser.parse_args()
    for name in ("python", "requirements", "folder", "cache", "json"):
        path = getattr(arguments, name)
        setattr(arguments, name, path and path.absolute())
    arguments.folder.mkdir(parents=True, exist_ok=True)
    arguments.command = shlex.join(["python", "bench/floor.py", *sys.argv[1:]])
    return arguments


def client(requirements: Path) -> Path:
    """The Python of an environment with what the benchmarks install, made when it is not there."""
    from uv import find_uv_bin

    python, uv = FOLDER / "floor" / "bin" / "python", find_uv_bin()
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, FOLDER / "floor"], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", python, "--reinstall-package", "likewise"]
    subprocess.run([*install, "--requirement", requirements, REPOSITORY], check=True)
    return python


def compare(store: LocalStore, manifest: Manifest, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All runs, and the figures as one JSON-serialisable value."""
    layers = read_layers(store, manifest)
    cores = len(os.sched_getaffinity(0))
    second = msgspec.structs.replace(manifest, needs={**manifest.needs, "SECOND": "1"})
    store.put_bytes(manifest_key(second.id), second.encode())
    loose = loosened(store, manifest, folder / "loose")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in COMPARED}
    for number in range(arguments.runs):
        made, linked, cache, other, copy = (
            folder / f"{number}.{n}" for n in ("made", "linked", "cache", "other", "copy")
        )
        turns: list[dict[str, Callable[[], object]]] = [
            {
                "create": partial(create_all, layers, made, cores, manifest.python),
                "link": partial(link_all, layers, made, linked, cores, manifest.python),
            },
            {
                "from archives": partial(materialise, cache, store.root, manifest),
                "second prefix": partial(materialise, cache, store.root, second),
            },
            {"from loose layers": partial(materialise, other, loose.root, manifest)},
            {"into the store": partial(fill_loose, loose, manifest, copy, cores)},
        ]
        start = number % len(turns)  # none always comes after the same
        for turn in [*turns[start:], *turns[:start]]:
            for name, work in turn.items():
                runs[name].append(measure(work))
        did = ", ".join(f"{name} {each[-1]['seconds']:.2f} s" for name, each in runs.items())
        say(f"run {number + 1} of {arguments.runs}: {did}")
    return summary(runs, layers, cores)


def digests_of(manifest: Manifest) -> list[Digest]:
    """All layers of the manifest, bytecode too, each once."""
    return list(dict.fromkeys(digest for ref in manifest.layers for digest in (ref.digest, ref.bytecode) if digest))


def read_layers(store: LocalStore, manifest: Manifest) -> Layers:
    """What each layer of the manifest holds, as its archive says; the largest first."""
    layers = [read_layer(store, digest) for digest in digests_of(manifest)]
    return sorted(layers, key=lambda entries: -sum(entry.size + 50_000 for entry in entries))


def read_layer(store: LocalStore, digest: Digest) -> tuple[FileEntry, ...]:
    """What one layer holds."""
    with store.open(layer_key(digest)) as archive:
        return read_listing(Unpacker(archive, digest, digest).listing(), name=digest)


def loosened(store: LocalStore, manifest: Manifest, folder: Path) -> LocalStore:
    """A store that has the layers of a manifest unpacked, and no archive."""
    say("unpacking the layers")
    loose = LocalStore(folder)
    for digest in digests_of(manifest):
        with store.open(layer_key(digest)) as archive, loose.loose.create_layer(digest) as draft:
            draft.tree.mkdir(0o755)
            listing, _ = unpack(archive, digest, str(draft.tree), name=digest)
            draft.listing.write_bytes(listing)
    loose.put_bytes(manifest_key(manifest.id), manifest.encode())
    return loose


def fill_loose(source: LocalStore, manifest: Manifest, folder: Path, threads: int) -> None:
    """Copy all layers of one store into a new one, as a client copies those of its prefix."""
    layers = []
    for digest in digests_of(manifest):
        tree = source.loose.layer(digest)
        assert tree is not None
        layers.append(loose_source(LayerKind.DISTRIBUTION, digest, "", digest, tree))
    form = Loose(LocalStore(folder))
    layers.sort(key=lambda layer: -layer.size)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda layer: form.put(layer, lambda size: None), layers))


def measure(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of the clock and of the processors that `work` takes, in a process of its own."""
    os.sync()
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        sys.exit("A run failed.")
    return {"seconds": seconds, "user": after.ru_utime - before.ru_utime, "system": after.ru_stime - before.ru_stime}


def materialise(cache: Path, store: Path, manifest: Manifest) -> None:
    """What is measured, as a node does it."""
    options = {"cache": cache, "store": store, "manifest": manifest.id}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    subprocess.run(
        [sys.executable, "-m", "likewise.node", "materialise", *words], check=True, stdout=subprocess.DEVNULL
    )


def create_all(layers: Layers, folder: Path, processes: int, python: str) -> None:
    """Create every file beneath `folder`."""
    content = memoryview(os.urandom(8 << 20))

    def create(parent: int, path: str, entry: FileEntry) -> None:
        fd = os.open(path.rpartition("/")[2], NEW_FILE, 0o755 if entry.executable else 0o644, dir_fd=parent)
        for start in range(0, entry.size, len(content)):
            os.write(fd, content[: entry.size - start])
        os.close(fd)

    make_all(layers, folder, processes, python, create)


def link_all(layers: Layers, source: Path, folder: Path, processes: int, python: str) -> None:
    """Link every file of `source` beneath `folder`."""
    opened: dict[str, int] = {}

    def link(parent: int, path: str, entry: FileEntry) -> None:
        there, _, name = path.rpartition("/")
        if there not in opened:
            opened[there] = os.open(source / there, os.O_RDONLY)
        os.link(name, name, src_dir_fd=opened[there], dst_dir_fd=parent)

    make_all(layers, folder, processes, python, link)


def make_all(
    layers: Layers, folder: Path, processes: int, python: str, make: Callable[[int, str, FileEntry], None]
) -> None:
    """Make every file with `make`, which gets its open directory; each process takes the next layer when it is free."""
    folder.mkdir()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # directories stay open

    def make_layer(number: int) -> bytes:
        parents: dict[str, int] = {}
        for entry in layers[number]:
            path = placed(entry, python)
            parent, _, name = path.rpartition("/")
            if parent not in parents:
                os.makedirs(folder / parent, exist_ok=True)
                parents[parent] = os.open(folder / parent, os.O_RDONLY)
            try:
                if entry.link:
                    os.symlink(entry.link, name, dir_fd=parents[parent])
                else:
                    make(parents[parent], path, entry)
            except FileExistsError:  # two layers may own one path
                continue
        for fd in parents.values():
            os.close(fd)
        return b""

    run_forked(len(layers), make_layer, processes)


def placed(entry: FileEntry, python: str) -> str:
    """Where the file lies beneath a prefix."""
    scheme, _, rest = entry.path.partition("/")
    return f"{scheme_dirs(python)[scheme]}/{rest}".lstrip("/")


def say(what: str) -> None:
    """How far it is."""
    print(what, file=sys.stderr, flush=True)


def summary(runs: dict[str, list[dict[str, float]]], layers: Layers, cores: int) -> dict[str, Any]:
    """All figures as one JSON-serialisable value."""
    medians = {name: statistics.median(run["seconds"] for run in each) for name, each in runs.items()}
    return {
        "machine": {"cores": cores, "python": platform.python_version(), "system": platform.platform()},
        "layers": len(layers),
        "files": sum(not entry.link for entries in layers for entry in entries),
        "links": sum(bool(entry.link) for entries in layers for entry in entries),
        "bytes": sum(entry.size for entries in layers for entry in entries),
        "ways": {
            name: {
                "median": round(medians[name], 3),
                "ratios": {floor: round(medians[name] / medians[floor], 2) for floor in COMPARED[name]},
                **{kind: [round(run[kind], 3) for run in each] for kind in each[0]},
            }
            for name, each in runs.items()
        },
    }


def as_table(value: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"{value['layers']} layers, {value['files']:,} files, {value['links']:,} links, "
        f"{value['bytes'] / 1e6:,.0f} MB, {value['machine']['cores']} cores, load {value['load']} before",
        f"{'':17}  {'median':>7}  {'min':>6}  {'max':>6}  {'user':>6}  {'system':>6}  to its floors",
    ]
    for name, way in value["ways"].items():
        ratios = ", ".join(f"{ratio:.2f} × {floor}" for floor, ratio in way["ratios"].items())
        user, system = (statistics.median(way[kind]) for kind in ("user", "system"))
        low, high = min(way["seconds"]), max(way["seconds"])
        lines.append(
            f"{name:17}  {way['median']:6.2f}s  {low:6.2f}  {high:6.2f}  {user:5.2f}s  {system:5.2f}s  {ratios}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
