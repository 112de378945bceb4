"""A node's cache on a machine that others use: what they put in its way is neither used nor touched."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from likewise.node.command import bootstrap_script
from support.hostile import (
    EVIDENCE,
    IN_THE_WAY,
    MODULE,
    PRECIOUS,
    PROGRAM,
    VICTIM,
    Watched,
    add_users,
    evidence,
    lay,
    place,
    poison,
)
from support.nodes import real_kit
from support.testbed import FakeHosts, Host

pytestmark = pytest.mark.root

HOME_CACHE = f"/home/{VICTIM}/.cache/likewise/node"


@pytest.fixture(scope="module")
def machine(fake_hosts: FakeHosts) -> Host:
    """A machine with two users; bootstrap.sh and a kit lie there."""
    host = fake_hosts(1, fresh=True)[0]
    add_users(host)
    kit = real_kit()
    (host.root / "opt/bootstrap.sh").write_bytes(bootstrap_script())
    shutil.copyfile(kit.file, host.root / "opt/kit")
    shutil.copytree(kit.store, host.root / "opt/store")
    host.run("chmod -R a+rX /opt")
    return host


@pytest.fixture
def host(machine: Host) -> Iterator[Host]:
    """The machine, cleaned up afterwards."""
    yield machine
    machine.run(f"rm -rf /tmp/* {HOME_CACHE}; : > {EVIDENCE}")


def bootstrap(host: Host, command: str, *argv: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run bootstrap.sh as the victim, in /tmp, where anybody's files lie."""
    kit = real_kit()
    launch = msgspec.structs.replace(kit.launch("auto"), script="/opt/bootstrap.sh", kit="/opt/kit", store="/opt/store")
    options = [word for word in launch.argv()[1:] if word != "--"]
    line = shlex.join(["sh", *options, "--command", command, "--", *argv])
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in environ.items())
    return host.start_command(f"cd /tmp && {variables} exec {line}", user=VICTIM)


def test_watching_sees_what_is_done(host: Host) -> None:
    """What the other tests rely on: reading, listing, changing, making, removing and running are all noticed."""
    lay(host, "mkdir -m 777 $own; for f in read changed removed; do echo $f > $own/$f; done; chmod 666 $own/*")
    lay(host, f"printf %s {shlex.quote(PROGRAM)} > $own/run; chmod 755 $own/run; mkdir $own/listed")
    watched = Watched(host, "/tmp/own")
    assert watched.differences() == {}
    watched = Watched(host, "/tmp/own")
    host.run("cd /tmp/own; cat read; echo x >> changed; rm removed; ls listed; ./run; mkdir made", user=VICTIM)
    told = {"read": "read", "changed": "changed", "removed": "removed", "listed": "read", "run": "read", "made": "made"}
    assert watched.differences() == {"/tmp/own": "changed"} | {f"/tmp/own/{name}": told[name] for name in told}
    assert evidence(host) == f"./run run by {VICTIM}\n"


@pytest.mark.parametrize("trap", list(IN_THE_WAY))
def test_what_is_in_the_way_is_passed_over(host: Host, trap: str) -> None:
    """The cache goes where nobody else can get, with a notice that says why, and nothing in the way is touched."""
    lay(host, IN_THE_WAY[trap])
    watched = Watched(host, place(host), "/tmp/own", PRECIOUS)
    done = bootstrap(host, "place")
    assert done.stdout.decode() == f"{HOME_CACHE}/{host.name}\n", done.stderr.decode()
    assert place(host) in done.stderr.decode()
    assert "passed over" in done.stderr.decode()
    assert watched.differences() == {}


@pytest.mark.parametrize("variable", ["TMPDIR", "SLURM_TMPDIR"])
def test_places_that_others_could_exchange_are_passed_over(host: Host, variable: str) -> None:
    """A folder named in a variable is no better than who owns the folders above it."""
    lay(host, "mkdir -m 777 -p $own/deep; chmod 777 $own")
    watched = Watched(host, "/tmp/own", PRECIOUS)
    done = bootstrap(host, "place", **{variable: "/tmp/own/deep"})
    assert done.stdout.decode() == f"{place(host)}\n"
    assert "/tmp/own" in done.stderr.decode()
    made = {path for path, what in watched.differences().items() if what != "made"}
    assert made <= {"/tmp/own", "/tmp/own/deep"}


def test_a_cache_with_everything_exchanged_is_not_run(host: Host) -> None:
    """A whole cache with the right names, made by somebody else, is nothing to start from."""
    place_there = place(host)
    assert bootstrap(host, "materialise").stdout.decode().startswith(f"{place_there}/prefixes/")
    poison(host, place_there)
    host.run(f"{place_there}/kits/*/tree/interpreter/bin/python3.*[0-9]", user=VICTIM)
    assert place_there in evidence(host), "the trap does not work"
    host.run(f": > {EVIDENCE}")
    watched = Watched(host, place_there, PRECIOUS)
    done = bootstrap(host, "start", "-c", "import sys; print(sys.prefix)")
    assert done.stdout.decode().startswith(f"{HOME_CACHE}/{host.name}/prefixes/"), done.stderr.decode()
    assert evidence(host) == ""
    assert watched.differences() == {}


def test_modules_in_the_working_directory_are_not_imported_by_the_kit(host: Host) -> None:
    """What lies in /tmp under the names of the standard library and of ours has no part in making an environment."""
    names = "site sitecustomize usercustomize json encodings msgspec likewise argparse"
    plant = f"for name in {names}; do printf %s {shlex.quote(MODULE)} > $name.py; done; mkdir -m 755 distributed"
    lay(host, f"cd /tmp; {plant}; cp site.py distributed/__init__.py")
    done = bootstrap(host, "materialise")
    assert done.returncode == 0, done.stderr.decode()
    assert evidence(host) == ""


def test_with_no_safe_place_there_is_one_clear_sentence(host: Host) -> None:
    """Where the home is no place either, the node says so and ends; it does not take a bad one."""
    lay(host, IN_THE_WAY["a folder of his"])
    watched = Watched(host, place(host))
    done = bootstrap(host, "place", HOME="/proc/nowhere")
    said = done.stderr.decode().splitlines()
    assert done.returncode == 15
    assert done.stdout == b""
    assert "No place for the node's cache is both safe and usable" in said[-1]
    assert all(line.startswith("likewise: ") for line in said)
    assert watched.differences() == {}
