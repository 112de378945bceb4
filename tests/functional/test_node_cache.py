"""The node's cache belongs to one user, and what leaves it is what nobody uses."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from likewise.errors import NodeError
from likewise.model.layer import LayerKind, LayerSource
from likewise.node.cache import NodeCache, host_name, open_cache, start_time
from likewise.node.expiry import leased, leased_clusters, prune
from likewise.node.materialise import materialise
from likewise.node.sources import DirectoryStore
from support.nodes import distribution, layer, manifest_of, put

HOUR = 3600.0
DAY = 24 * HOUR
NOBODY = 65534

PLAIN = distribution("plain", {"purelib/plain.py": b"1\n"})
OTHER = distribution("other", {"purelib/other.py": b"1\n"})
CODE = layer("code-1", {"code/code-1/mine.py": b"m\n"}, kind=LayerKind.CODE)


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return open_cache(str(tmp_path / "cache"))


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A living process that is not this one."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def make(cache: NodeCache, *layers: LayerSource) -> str:
    """A prefix of these layers; its name."""
    store = Path(cache.root).parent / "store"
    put(store, *layers)
    return os.path.basename(materialise(cache, manifest_of(*layers), [DirectoryStore(str(store))]))


def lease(cache: NodeCache, name: str, pid: int, *, host: str = "", started: str | None = None) -> Path:
    path = Path(cache.place("leases"), f"{host or host_name()}.{pid}")
    path.write_text(f"{name}{'0' * 48} {start_time(str(pid)) if started is None else started}\n")
    return path


def in_future(seconds: float) -> float:
    return time.time() + seconds


# ---- whose it is


def test_cache_is_made_private(tmp_path: Path) -> None:
    """A new cache, and one that was open for the group, can be entered by its owner only."""
    old = os.umask(0)
    try:
        (tmp_path / "given").mkdir(mode=0o775)
        for name in ("new/deep", "given"):
            cache = open_cache(str(tmp_path / name))
            assert os.stat(cache.root).st_mode & 0o777 == 0o700
            assert os.stat(cache.place("layers")).st_mode & 0o777 == 0o700
    finally:
        os.umask(old)


def test_link_is_refused(tmp_path: Path) -> None:
    """A link in the place of the cache, or of a folder in it, is not followed."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(NodeError, match="not a directory of its own"):
        open_cache(str(tmp_path / "link"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/layers").symlink_to("../real")
    with pytest.raises(NodeError, match="not a directory of its own"):
        open_cache(str(tmp_path / "cache"))
    assert os.listdir(tmp_path / "real") == []


@pytest.mark.root
def test_other_users_folder_is_refused(tmp_path: Path) -> None:
    """A folder that another user made is not used, whatever its mode."""
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    with pytest.raises(NodeError, match="belongs to another user"):
        open_cache(str(tmp_path / "theirs"))


def test_world_writable_folder_is_refused(tmp_path: Path) -> None:
    """Where everybody may write, anybody may have put something already."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(NodeError, match="written by everybody"):
        open_cache(str(tmp_path / "open"))


@pytest.mark.parametrize("name", ["a:b", "a\\b", "a\nb"])
def test_impossible_names_are_refused(tmp_path: Path, name: str) -> None:
    """Search paths and scripts can't hold these characters, so the error comes before and says so."""
    with pytest.raises(NodeError, match="colon, a backslash or a line break"):
        open_cache(str(tmp_path / name))


@pytest.mark.root
def test_noexec_is_refused(tmp_path: Path) -> None:
    """From a file system mounted with noexec no library can be loaded."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "likewise-test", tmp_path], check=True)
    try:
        with pytest.raises(NodeError, match="noexec"):
            open_cache(str(tmp_path / "cache"))
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.root
def test_read_only_place(tmp_path: Path) -> None:
    """A place that can't be written is an error with the folder in it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "likewise-test", tmp_path], check=True)
    try:
        with pytest.raises(NodeError, match="can't be written") as caught:
            open_cache(str(tmp_path / "cache"))
        assert caught.value.where == str(tmp_path / "cache")
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


# ---- what leaves it


def test_nothing_leaves_early(cache: NodeCache) -> None:
    """What was used within its time stays."""
    make(cache, PLAIN, CODE)
    assert prune(cache, now=in_future(23 * HOUR)) == prune(cache)
    assert prune(cache).prefixes == ()


def test_code_leaves_after_a_day(cache: NodeCache) -> None:
    """A prefix with the user's code, and that code, are gone after 24 h without use; other layers stay for a week."""
    name = make(cache, PLAIN, CODE)
    pruned = prune(cache, now=in_future(25 * HOUR))
    assert pruned.prefixes == (name,) and pruned.layers == (CODE.digest,)
    assert not os.path.exists(cache.layer(CODE.digest)) and not os.path.exists(cache.listing(CODE.digest))
    assert os.path.exists(cache.layer(PLAIN.digest))
    assert prune(cache, now=in_future(6 * DAY)).layers == ()
    assert prune(cache, now=in_future(8 * DAY)).layers == (PLAIN.digest,)
    assert os.listdir(cache.place("layers")) == os.listdir(cache.place("prefixes")) == []


def test_layers_of_a_living_prefix_stay(cache: NodeCache) -> None:
    """A layer does not go before the last prefix that contains it, and its age begins then."""
    make(cache, PLAIN)
    name = make(cache, OTHER)
    Path(cache.used(name)).touch()
    os.utime(cache.used(name), (in_future(6 * DAY), in_future(6 * DAY)))
    pruned = prune(cache, now=in_future(8 * DAY))
    assert pruned.layers == (PLAIN.digest,) and len(pruned.prefixes) == 1
    pruned = prune(cache, now=in_future(13.5 * DAY))
    assert pruned.prefixes == (name,) and pruned.layers == (OTHER.digest,)


def test_shared_code_stays_with_its_other_prefix(cache: NodeCache) -> None:
    """Code that a prefix in use contains is not removed with one that is not."""
    first, second = make(cache, PLAIN, CODE), make(cache, OTHER, CODE)
    Path(cache.used(second)).touch()
    os.utime(cache.used(second), (in_future(DAY), in_future(DAY)))
    pruned = prune(cache, now=in_future(26 * HOUR))
    assert pruned.prefixes == (first,) and pruned.layers == ()


def test_leased_prefix_stays(cache: NodeCache, sleeper: subprocess.Popen[bytes]) -> None:
    """A prefix that a living process runs from stays, however long; its age begins when the process ends."""
    name = make(cache, PLAIN, CODE)
    lease(cache, name, sleeper.pid)
    assert prune(cache, now=in_future(30 * DAY)).prefixes == ()
    sleeper.kill()
    sleeper.wait()
    assert prune(cache, now=in_future(30 * DAY + 23 * HOUR)).prefixes == ()
    assert os.listdir(cache.place("leases")) == []
    assert prune(cache, now=in_future(30 * DAY + 25 * HOUR)).prefixes == (name,)


def test_lease_of_another_process_with_the_same_number(cache: NodeCache, sleeper: subprocess.Popen[bytes]) -> None:
    """A process number that was given away again does not keep a prefix: the start time differs."""
    name = make(cache, PLAIN)
    lease(cache, name, sleeper.pid, started="12345")
    assert leased(cache, time.time()) == frozenset()
    lease(cache, name, sleeper.pid)
    assert leased(cache, time.time()) == {name}


def test_lease_of_another_host(cache: NodeCache) -> None:
    """A process on another host or in another container can't be seen: its lease counts for a month."""
    name = make(cache, PLAIN)
    lease(cache, name, 1, host="elsewhere.example", started="1")
    assert prune(cache, now=in_future(29 * DAY)).prefixes == ()
    assert prune(cache, now=in_future(70 * DAY)).prefixes == (name,)


def test_lease_that_is_being_written(cache: NodeCache, sleeper: subprocess.Popen[bytes]) -> None:
    """While a lease says nothing yet, no prefix is removed."""
    name = make(cache, PLAIN)
    path = lease(cache, name, sleeper.pid)
    path.write_text("")
    assert prune(cache, now=in_future(30 * DAY)).prefixes == ()


def test_leftovers_are_swept(cache: NodeCache, sleeper: subprocess.Popen[bytes]) -> None:
    """What killed processes left in the folders for temporary files goes; what living ones use stays."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    tmp, work = Path(cache.place("tmp")), Path(cache.place("work"))
    for folder in (tmp / "layer.abc.1", tmp / f"kit.{gone.pid}", work / f"{host_name()}.{gone.pid}"):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep/file").touch()
    kept = [tmp / f"kit.{sleeper.pid}", work / f"{host_name()}.{sleeper.pid}", work / "elsewhere.1"]
    for folder in kept:
        folder.mkdir()
    prune(cache)
    assert sorted([*tmp.iterdir(), *work.iterdir()]) == sorted(kept)


def test_kits_leave(cache: NodeCache) -> None:
    """A kit goes after a week without use."""
    kit = Path(cache.place("kits"), "0123456789abcdef")
    kit.mkdir()
    (kit / "python").touch()
    assert prune(cache, now=in_future(6 * DAY)).kits == ()
    Path(cache.used(kit.name)).touch()
    os.utime(cache.used(kit.name), (in_future(3 * DAY), in_future(3 * DAY)))
    assert prune(cache, now=in_future(9 * DAY)).kits == ()
    assert prune(cache, now=in_future(11 * DAY)).kits == (kit.name,)
    assert not kit.exists()


def test_layer_without_listing_leaves(cache: NodeCache) -> None:
    """Files of a layer that was never finished are removed."""
    Path(cache.layer("f" * 64)).mkdir()
    assert prune(cache).layers == ("f" * 64,)
    assert os.listdir(cache.place("layers")) == []


def test_damaged_prefix_leaves(cache: NodeCache) -> None:
    """A prefix without a readable manifest is removed when its time has come, and stands in nobody's way."""
    path = Path(cache.place("prefixes"), "0123456789abcdef")
    path.mkdir()
    assert prune(cache).prefixes == (path.name,)


def test_expired_things_go_when_something_is_made(cache: NodeCache) -> None:
    """Making a prefix removes what has expired: there is no other moment on a node."""
    name = make(cache, PLAIN)
    for path in (cache.used(name), f"{cache.prefix(name)}/launch", cache.listing(PLAIN.digest)):
        Path(path).touch()
        os.utime(path, (time.time() - 8 * DAY, time.time() - 8 * DAY))
    make(cache, OTHER)
    assert not os.path.exists(cache.prefix(name)) and not os.path.exists(cache.layer(PLAIN.digest))


def test_max_age_is_a_choice(cache: NodeCache) -> None:
    """The times can be given; code never stays longer than anything else."""
    name = make(cache, PLAIN, CODE)
    assert prune(cache, max_age=timedelta(hours=1), now=in_future(2 * HOUR)).prefixes == (name,)


# ---- what belongs to clusters

CLUSTER, ENDED = "c" * 16, "e" * 16


def of_cluster(cache: NodeCache, cluster: str) -> list[Path]:
    """What a cluster has in a cache, an hour old."""
    delta, agents = Path(cache.place("deltas"), cluster), Path(cache.place("agents"))
    (delta / "deep").mkdir(parents=True)
    (delta / "deep/added.py").touch()
    paths = [delta, *(agents / f"{cluster}.{kind}" for kind in ("log", "lock", "sock"))]
    for path in paths[1:]:
        path.touch()
    for path in paths:
        os.utime(path, (time.time() - HOUR, time.time() - HOUR))
    return paths


def test_leases_say_which_clusters_live(cache: NodeCache, sleeper: subprocess.Popen[bytes]) -> None:
    """A lease has up to three fields; the cluster is the third, and "-" stands for no prefix and for no cluster."""
    started = start_time(str(sleeper.pid))
    path = Path(cache.place("leases"), f"{host_name()}.{sleeper.pid}")
    for text, prefixes, clusters in (
        (f"{'a' * 64} {started} {CLUSTER}\n", {"a" * 16}, {CLUSTER}),
        (f"{'a' * 64} {started} -\n", {"a" * 16}, set()),
        (f"{'a' * 64} {started}\n", {"a" * 16}, set()),
        (f"- {started} {CLUSTER}\n", set(), {CLUSTER}),
        ("", {"*"}, {"*"}),
        (f"{'a' * 64} 12345 {CLUSTER}\n", set(), set()),
    ):
        path.write_text(text)
        assert (leased(cache, time.time()), leased_clusters(cache, time.time())) == (prefixes, clusters)


def test_what_belongs_to_an_ended_cluster_leaves(cache: NodeCache, sleeper: subprocess.Popen[bytes]) -> None:
    """Additions to a cluster, and what its agent left, go when no process here belongs to it any more."""
    living, ended = of_cluster(cache, CLUSTER), of_cluster(cache, ENDED)
    lease = Path(cache.place("leases"), f"{host_name()}.{sleeper.pid}")
    lease.write_text(f"{'a' * 64} {start_time(str(sleeper.pid))} {CLUSTER}\n")
    (Path(cache.place("agents")) / "dask-scratch-space").mkdir()
    assert prune(cache).clusters == (ENDED,)
    assert all(path.exists() for path in living) and not any(path.exists() for path in ended)
    lease.write_text("")  # one that is being written may name any cluster
    assert prune(cache).clusters == ()
    sleeper.kill()
    sleeper.wait()
    assert prune(cache).clusters == (CLUSTER,)
    assert os.listdir(cache.place("deltas")) == [] and os.listdir(cache.place("agents")) == ["dask-scratch-space"]


def test_clusters_that_are_starting_stay(cache: NodeCache) -> None:
    """What is new stays without a lease, and so does what an agent that still runs has locked."""
    paths = of_cluster(cache, CLUSTER)
    os.utime(paths[0])
    assert prune(cache).clusters == ()
    with open(of_cluster(cache, ENDED)[2]) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune(cache, now=in_future(HOUR)).clusters == (CLUSTER,)
    assert prune(cache, now=in_future(HOUR)).clusters == (ENDED,)


def test_archives_leave_after_a_day(cache: NodeCache) -> None:
    """Archives, whole or not, go 24 h after their last use: they may be the user's code, and can be had again."""
    for name in ("a" * 64, f"{'b' * 64}.part"):
        Path(cache.place("archives"), name).touch()
    assert prune(cache, now=in_future(23 * HOUR)).archives == ()
    os.utime(Path(cache.place("archives"), "a" * 64), (in_future(5 * HOUR), in_future(5 * HOUR)))
    assert prune(cache, now=in_future(25 * HOUR)).archives == (f"{'b' * 64}.part",)
    assert prune(cache, now=in_future(30 * HOUR)).archives == ("a" * 64,)
