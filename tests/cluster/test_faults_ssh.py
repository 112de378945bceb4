"""Everything that can go wrong on real machines, in one story: each start goes on where the one before was broken off.

A layer of many incompressible megabytes over a slow network makes the moments: whatever happens, happens while a file
named ``….part`` grows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from likewise.model.digest import digest_bytes
from support.prefixes import UV, run
from support.ssh_client import SHELL, ClientError, SSHClient
from support.testbed import FakeHosts, Host, Testbed
from support.users import common_cache, make_user_venv
from support.wheels import write_wheel

pytestmark = [pytest.mark.root, pytest.mark.registry]

BULK = 40_000_000  # bytes of one layer that takes its time
LARGE = 6e6  # bytes of it that are there when something happens; small layers would be over by then
RATE = 80.0  # Mbit/s: four seconds for it
DISK = 700  # MB, of the host whose disk will be full
CACHE = "/data"
MARGIN = 200.0  # seconds after which a test says that something did not happen

START = """
cluster = SSHCluster({hosts}, connect_options={{"config": {config!r}}}, worker_options={{"nthreads": 1}},
                     node_cache="/data")
client = cluster.get_client()
answer = [warned, cluster._shipment.uploaded]
"""

LOOK = """
def look(name):
    import importlib, socket
    return socket.gethostname(), importlib.import_module(name).digest(), loose.double(21)

answer = sorted(client.run(look, "{name}").values())
"""

MODULE = b"""
import hashlib, pathlib

def digest():
    return hashlib.sha256(pathlib.Path(__file__).with_name("data.bin").read_bytes()).hexdigest()
"""

VERIFY = """
report = cluster.verify()
answer = {"ok": report.ok, "nodes": sorted(node.node for node in report.nodes)}
"""


def until(what: Callable[[], Any], meanwhile: Future[Any]) -> Any:
    """The first true value of `what`, which has to come before `meanwhile` ends."""
    deadline = time.monotonic() + MARGIN
    while not (value := what()):
        if meanwhile.done():
            raise AssertionError(f"It was over too soon: {meanwhile.result()}")
        assert time.monotonic() < deadline, "It never happened."
        time.sleep(0.01)
    return value


def part(host: Host) -> Path | None:
    """The file of a layer that is on its way to the host right now: a large one, which will be so for a while."""
    found = (host.root / CACHE[1:] / "archives").glob("*.part")
    return next((path for path in found if _size(path) > LARGE), None)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class Story:
    """The client's prefix and the hosts, one start after the other."""

    def __init__(self, folder: Path, bed: Testbed, cache: Path) -> None:
        self.folder, self.bed, self.cache = folder, bed, cache
        self.contents: dict[str, str] = {}  # of the packages that are only there to take their time
        self.python = make_user_venv(folder / "venv", "asyncssh", self._wheel("bulk"))
        (folder / "work").mkdir()
        (folder / "work/loose.py").write_text("def double(x):\n    return 2 * x\n")
        (folder / "work/client.py").write_text(SHELL)
        self.pool = ThreadPoolExecutor(1)
        self.client: SSHClient | None = None

    def begin(self) -> Future[Any]:
        """Start a cluster on all hosts, in the background; it waits for all layers, so that it tells what fails."""
        self.client = SSHClient(self.python, cache=self.cache, DASK_LIKEWISE__STREAMING="false")
        code = START.format(hosts=self.bed.names, config=str(self.bed.ssh_config))
        return self.pool.submit(self.client.do, code)

    def do(self, code: str) -> Any:
        """Let the client do something."""
        assert self.client is not None
        return self.client.do(code)

    def look(self, name: str) -> dict[str, Any]:
        """Let all workers read a package: the hosts that did, and what they read."""
        found = self.do(LOOK.format(name=name))
        assert {double for _, _, double in found} == {42}
        return {"hosts": [host for host, _, _ in found], "contents": {content for _, content, _ in found}}

    def add(self, name: str) -> None:
        """What the user does: install one more package."""
        run(UV, "pip", "install", "--quiet", "--python", self.python, self._wheel(name))

    def _wheel(self, name: str) -> Path:
        data = os.urandom(BULK)
        self.contents[name] = digest_bytes(data)
        files = {f"{name}/__init__.py": MODULE, f"{name}/data.bin": data}
        return write_wheel(self.folder / "wheels", files, name=name)

    def end(self) -> None:
        """The client goes."""
        if self.client is not None:
            self.client.end()
            self.client = None


