"""What hosts say of themselves, and the verdict whether an environment fits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from likewise.cluster.ssh.probing import (
    Probe,
    check_fit,
    common_target,
    fits,
    needed,
    node_address,
    parse_probe,
    probe_script,
)
from likewise.errors import ClusterError
from likewise.model.digest import Digest
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.target import Platform, Target

LINUX = Platform(os="linux", arch="x86_64", libc="glibc", libc_version="2.36")
LAYER = LayerRef(kind=LayerKind.DISTRIBUTION, name="n", version="1", digest=Digest("a" * 64), files=100, size=10**8)
MANIFEST = Manifest(
    target=Target(platform=LINUX, python="3.11.7"),
    python="python3.11",
    cache_tag="cpython-311",
    layers=(LAYER,),
    needs={"GLIBC": "2.34", "GLIBCXX": "3.4.29"},
)
GOOD = Probe(
    node="h1",
    system="Linux",
    machine="x86_64",
    libc="glibc",
    libc_version="2.36",
    offers={"GLIBCXX": "3.4.30"},
    cache="/tmp/likewise-0",
    free_bytes=10**10,
    free_files=10**6,
)
SAID = """\
Welcome to this machine!
date 1000
user me
home /home/me
host h1
system Linux
machine arm64
kernel 6.1
connection 10.0.0.1 5000 10.0.0.11 22
address 10.0.0.11
address fe80::1
libc glibc 2.36
symbols GLIBCXX_3.4.9 GLIBCXX_3.4.30 GLIBCXX_3.4 CXXABI_1.3.13
placed 0
notice /scratch belongs to another user: passed over as a place for the cache.
cache /tmp/likewise-1000
disk /dev/my disk 1000 400 600 40% /tmp
inodes tmpfs 0 0 0 - /tmp
exec yes
kit kits/0123456789abcdef
prefix prefixes/fedcba9876543210
script bootstrap-00.sh
layer layers/aa
end yes
"""


def changed(**what: object) -> tuple[str, ...]:
    return fits(msgspec.structs.replace(GOOD, **what), MANIFEST)


def test_a_probe_is_read() -> None:
    """Every line finds its field, whatever a login script says before."""
    probe = parse_probe("node", SAID, 999.5, 1000.5)
    assert probe is not None
    assert (probe.node, probe.user, probe.machine, probe.address) == ("node", "me", "aarch64", "10.0.0.11")
    assert (probe.libc, probe.libc_version, probe.addresses) == ("glibc", "2.36", ("10.0.0.11",))
    assert probe.offers == {"GLIBCXX": "3.4.30", "CXXABI": "1.3.13"}
    assert (probe.free_bytes, probe.free_files, probe.skew) == (600 * 1024, None, 0.0)
    assert (probe.kits, probe.prefixes) == ({"0123456789abcdef"}, {"fedcba9876543210"})
    assert probe.notices == ("/scratch belongs to another user: passed over as a place for the cache.",)


def test_half_a_probe_is_none() -> None:
    """Without its last line it is not believed."""
    assert parse_probe("node", SAID.replace("end yes\n", ""), 0, 0) is None


@pytest.mark.parametrize(("before", "after", "skew"), [(990, 995, 5), (1010, 1020, -9), (1000, 1000.4, 0)])
def test_clock_skew_is_what_is_sure(before: float, after: float, skew: float) -> None:
    """The time that question and answer took, and the second that date rounds off, are not held against a host."""
    probe = parse_probe("node", SAID, before, after)
    assert probe is not None
    assert probe.skew == skew


def test_a_host_like_the_client_fits() -> None:
    """Nothing is said against it, nor against one that does not say what it has."""
    assert fits(GOOD, MANIFEST) == ()
    assert changed(free_bytes=None, free_files=None, offers={}, libc="", libc_version="") == ()


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ({"machine": "aarch64"}, "Linux on aarch64"),
        ({"system": "Darwin"}, "Darwin on"),
        ({"libc": "musl", "libc_version": "1.2.4"}, "musl"),
        ({"libc_version": "2.31"}, "GLIBC 2.31.*2.34"),
        ({"libc_version": "2.4"}, "GLIBC 2.4"),
        ({"offers": {"GLIBCXX": "3.4.9"}}, "GLIBCXX 3.4.9"),
        ({"lacks": ("gzip",)}, "lacks gzip"),
        ({"skew": -2 * 86400.0}, "48 hours behind"),
        ({"cache": "", "notices": ("/tmp is read-only.",)}, "no place.*/tmp is read-only"),
        ({"executes": False}, "noexec"),
        ({"free_bytes": 10**6}, "1 MB left.*200 MB"),
        ({"free_files": 50}, "50 inodes left.*200"),
    ],
)
def test_what_does_not_fit_is_said(what: dict[str, object], word: str) -> None:
    """One sentence with both sides of the comparison."""
    (problem,) = changed(**what)
    assert re.search(word, problem)


def test_what_a_host_has_takes_no_space() -> None:
    """A layer that is there, or the whole prefix, need not fit again."""
    assert needed(MANIFEST) == (2 * 10**8, 200)
    assert needed(MANIFEST, msgspec.structs.replace(GOOD, layers=frozenset({"a" * 64}))) == (0, 0)
    assert changed(free_bytes=10, prefixes=frozenset({MANIFEST.id[:16]})) == ()


def test_all_hosts_are_told_at_once() -> None:
    """One error names every host that does not fit, and what is wrong with it."""
    bad = [msgspec.structs.replace(GOOD, node=node, executes=False, machine="s390x") for node in ("h2", "h3")]
    with pytest.raises(ClusterError) as caught:
        check_fit([GOOD, *bad], MANIFEST)
    assert list(caught.value.details["problems"]) == ["h2", "h3"]
    assert all(len(found) == 2 for found in caught.value.details["problems"].values())
    assert "s390x" in str(caught.value)


@pytest.mark.parametrize(
    ("reached", "others", "listens"),
    [
        ("10.0.0.1", ("127.0.0.1",), "10.0.0.1"),
        ("127.0.0.1", ("127.0.0.1", "::1"), "127.0.0.1"),
        ("127.0.0.1", ("10.0.0.2",), "10.0.0.9"),
        ("fe80::2", ("10.0.0.2",), "10.0.0.9"),
    ],
)
def test_processes_listen_where_the_others_reach_them(reached: str, others: tuple[str, ...], listens: str) -> None:
    """The address at which the host was reached, or one of its own where that leads to itself only."""
    probe = msgspec.structs.replace(GOOD, address=reached, addresses=("10.0.0.9",))
    assert node_address(probe, [msgspec.structs.replace(GOOD, address=other) for other in others]) == listens


SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
def test_this_machine_answers(shell: str, tmp_path: Path) -> None:
    """The script runs in every shell of a node, and what it finds is true."""
    cache = tmp_path / "a cache"
    words = [shell, "sh", "-c"] if shell == "busybox" else [shell, "-c"]
    before = time.time()
    done = subprocess.run(
        [*words, probe_script(str(cache), MANIFEST)],
        env={"PATH": os.environ["PATH"], "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    probe = parse_probe("here", done.stdout, before, time.time())
    assert probe is not None, done.stderr
    assert probe.notices == ()
    assert (probe.cache, probe.executes, probe.skew, probe.address) == (str(cache), True, 0.0, "6.7.8.9")
    assert probe.machine == os.uname().machine
    assert probe.free_bytes is not None
    disk = os.statvfs(cache)
    assert abs(probe.free_bytes - disk.f_bavail * disk.f_frsize) < 2e9
    assert probe.libc_version == os.confstr("CS_GNU_LIBC_VERSION").split()[-1]  # type: ignore[union-attr]


def test_a_cache_of_somebody_else_is_a_problem(tmp_path: Path) -> None:
    """What bootstrap.sh says about the place is what the user reads."""
    (tmp_path / "real").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "real")
    done = subprocess.run(
        ["sh", "-c", probe_script(str(tmp_path / "cache"), MANIFEST)], capture_output=True, text=True, check=False
    )
    probe = parse_probe("here", done.stdout, time.time() - 1, time.time())
    assert probe is not None
    assert probe.cache == ""
    (problem,) = (text for text in fits(probe, MANIFEST) if "place" in text)
    assert "not a directory of its own" in problem


def test_the_target_of_hosts_is_what_all_of_them_are() -> None:
    """The oldest C library counts, as a number; a version that a host does not tell is no hindrance."""
    older = msgspec.structs.replace(GOOD, node="h2", libc_version="2.9.1")
    assert common_target([GOOD]) == "linux-x86_64-glibc2.36"
    assert common_target([GOOD, older]) == "linux-x86_64-glibc2.9"
    assert common_target([msgspec.structs.replace(GOOD, libc="", libc_version="")]) == "linux-x86_64"
    assert common_target([GOOD, msgspec.structs.replace(GOOD, libc_version="")]) == "linux-x86_64-glibc2.36"


def test_hosts_of_several_platforms_are_named() -> None:
    """Nodes get one environment, so a cluster can't be of two processors or two kinds of C library."""
    arm = msgspec.structs.replace(GOOD, node="h2", machine="aarch64")
    with pytest.raises(ClusterError) as caught:
        common_target([GOOD, arm, msgspec.structs.replace(arm, node="h3")])
    assert caught.value.details["platforms"] == {"h1": "linux-x86_64-glibc", "h2, h3": "linux-aarch64-glibc"}
