"""Nodes that are killed while they put their prefix in the place of placeholders: nothing half-made, nothing wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.layers.conda import layer_of_archive
from likewise.model.layer import LayerSource
from likewise.model.manifest import Manifest, prefix_path
from likewise.model.placeholders import with_prefix
from likewise.node.cache import NodeCache, open_cache
from likewise.node.verify import verify_prefix
from support.conda_package import PLACEHOLDER, Item, Package, script, write_package
from support.nodes import manifest_of, put, put_manifest
from support.streams import Make, eventually, streams

TEXTS, BINARIES = 6, 6

# Ends itself and all its helpers, as kill -9 does, when it is about to make, or has made, file number `sys.argv[2]`.
STARTER = """
import os, signal, sys
from multiprocessing import Value
from likewise.node import generated, materialise
from likewise.node.__main__ import main

when, number, *rest = sys.argv[1:]
done = Value("i", 0)

def counting(real):
    def counted(*args, **more):
        if when == "before":
            count()
        made = real(*args, **more)
        if when == "after":
            count()
        return made
    return counted

def count():
    with done.get_lock():
        done.value += 1
        if done.value == int(number):
            os.killpg(0, signal.SIGKILL)

if when == "before":
    generated.with_prefix = counting(generated.with_prefix)
else:
    materialise.write = counting(materialise.write)
main(rest)
"""


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> LayerSource:
    """A package in which every file names its prefix, but one."""
    return make_tool(tmp_path_factory.mktemp("tool"), TEXTS, BINARIES)


def make_tool(folder: Path, texts: int, binaries: int) -> LayerSource:
    """The layer of a package with so many files, as its archive has it."""
    files: dict[str, Item | str | bytes] = {"share/tool/plain.txt": "plain\n"}
    for number in range(texts):
        files[f"bin/tool{number}"] = script(f"#!/bin/sh\necho {PLACEHOLDER} {number}\n" + "#" * 9000)
    for number in range(binaries):
        files[f"lib/tool{number}.dat"] = b"\0\1" + f"{PLACEHOLDER}/lib/{number}".encode() + b"\0" + os.urandom(20_000)
    archive = write_package(Package("tool", "1.0", files), folder)
    return layer_of_archive(archive, folder / "content")


def check(prefix: Path, source: LayerSource) -> None:
    """Every file is what conda's installer would make there; verifying finds no difference."""
    for file in source.files:
        entry = file.entry
        expected = Path(file.path).read_bytes()
        if entry.placeholder:
            expected = with_prefix(expected, entry.placeholder, str(prefix), binary=entry.binary)
        place = prefix / prefix_path(entry.path, "python3.11")
        assert place.read_bytes() == expected, entry.path
        assert os.access(place, os.X_OK) is entry.executable, entry.path
    found = verify_prefix(str(prefix)).differences
    assert [one for one in found if one.subject != "python"] == []  # a prefix of this layer alone has none


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return open_cache(str(tmp_path / "cache"))


def materialise(cache: NodeCache, store: Path, manifest: Manifest, when: str, number: int) -> int:
    """Have a process make the prefix; how it ended."""
    words = ["materialise", "--cache", cache.root, "--store", str(store), "--manifest", manifest.id]
    argv = [sys.executable, "-c", STARTER, when, str(number), *words]
    return subprocess.run(argv, start_new_session=True, capture_output=True, check=False).returncode


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_each_file_that_names_the_prefix(
    cache: NodeCache, tmp_path: Path, tool: LayerSource, when: str
) -> None:
    """No prefix is to be seen then; the next start makes it, and what it has got of the layer stays as it was."""
    put(tmp_path / "store", tool)
    manifest = put_manifest(tmp_path / "store", manifest_of(tool))
    for number in range(1, TEXTS + BINARIES + 1, 3):
        assert materialise(cache, tmp_path / "store", manifest, when, number) == -signal.SIGKILL
        assert os.listdir(cache.place("prefixes")) == []
    assert materialise(cache, tmp_path / "store", manifest, when, 10**6) == 0
    check(Path(cache.prefix(manifest.id)), tool)
    assert os.listdir(cache.place("tmp")) == []
    kept = Path(cache.layer(tool.digest))
    for file in tool.files:
        assert (kept / file.entry.path).read_bytes() == Path(file.path).read_bytes()


@pytest.fixture
def stream_of(tmp_path: Path) -> Iterator[Make]:
    with streams(tmp_path) as make:
        yield make


def test_killed_while_a_prefix_in_use_grows(stream_of: Make, tmp_path: Path) -> None:
    """The filler is killed in the middle of the files; each that is there is whole, and the next filler goes on."""
    many = make_tool(tmp_path / "many", 150, 150)
    stream = stream_of(many)
    stream.hold(many)
    with stream.running("import sys; print('up', flush=True); sys.stdin.read()") as process:
        assert process.stdout and process.stdout.readline() == "up\n", process.communicate()[1]
        killed = eventually(stream.filler)
        stream.release(many)
        eventually(lambda: list((stream.prefix / "lib").glob("tool*.dat")))
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: stream.filler() != killed)
        for file in many.files:
            place = stream.prefix / prefix_path(file.entry.path, "python3.11")
            if file.entry.binary and place.exists():
                made = with_prefix(Path(file.path).read_bytes(), PLACEHOLDER, str(stream.prefix), binary=True)
                assert place.read_bytes() == made
        if (stream.prefix / "growing").exists():  # else it was quicker than the signal
            subprocess.run([stream.growing.place("fill")], check=True)
        eventually(lambda: not (stream.prefix / "growing").exists())
    check(stream.prefix, many)