@pytest.fixture(scope="module")
def story(fake_hosts: FakeHosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    bed = fake_hosts(4, fresh=True)
    for host in bed:
        host.shape(RATE)
    bed[3].small_disk(CACHE, DISK)
    found = Story(tmp_path_factory.mktemp("faults"), bed, common_cache(tmp_path_factory))
    yield found
    found.end()
    found.pool.shutdown()


@pytest.fixture(scope="module")
def killed(story: Story) -> SimpleNamespace:
    """The first start: the client is killed (-9) while it uploads."""
    starting = story.begin()
    until(lambda: part(story.bed[0]), starting)
    assert story.client is not None
    story.client.kill()
    with pytest.raises((ClientError, ValueError)):
        starting.result(MARGIN)
    return SimpleNamespace(left={host.name: host.wait_idle(30) for host in story.bed})


def test_a_client_killed_while_it_uploads_leaves_nothing_running(killed: SimpleNamespace) -> None:
    """kill -9 of the client in the middle of a layer: soon no process is left on any host."""
    assert not any(killed.left.values())


@pytest.fixture(scope="module")
def broken(story: Story, killed: SimpleNamespace) -> SimpleNamespace:
    """The second start, while everything goes wrong: one host is cut off for a while, one loses power, one is full."""
    _, cut, dead, full = story.bed
    starting = story.begin()
    with ThreadPoolExecutor(3) as pool:

        def when_a_layer_arrives(host: Host, what: Callable[[], Any]) -> Future[Any]:
            return pool.submit(lambda: until(lambda: part(host), starting) and what())

        for strike in [
            when_a_layer_arrives(cut, lambda: _cut_off(cut)),
            when_a_layer_arrives(dead, dead.kill),
            when_a_layer_arrives(full, lambda: full.fill_disk(CACHE)),
        ]:
            strike.result()
    warned, uploaded = starting.result(MARGIN)
    seen = SimpleNamespace(warned=warned, uploaded=uploaded, **story.look("bulk"))
    seen.verified = story.do(VERIFY)
    story.do("client.close(); cluster.close()")
    story.end()
    seen.left = {host.name: host.wait_idle(20) for host in (story.bed[0], cut, full)}
    return seen


def _cut_off(host: Host) -> None:
    """Take the cables out until nothing moves any more, then put them in again."""
    host.unplug()
    path, before = part(host), -1
    assert path is not None, "it was all there already"
    while before != (before := _size(path)):
        time.sleep(0.3)
    host.plug()


def test_hosts_that_fail_are_named_and_the_others_compute(broken: SimpleNamespace) -> None:
    """A host without power and one with a full disk are named, each with its reason; the cluster runs without them."""
    assert broken.hosts == ["h2"]
    about = {name: [text for text in broken.warned if f" {name}: " in text] for name in ("h2", "h3", "h4")}
    assert [len(texts) for texts in about.values()] == [0, 1, 1]
    assert "Connection lost" in about["h3"][0]
    assert "The node's disk is" in about["h4"][0]  # full, or too small, as it was found


def test_a_host_that_was_cut_off_has_every_byte(broken: SimpleNamespace, story: Story) -> None:
    """What went on after the cables were in again is what it was to be, and all that runs verifies."""
    assert broken.contents == {story.contents["bulk"]}
    assert broken.verified == {"ok": True, "nodes": ["h1", "h2"]}


def test_an_upload_goes_on_where_the_killed_client_was(broken: SimpleNamespace) -> None:
    """The second client does not send again what the first one had sent of a layer."""
    assert max(broken.uploaded.values()) < BULK


def test_nothing_is_left_after_all_that(broken: SimpleNamespace) -> None:
    """close() ends every process on the hosts that are there."""
    assert not any(broken.left.values())


@pytest.fixture(scope="module")
def again(story: Story, broken: SimpleNamespace) -> SimpleNamespace:
    """The third start: all hosts are back, nothing was cleaned, and what others have of the layer is all damaged."""
    hub, wrong, back, full = story.bed
    back.start()
    back.wait_started()
    full.run(f"rm {CACHE}/filler")
    spoilt = [path for host in (hub, wrong, full) for path in _archives(host)]
    for path in spoilt:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"wrong bytes")
    assert {path for path in spoilt if path.is_relative_to(hub.root)}
    warned, _ = story.begin().result(MARGIN)
    seen = SimpleNamespace(warned=warned, **story.look("bulk"))
    seen.log = back.run(f"cat {CACHE}/agents/*.log")
    seen.verified = story.do(VERIFY)
    return seen


