"""What a node holds in memory does not depend on how large a layer is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from likewise.layers.pack import write_archive
from likewise.model.digest import Digest
from likewise.model.keys import layer_key
from likewise.model.layer import FileEntry, LayerKind, SourceFile, layer_source
from likewise.node.unpack import file_digest
from support.nodes import distribution, manifest_of, put, put_manifest

HUGE = 400 << 20
MOST = 150_000
"""Kilobytes; likewise promises that none of its processes on a node takes more."""

# Linux counts what a process held before it became another program, so the parent of what is measured is a small one.
MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def huge_file(path: Path) -> SourceFile:
    """A file of 400 MB, mostly a hole."""
    with path.open("wb") as file:
        for position in (0, HUGE // 2, HUGE - 1_000_000):
            file.seek(position)
            file.write(os.urandom(1_000_000))
    with path.open("rb") as file:
        digest = Digest(file_digest(file.fileno()))
    entry = FileEntry(path="purelib/huge/huge.bin", sha256=digest, size=HUGE)
    return SourceFile(entry=entry, path=str(path))


def test_a_huge_file_takes_little_memory(tmp_path: Path) -> None:
    """No process of a node holds as much as 150 MB while it makes a prefix with a file of 400 MB."""
    huge = layer_source(LayerKind.DISTRIBUTION, "huge", "1.0", [huge_file(tmp_path / "huge.bin")])
    small = distribution("small", {"purelib/small.py": b"x = 1\n"})
    store, cache = tmp_path / "store", tmp_path / "cache"
    archive = store / layer_key(huge.digest)
    archive.parent.mkdir(parents=True)
    with archive.open("wb") as out:
        write_archive(huge, out, level=1)
    put(store, small)
    manifest = put_manifest(store, manifest_of(huge, small))
    node = [sys.executable, "-m", "likewise.node", "materialise"]
    options = ["--cache", str(cache), "--store", str(store), "--manifest", manifest.id]
    done = subprocess.run([sys.executable, "-c", MEASURED, *node, *options], capture_output=True, text=True, check=True)
    made = cache / "prefixes" / manifest.id[:16] / "lib" / manifest.python / "site-packages/huge/huge.bin"
    assert made.stat().st_size == HUGE
    assert 0 < int(done.stdout) < MOST
