"""What else bootstrap.sh does: prepare a node, get the kit from elsewhere, remove what expired, end with the client."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.model.digest import Digest
from likewise.model.keys import layer_key
from likewise.node.command import Launch
from support.nodes import SHELLS, distribution, few_tools, put, real_kit, start
from support.prefixes import clean_environ
from support.processes import wait_until_gone

DAY = 86400.0


def until(condition: object, seconds: float = 60) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def command(launch: Launch, name: str, *argv: str, shell: str = "dash") -> subprocess.CompletedProcess[str]:
    """Run another command than `start`."""
    command = [*SHELLS[shell], *launch.argv(name)[1:], *argv]
    return subprocess.run(command, env=clean_environ(), capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", SHELLS)
def test_materialise(tmp_path: Path, shell: str) -> None:
    """A node can be prepared: the prefix is made, or is there already, and its place is printed; nothing starts."""
    launch = real_kit().launch(tmp_path / "a cache")
    prefix = tmp_path / "a cache/prefixes" / launch.manifest[:16]
    for _ in ("cold", "warm"):
        done = command(launch, "materialise", "-c", "print('ran')", shell=shell)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{prefix}\n", "")
    assert start(launch, "-c", "print('ran')").stdout == "ran\n"


def test_unknown_command(tmp_path: Path) -> None:
    """A command's name is a plain word, and the node's Python knows which there are."""
    launch = real_kit().launch(tmp_path / "cache")
    assert "is not a command" in command(launch, "../evil").stderr
    assert "has no command" in command(launch, "nonsense").stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_cluster_in_the_environment(tmp_path: Path, shell: str) -> None:
    """A process that knows its cluster by the variable alone says so in its lease; the option counts more."""
    plain = real_kit().launch(tmp_path / "cache")
    assert command(plain, "materialise").returncode == 0
    named = real_kit().launch(tmp_path / "cache", cluster="b" * 16)
    for launch, variable, cluster in (
        (plain, "a" * 16, "a" * 16),
        (named, "a" * 16, "b" * 16),
        (plain, "../../../etc/xxx", "-"),
        (plain, "a" * 15, "-"),
    ):
        shutil.rmtree(tmp_path / "cache/leases")
        code = "import os; print(os.environ['LIKEWISE_CLUSTER'])"
        done = start(launch, "-c", code, shell=SHELLS[shell], env=clean_environ(LIKEWISE_CLUSTER=variable))
        assert done.stdout.strip() == (variable if cluster == "-" else cluster)
        (lease,) = (tmp_path / "cache/leases").iterdir()
        assert lease.read_text().split()[2] == cluster


# ---- the kit


@pytest.mark.parametrize("shell", SHELLS)
def test_kit_from_standard_input(tmp_path: Path, shell: str) -> None:
    """The kit can be sent to the script itself; it is checked like any other, and a second start needs none at all."""
    kit = real_kit()
    for sha256, status in ((Digest("0" * 64), 15), (kit.sha256, 0)):
        launch = kit.launch(tmp_path / "cache", kit="-", kit_sha256=sha256)
        with kit.file.open("rb") as file:
            done = start(launch, "-c", "print('ran')", shell=SHELLS[shell], stdin=file)
        assert done.returncode == status, done.stderr
        assert os.listdir(tmp_path / "cache/tmp") == []
    shutil.rmtree(tmp_path / "cache/prefixes" / launch.manifest[:16])
    done = start(kit.launch(tmp_path / "cache", kit=""), "-c", "print('ran')", shell=SHELLS[shell])
    assert done.stdout == "ran\n", done.stderr


def test_no_kit_at_all(tmp_path: Path) -> None:
    """Where the kit is not unpacked and none was given, that is what the node says."""
    done = start(real_kit().launch(tmp_path / "cache", kit=""), "-c", "")
    assert done.returncode == 15 and "no file of it was given" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a web server that has the real kit's store."""
    folder = str(real_kit().store)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *args: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


FETCHERS = [name for name in ("curl", "wget") if shutil.which(name)]


@pytest.mark.parametrize("program", FETCHERS)
def test_kit_from_a_web_server(tmp_path: Path, server: str, program: str) -> None:
    """Where the node has curl or wget the kit may be a URL, and so may the store; nothing unchecked is unpacked."""
    kit = real_kit()
    url = f"{server}/{kit.file.relative_to(kit.store)}"
    env = {"PATH": str(few_tools(tmp_path / "tools", program, "openssl"))}
    bad = kit.launch(tmp_path / "cache", kit=url, kit_sha256=Digest("0" * 64))
    done = start(bad, "-c", "", shell=["/bin/sh"], env=env)
    assert done.returncode == 15 and "is damaged" in done.stderr, done.stderr
    launch = kit.launch(tmp_path / "cache", kit=url, store=server)
    done = start(launch, "-c", "print('ran')", shell=["/bin/sh"], env=env)
    assert done.stdout == "ran\n", done.stderr