def _archives(host: Host) -> list[Path]:
    """Whole archives of the layer that takes its time."""
    found = (host.root / CACHE[1:] / "archives").iterdir()
    return [path for path in found if path.suffix != ".part" and _size(path) > BULK]


def test_a_second_try_needs_no_cleaning(again: SimpleNamespace) -> None:
    """The host that lost power and the one that was full take part as if nothing had happened."""
    assert again.warned == []
    assert again.hosts == ["h2", "h3", "h4"]


def test_wrong_bytes_of_a_peer_are_refused(again: SimpleNamespace, story: Story) -> None:
    """A host that is offered damaged copies says by whom, the client uploads a good one, and all of them verify."""
    assert any(story.bed[i].address in again.log for i in (0, 1, 3))
    assert again.contents == {story.contents["bulk"]}
    assert again.verified == {"ok": True, "nodes": ["h1", "h2", "h3", "h4"]}


@pytest.fixture(scope="module")
def synced(story: Story, again: SimpleNamespace) -> SimpleNamespace:
    """One more package; a worker dies while it arrives, its nanny starts another. Adaptive scaling, and kill -9."""
    assert story.client is not None
    story.add("extra")
    seen = SimpleNamespace(error="")
    syncing = story.pool.submit(story.client.do, "cluster.sync()")
    dying = story.bed[2]
    until(lambda: part(dying), syncing)
    workers = [str(process.pid) for process in dying.processes() if "multiprocessing.spawn" in process.command]
    dying.run(f"kill -9 {' '.join(workers)}")
    try:
        syncing.result(MARGIN)
    except ClientError as error:
        seen.error = str(error)
        story.do("cluster.sync()")
    story.do("cluster.adapt(minimum=4, maximum=4); client.wait_for_workers(4, timeout=100)")
    seen.__dict__.update(story.look("extra"))
    seen.verified = story.do(VERIFY)
    story.client.kill()
    seen.left = {host.name: host.wait_idle(30) for host in story.bed}
    return seen


def test_a_worker_that_dies_during_sync_does_not_stop_it(synced: SimpleNamespace, story: Story) -> None:
    """All workers, the later ones too, run the new environment; a sync that failed would have named the worker."""
    assert not synced.error or "worker" in synced.error
    assert len(synced.hosts) == 4
    assert synced.contents == {story.contents["extra"]}
    assert synced.verified["ok"]


def test_a_client_killed_at_the_end_leaves_nothing_running(synced: SimpleNamespace) -> None:
    """kill -9 of the client of a running cluster: soon no process is left on any host."""
    assert not any(synced.left.values())
