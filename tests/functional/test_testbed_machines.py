"""The machines of the testbed are what they claim to be: what other tests prove rests on it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.agents import until
from support.testbed import FakeHosts, Host, Testbed, testbed
from support.testbed_network import processes_in

pytestmark = pytest.mark.root

TESTS = Path(__file__).parents[1]


@pytest.fixture
def hosts(fake_hosts: FakeHosts) -> Testbed:
    """Two machines and one behind the first."""
    return fake_hosts(2, behind=1)


@pytest.fixture(scope="module")
def fresh(fake_hosts: FakeHosts) -> Testbed:
    """Two machines that others don't use: things are done to them."""
    return fake_hosts(2, fresh=True)


def ssh(bed: Testbed, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ssh with the testbed's configuration."""
    return subprocess.run(["ssh", *bed.ssh_options(), *words], capture_output=True, text=True, timeout=60, check=False)


def opens(address: str, port: int) -> bool:
    """Whether the client gets a TCP connection."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def reaches(host: Host, address: str, port: int) -> bool:
    """Whether a machine gets one."""
    return "ok" in host.run(f"timeout 2 bash -c 'echo > /dev/tcp/{address}/{port}' && echo ok", check=False)


def test_machines_have_no_python_and_nothing_to_download_with(hosts: Testbed) -> None:
    """Nothing is there but what a minimal Debian has."""
    absent = "python python3 curl wget xz zstd pip conda"
    for host in [*hosts, *hosts.behind]:
        assert host.run(f"for name in {absent}; do command -v $name; done; true") == ""
        assert host.run("find / -xdev -name 'python3*' -o -xdev -name 'libpython*'") == ""
        assert host.run("for name in sh tar gzip sha256sum flock; do command -v $name; done").count("\n") == 5


def test_each_has_its_own_processes_name_and_root(hosts: Testbed, tmp_path: Path) -> None:
    """A machine sees neither the client's processes and files nor another machine's."""
    (tmp_path / "secret").write_text("the client's")
    for host in hosts:
        assert host.run("hostname").strip() == host.name
        assert host.run("cat /proc/[0-9]*/comm").split()[0] == "sshd"  # the first process is sshd
        assert len(host.run("ls -d /proc/[0-9]*").split()) < 10
        assert host.run(f"ls {tmp_path} {TESTS}", check=False) == ""
        assert str(tmp_path) not in host.run("mount | grep -v '^overlay on / '")
    hosts[0].run("echo here > /tmp/mine; chmod 600 /tmp/mine")
    assert hosts[1].run("ls /tmp/mine", check=False) == ""
    assert (hosts[0].root / "tmp/mine").read_text() == "here\n"


def test_sshd_asks_for_the_users_own_key(fresh: Testbed) -> None:
    """The key of a user opens the account of that user, and no other."""
    fresh[0].add_user("victim")
    fresh[0].add_user("hostile")
    assert ssh(fresh, "root@h1", "id -un").stdout == "root\n"
    assert ssh(fresh, "victim@h1", "id -un; pwd").stdout == "victim\n/home/victim\n"
    wrong = ssh(fresh, "-o", f"IdentityFile={fresh.key('hostile')}", "-F", "/dev/null", "-o", "BatchMode=yes",
                "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={fresh.known_hosts}",
                f"victim@{fresh[0].address}", "id")  # fmt: skip
    assert wrong.returncode == 255
    assert "Permission denied" in wrong.stderr
    assert ssh(fresh, "nobody-there@h1", "id").returncode == 255


def test_host_keys_are_known_and_differ(hosts: Testbed, tmp_path: Path) -> None:
    """Who answers with another machine's key is not believed."""
    (tmp_path / "known").write_text(f"h1 {hosts[1].public_key}\n")
    done = ssh(hosts, "-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "HostKeyAlias=h1", "h1", "id")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_machines_reach_each_other_by_name(hosts: Testbed) -> None:
    """The network among the machines is open."""
    assert reaches(hosts[0], "h2", 22)
    assert reaches(hosts[1], "h1", 22)
    assert reaches(hosts[0], "b1", 22)


def test_only_the_jump_host_reaches_what_is_behind_it(hosts: Testbed) -> None:
    """Neither the client nor another machine gets there, except through ssh on the first."""
    behind = hosts.behind[0]
    assert not opens(behind.address, 22)
    assert not reaches(hosts[1], behind.address, 22)
    assert ssh(hosts, "b1", "hostname").stdout == "b1\n"


def test_firewall_leaves_the_client_one_port(fresh: Testbed) -> None:
    """Behind it the client gets to sshd alone, the machine never to the client, and machines to each other."""
    with socket.create_server((fresh.client_address, 0)) as listener:
        port = listener.getsockname()[1]
        fresh[1].run("/usr/sbin/sshd -p 2222")  # something else that listens, a moment later
        until(lambda: opens(fresh[1].address, 2222))
        assert reaches(fresh[1], fresh.client_address, port)
        fresh[1].firewall(22)
        assert not opens(fresh[1].address, 2222)
        assert not reaches(fresh[1], fresh.client_address, port)
        assert ssh(fresh, "h2", "hostname").stdout == "h2\n"
        assert reaches(fresh[0], "h2", 2222)
        assert reaches(fresh[0], fresh.client_address, port)


def test_a_paused_machine_goes_on_and_a_killed_one_keeps_its_disk(fresh: Testbed) -> None:
    """Processes wait out a pause, end with the machine, and its files are there when it starts again."""
    host = fresh[0]
    host.run("echo kept > /root/file; sync; (while :; do sleep 0.05; echo >> /root/ticks; done) >/dev/null 2>&1 &")
    ticks = host.root / "root/ticks"
    host.pause()
    before = ticks.stat().st_size if ticks.exists() else 0
    assert not opens_ssh(host)
    assert (ticks.stat().st_size if ticks.exists() else 0) == before
    host.resume()
    assert opens_ssh(host)
    assert any("while" in process.command for process in host.processes())
    host.kill()
    assert processes_in(host.namespace) == []
    host.start()
    host.wait_started()
    assert host.processes() == []
    assert host.run("cat /root/file") == "kept\n"
    assert ssh(fresh, "h1", "hostname").stdout == "h1\n"


def opens_ssh(host: Host) -> bool:
    """Whether sshd says anything."""
    with contextlib.suppress(OSError), socket.create_connection((host.address, 22), timeout=2) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def test_an_unplugged_machine_is_silent_until_it_is_plugged_in(fresh: Testbed) -> None:
    """Connections to it just don't answer meanwhile."""
    fresh[0].unplug()
    assert not opens(fresh[0].address, 22)
    fresh[0].plug()
    assert ssh(fresh, "h1", "hostname").stdout == "h1\n"


def test_bytes_are_counted_where_the_client_is(fresh: Testbed) -> None:
    """What goes to a machine counts as sent by the client; what goes between machines does not."""
    before = fresh.client_bytes()
    subprocess.run(["ssh", *fresh.ssh_options(), "h1", "cat > /dev/null"], input=bytes(4 << 20), check=True)
    sent = fresh.client_bytes().sent - before.sent
    assert 4 << 20 <= sent < 5 << 20
    before, between = fresh.client_bytes(), fresh[0].bytes()
    fresh[0].run("head -c 4M /dev/zero | timeout 20 bash -c 'cat > /dev/tcp/h2/22'", check=False)
    assert fresh[0].bytes().sent > between.sent + 50_000  # sshd takes some of it before it hangs up
    assert fresh.client_bytes().sent - before.sent < 50_000


def test_a_small_disk_fills_up(fresh: Testbed) -> None:
    """What does not fit is refused, to root too."""
    fresh[0].add_user("small")
    fresh[0].small_disk("/home/small/cache", 4, user="small", options="noexec")
    fresh[0].fill_disk("/home/small/cache", leave=1)
    assert "No space left" in fresh[0].run("head -c 2M /dev/zero > cache/x 2>error; cat error", user="small")
    fresh[0].run("rm cache/filler cache/x; cp /bin/true cache; ! cache/true", user="small")


def test_nothing_is_left_after_a_failure() -> None:
    """Namespaces, processes, interfaces and files go with the testbed, whatever happened."""
    with pytest.raises(ZeroDivisionError), testbed(2, behind=1) as hosts:
        hosts[0].run("sleep 1000 >/dev/null 2>&1 &")
        identity, folder = hosts.id, hosts.folder
        raise ZeroDivisionError
    assert not folder.exists()
    assert_gone(identity)


def test_the_next_session_removes_what_a_killed_one_left() -> None:
    """A session that was killed leaves its machines running only until anybody's next session begins."""
    script = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from support.testbed import Testbed
hosts = Testbed(1, behind=1)
hosts[0].run("sleep 1000 >/dev/null 2>&1 &")
print(hosts.id, hosts.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(TESTS)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -9, done.stderr
    identity, folder = done.stdout.split()
    with testbed(1) as hosts:
        assert hosts.id != identity
        assert not Path(folder).exists()
        assert_gone(identity)


def assert_gone(identity: str) -> None:
    """No namespace, interface or process bears this id."""
    assert f"lw-{identity}" not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert f"lw{identity}" not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert f"lw-{identity}-".encode() not in entry.read_bytes()
