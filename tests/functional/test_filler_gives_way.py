"""A filler does not keep others from the cache, and hurries nobody for what nobody has asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.model.keys import layer_key, promise_key
from likewise.node.cache import open_cache
from likewise.node.growing import is_whole
from likewise.node.materialise import materialise
from likewise.node.sources import DirectoryStore
from likewise.node.verify import verify_prefix
from likewise.store.lease import Lease
from likewise.store.local import LocalStore
from support.nodes import distribution, manifest_of, put, put_loose
from support.streams import Make, Stream, eventually, streams

HERE = distribution("here", {"purelib/here.py": b"v = 1\n"})
LATE = distribution("late", {"purelib/late.py": b"v = 2\n"})
OTHER = distribution("other", {"purelib/other.py": b"v = 3\n"})


@pytest.fixture
def stream_of(tmp_path: Path) -> Iterator[Make]:
    with streams(tmp_path) as make:
        yield make


def promised(stream: Stream) -> Lease:
    """`LATE` is not in the store, and a living client is about to make it."""
    (stream.store / layer_key(LATE.digest)).unlink()
    stream.store.chmod(0o700)
    return LocalStore(stream.store).lease([promise_key(LATE.digest)])


def test_whoever_needs_the_cache(stream_of: Make) -> None:
    """While a filler waits for a client, another environment is made in the same cache; then the first goes on."""
    stream = stream_of(HERE, LATE)
    with promised(stream), stream.running("import here, sys; print('up', flush=True); sys.stdin.read()") as process:
        assert process.stdout and process.stdout.readline() == "up\n", process.communicate()[1]
        eventually(stream.filler)
        put(stream.store, OTHER)
        second = materialise(
            open_cache(str(stream.cache)), manifest_of(OTHER), [DirectoryStore(str(stream.store))], helpers=1
        )
        assert is_whole(second) and not is_whole(str(stream.prefix))
        put_loose(stream.store, LATE)
        eventually(lambda: is_whole(str(stream.prefix)))
    assert not verify_prefix(str(stream.prefix)).differences


def test_nobody_is_hurried_for_nothing(stream_of: Make) -> None:
    """A client is told what somebody waits for, and only that: the rest it makes in its own order."""
    stream = stream_of(HERE, LATE)
    code = "import here, sys; print('up', flush=True); sys.stdin.readline(); import late; print(late.v)"
    with promised(stream), stream.running(code) as process:
        assert process.stdout and process.stdin
        assert process.stdout.readline() == "up\n", process.communicate()[1]
        eventually(lambda: stream.is_there(HERE))
        wanted = stream.store / "wanted"
        assert not wanted.exists() or os.listdir(wanted) == []
        process.stdin.write("\n")
        process.stdin.flush()
        eventually(lambda: wanted.exists() and os.listdir(wanted) == [LATE.digest])
        put_loose(stream.store, LATE)
        assert process.stdout.readline() == "2\n", process.communicate()[1]
