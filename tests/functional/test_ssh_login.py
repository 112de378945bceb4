"""Logging in to a real sshd, and every way in which that fails: one sentence that names the host and what to do."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from likewise import SSHCluster
from likewise.cluster.ssh.connection import Connections, Host
from likewise.errors import ClusterError
from support.sshd import Sshd, sshd

__all__ = ["sshd"]

pytestmark = pytest.mark.root


def logged_in(server: Sshd, work: Callable[[Host], Any], host: str = "here") -> Any:
    """What the coroutine function `work` returns for a host that is logged in to."""

    async def run() -> Any:
        connections = Connections()
        try:
            return await work(await connections.host(host, {"config": str(server.config)}))
        finally:
            await connections.close()

    return asyncio.run(run())


async def nothing(host: Host) -> None:
    """Only log in."""


def refused(server: Sshd, host: str = "here") -> str:
    with pytest.raises(ClusterError) as caught:
        logged_in(server, nothing, host)
    assert caught.value.where == host
    return str(caught.value)


def test_an_unknown_host_key_is_refused(sshd: Sshd) -> None:
    """Nobody can say whether it is the right machine."""
    sshd.trust("")
    assert "is not known" in refused(sshd)


def test_a_changed_host_key_is_refused(sshd: Sshd) -> None:
    """Whatever StrictHostKeyChecking says: it may be another machine."""
    sshd.trust("other")
    for said in ("yes", "accept-new", "no"):
        sshd.write_config(StrictHostKeyChecking=said)
        text = refused(sshd)
        assert "it may be another machine" in text
        assert "ssh-keygen -R" in text


def test_a_new_host_key_is_accepted_and_remembered_where_openssh_would(sshd: Sshd) -> None:
    """StrictHostKeyChecking accept-new; the second time it is a known one."""
    sshd.trust("")
    sshd.write_config(StrictHostKeyChecking="accept-new")
    logged_in(sshd, nothing)
    sshd.write_config(StrictHostKeyChecking="yes")
    logged_in(sshd, nothing)


def test_a_refused_login_is_told(sshd: Sshd) -> None:
    """With a key that the host does not take."""
    sshd.write_config(IdentityFile=str(sshd.folder / "other"))
    assert "refuses the login" in refused(sshd)


def test_a_port_where_nobody_listens_is_told(sshd: Sshd) -> None:
    """With the reason that the system gave."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sshd.write_config(Port=str(taken.getsockname()[1]))
        assert "can't be reached over SSH" in refused(sshd)


def test_a_host_that_never_answers_is_told(sshd: Sshd) -> None:
    """After ConnectTimeout, also when a port is open and nothing comes from it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sshd.write_config(Port=str(silent.getsockname()[1]), ConnectTimeout="1")
        assert "does not answer" in refused(sshd)


def test_more_sessions_than_a_connection_may_have(sshd: Sshd) -> None:
    """sshd allows two on one connection here; five at once run all the same."""

    async def five(host: Host) -> list[str]:
        answers = await asyncio.gather(*(host.run(f"sleep 0.3; echo {n}") for n in range(5)))
        return [answer.out.strip() for answer in answers]

    assert logged_in(sshd, five) == ["0", "1", "2", "3", "4"]


def test_what_a_script_says_and_how_it_ends(sshd: Sshd) -> None:
    """Output, error output and exit status come apart; input arrives in full."""

    async def pieces() -> Any:
        for _ in range(8):
            yield bytes(1 << 20)

    async def run(host: Host) -> Any:
        return await host.run("wc -c; echo oh >&2; exit 3", pieces())

    answer = logged_in(sshd, run)
    assert (answer.status, answer.out.strip(), answer.said) == (3, str(8 << 20), "oh\n")


def test_a_port_comes_through_the_connection(sshd: Sshd) -> None:
    """What connects to the local port talks to the port on the host."""

    async def talk(host: Host) -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = await host.forward("127.0.0.1", server.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        answer = await reader.readline()
        writer.close()
        server.close()
        return answer

    assert logged_in(sshd, talk) == b"HELLO\n"


def test_plain_dask_in_the_hosts_own_prefix(sshd: Sshd, tmp_path: Path) -> None:
    """package_sync=False with remote_python: TLS and the lifeline as ever, and nothing of likewise on the host."""
    with SSHCluster(
        ["here", "here"],
        connect_options={"config": str(sshd.config)},
        worker_options={"nthreads": 1},
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
        remote_python=sys.executable,
        package_sync=False,
    ) as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        with cluster.get_client() as client:
            assert client.submit(sum, [1, 2, 3]).result(timeout=30) == 6
            (where,) = client.run(lambda: (sys.executable, "likewise.cluster.lifeline" in sys.modules)).values()
        assert where == (sys.executable, False)
        assert cluster.environment is None


def test_a_host_that_fails_ends_the_launch_when_it_is_the_schedulers(sshd: Sshd) -> None:
    """And every host that failed is named in the one error."""
    with pytest.raises(ClusterError) as caught:
        SSHCluster(
            ["nowhere.invalid", "here", "nobody.invalid"],
            connect_options={"config": str(sshd.config)},
            package_sync=False,
        )
    assert "nowhere.invalid" in str(caught.value)
    assert "nobody.invalid" in str(caught.value)
