"""A package index, or a channel of conda's, on a machine of its own beside a testbed's hosts: as near to them as a
mirror in their data centre.

``python near_index.py KIND FOLDER ADDRESS`` serves until its standard input ends; it tells its URL, and every request.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.conda_server import serve_channel
from support.indexes import Asked, serve_index
from support.prefixes import clean_environ
from support.testbed import Testbed

HOST = 200
"""The last number of its address."""


class Got(NamedTuple):
    """A request: who asked, as an address, for which path, and for which part of it (``bytes=0-99``), "" for all."""

    address: str
    path: str
    part: str = ""

    @property
    def wheel(self) -> str:
        """The file name of the wheel that was asked for, "" for a page or metadata."""
        name = self.path.rpartition("/")[2]
        return name if name.endswith(".whl") else ""


class NearIndex:
    """The index or channel, as it is known from here.

    Attributes
    ----------
    url : str
        Of the simple repository, or of the channel.
    got : list of Got
        Every request so far.
    """

    def __init__(self, bed: Testbed, folder: Path, kind: str = "index") -> None:
        network = bed._network
        address = f"{bed.client_address.rpartition('.')[0]}.{HOST}"
        self._switch = network.switch
        self.got: list[Got] = []
        namespace = network.add("index", {0: address})
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, __file__, kind, str(folder), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environ(),
        )
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.got.append(Got(*json.loads(line)))

    def unplug(self) -> None:
        """Take its cable out: packets go nowhere, nobody is told."""
        subprocess.run(["ip", "-n", self._switch, "link", "set", "index-0", "down"], check=True)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@contextlib.contextmanager
def near_index(bed: Testbed, folder: Path) -> Iterator[NearIndex]:
    """An index over the wheels in `folder`. One for each testbed; it goes with it."""
    yield from _near(NearIndex(bed, folder))


@contextlib.contextmanager
def near_channel(bed: Testbed, folder: Path) -> Iterator[NearIndex]:
    """A channel of conda's, which `folder` is, in the same way."""
    yield from _near(NearIndex(bed, folder, "channel"))


def _near(index: NearIndex) -> Iterator[NearIndex]:
    try:
        yield index
    finally:
        index.close()


def slow_uplink(bed: Testbed, megabits: float) -> None:
    """Let the client send at most so many Mbit/s to all machines together; what it receives comes as ever."""
    limit = ["rate", f"{megabits}mbit", "burst", "64kb", "latency", "200ms"]
    subprocess.run(
        ["tc", "qdisc", "replace", "dev", bed._network.interface, "root", "tbf", *limit],
        check=True,
        capture_output=True,
    )


def quick_uplink(bed: Testbed) -> None:
    """Let the client send as it can."""
    subprocess.run(["tc", "qdisc", "del", "dev", bed._network.interface, "root"], check=False, capture_output=True)


class _Told(list[Any]):
    """Requests, each told when it comes."""

    def append(self, asked: Asked | str) -> None:
        """Say who asks for what; a channel does not say who."""
        super().append(asked)
        if isinstance(asked, str):
            print(json.dumps(["", asked]), flush=True)
        else:
            print(json.dumps([asked.address, asked.path, asked.headers.get("range", "")]), flush=True)


def _serve(kind: str, folder: Path, address: str) -> None:
    serve = serve_channel if kind == "channel" else serve_index
    with serve(folder, host=address) as server:
        server.asked = _Told()
        print(json.dumps(server.url), flush=True)
        sys.stdin.read()
        os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
