"""Environments that are started while they grow, with real kits, fillers and gates; and layers that are held back."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from likewise.layers.outline import build_outline, outline_source
from likewise.model.keys import layer_key
from likewise.model.layer import LayerSource
from likewise.model.manifest import Manifest
from likewise.node.command import Launch
from likewise.node.growing import Growing, key
from support.nodes import archive, manifest_of, put, put_manifest, real_kit
from support.prefixes import clean_environ

_T = TypeVar("_T")


class Stream(msgspec.Struct, frozen=True):
    """An environment of the kit and some more layers, with a store and a node's cache of its own."""

    store: Path
    cache: Path
    manifest: Manifest

    @property
    def prefix(self) -> Path:
        """Where the node has it."""
        return self.cache / "prefixes" / self.manifest.id[:16]

    @property
    def growing(self) -> Growing:
        """What is told about it while it grows."""
        return Growing(str(self.prefix))

    def launch(self, **change: Any) -> Launch:
        """How to start it, streaming."""
        return real_kit().launch(self.cache, self.manifest, store=self.store, **{"stream": True, **change})

    def archive(self, source: LayerSource) -> Path:
        """Where the store has a layer."""
        return self.store / layer_key(source.digest)

    def is_there(self, source: LayerSource) -> bool:
        """Whether the layer is laid out."""
        return key(source.digest) in self.growing.there()

    def hold(self, *sources: LayerSource) -> None:
        """Keep whoever reads these layers waiting."""
        for source in sources:
            self.archive(source).unlink()
            os.mkfifo(self.archive(source))

    def release(self, *sources: LayerSource) -> None:
        """Let them go, to one who reads or will read them."""
        for source in sources:
            fifo = self.archive(source)
            with fifo.open("wb") as out:
                fifo.unlink()
                put(self.store, source)
                out.write(archive(source))

    @contextmanager
    def running(self, code: str, *argv: str, **change: Any) -> Iterator[subprocess.Popen[str]]:
        """A process of the environment that runs `code`; afterwards it has ended."""
        process = subprocess.Popen(
            [*self.launch(**change).argv(), "-c", code, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environ(),
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def filler(self) -> int | None:
        """The process that fills the prefix, once it has begun; what it fills may be in use before."""
        return holder(Path(self.growing.place("lock")))


Make = Callable[..., Stream]


@contextmanager
def streams(folder: Path) -> Iterator[Make]:
    """Makes environments beneath `folder`; afterwards nobody fills them any more."""
    made: list[Stream] = []

    def make(*layers: LayerSource, **options: Any) -> Stream:
        made.append(make_stream(folder / f"stream{len(made)}", *layers, **options))
        return made[-1]

    yield make
    for stream in made:
        eventually(lambda stream=stream: stream.filler() is None)


def make_stream(
    folder: Path,
    *layers: LayerSource,
    bytecode: Mapping[str, LayerSource] | None = None,
    requires: Mapping[str, Sequence[str]] | None = None,
    **roots: tuple[str, ...],
) -> Stream:
    """An environment of the kit's layers and these, with an outline, in a store beneath `folder`."""
    every = (*real_kit().layers, *layers)
    outline = outline_source(build_outline(every, requires or {}))
    store = folder / "store"
    put(store, *layers, *(bytecode or {}).values(), outline)  # the kit has its own
    plain = manifest_of(*every, bytecode=bytecode, **roots)
    manifest = put_manifest(store, msgspec.structs.replace(plain, outline=outline.digest))
    return Stream(store, folder / "cache", manifest)


def holder(lock: Path) -> int | None:
    """The process that has locked the file (proc(5), ``/proc/locks``); those who just look take a lock for reading."""
    try:
        inode = lock.stat().st_ino
    except FileNotFoundError:
        return None
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[3] == "WRITE" and int(fields[5].rpartition(":")[2]) == inode:
            return int(fields[4])
    return None


def eventually(true: Callable[[], _T | None], seconds: float = 30) -> _T:
    """Wait until `true` returns something true; that."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
    return found


def content(root: Path) -> dict[str, tuple[int, bytes | str]]:
    """Everything beneath a folder: mode, and content or target, by path; folders too."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        what: bytes | str = ""
        if stat.S_ISLNK(status.st_mode):
            what = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            what = path.read_bytes()
        found[str(path.relative_to(root))] = (status.st_mode, what)
    return found