def test_kit_that_can_not_be_fetched(tmp_path: Path, server: str) -> None:
    """No program to fetch or to check it with, and a server that does not have it: each is told."""
    launch = real_kit().launch(tmp_path / "cache", kit=f"{server}/nothing")
    for programs, said in (
        ((), "can't be checked here"),
        (("openssl",), "without curl and wget"),
        ((*FETCHERS, "openssl"), "can't be fetched, see above"),
    ):
        env = {"PATH": str(few_tools(tmp_path / f"tools{len(programs)}", *programs))}
        done = start(launch, "-c", "", shell=["/bin/sh"], env=env)
        assert done.returncode == 15 and said in done.stderr.splitlines()[-1]
        assert os.listdir(tmp_path / "cache/tmp") == []


# ---- what expired


@pytest.mark.parametrize("has_kit", [True, False])
def test_warm_nodes_prune(tmp_path: Path, has_kit: bool) -> None:
    """A node that only ever starts what is there removes what has expired as well, now and then, beside its work."""
    kit = real_kit()
    cache = tmp_path / "cache"
    used = kit.launch(cache, kit.with_layers(distribution("used", {"purelib/used.py": b""})))
    old = kit.with_layers(distribution("unused", {"purelib/unused.py": b""}))
    for launch in (kit.launch(cache, old), used):
        assert command(launch, "materialise").returncode == 0
    expired = cache / "prefixes" / old.id[:16]
    for path in (expired / "launch", cache / "used" / old.id[:16]):
        os.utime(path, (time.time() - 8 * DAY, time.time() - 8 * DAY))
    if not has_kit:
        shutil.rmtree(cache / "kits")
        (cache / "kits").mkdir(mode=0o700)

    assert start(used, "-c", "").returncode == 0
    assert expired.exists() and not (cache / "pruned.log").exists()  # it has just been done, by what made the prefix
    (cache / "pruned").write_text("nonsense\n")
    done = start(used, "-c", "print('ran')")
    assert (done.stdout, done.stderr) == ("ran\n", "")
    until(lambda: not expired.exists())
    until(lambda: "prefixes" in (cache / "pruned.log").read_text())
    assert int((cache / "pruned").read_text()) > 0
    assert (cache / "prefixes" / used.manifest[:16]).exists()


def test_prune_command(tmp_path: Path) -> None:
    """The kit's Python removes what has expired, and never the kit that it runs from."""
    launch = real_kit().launch(tmp_path / "cache")
    assert command(launch, "prune").returncode == 0
    kit = tmp_path / "cache/kits" / launch.kit_id[:16]
    for path in (kit, tmp_path / "cache/used" / launch.kit_id[:16]):
        os.utime(path, (time.time() - 8 * DAY, time.time() - 8 * DAY))
    done = command(launch, "prune")
    assert (done.returncode, done.stderr) == (0, "") and '"kits":[]' in done.stdout
    assert kit.exists()


# ---- the client's end


def test_making_a_node_ends_with_the_client(tmp_path: Path) -> None:
    """A node that is just being made ends, with all that helps it, when its client is gone, and leaves nothing behind.

    One of its layers can't be read to the end: without anybody who notices it would wait for ever.
    """
    kit = real_kit()
    stuck, other = (distribution(name, {f"purelib/{name}.py": b"x" * 1000}) for name in ("stuck", "other"))
    manifest = kit.with_layers(stuck, other)
    pipe = kit.store / layer_key(stuck.digest)
    pipe.unlink()
    os.mkfifo(pipe)
    try:
        cache = tmp_path / "cache"
        argv = [*kit.launch(cache, manifest).argv(), "-m", "x", "--preload", "likewise.cluster.lifeline"]
        env = clean_environ(MARKER=str(cache))
        node = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        until(lambda: _is_read(pipe, node))
        assert node.stdin
        node.stdin.close()
        assert node.wait(30) == 143
        assert wait_until_gone(str(cache)) == {}
        assert os.listdir(cache / "tmp") == [] and os.listdir(cache / "prefixes") == []
    finally:
        pipe.unlink()
        put(kit.store, stuck)


def _is_read(pipe: Path, node: subprocess.Popen[bytes]) -> bool:
    """Whether somebody has opened the pipe for reading; nothing is ever written to it."""
    assert node.poll() is None
    try:
        os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # stays open, or the reader would find the end
    except OSError:
        return False
    return True
