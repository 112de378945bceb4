"""The arguments of SSHCluster: those of Dask's own, checked before anything is started."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from likewise import SSHCluster
from likewise.cluster.certificates import make_security
from likewise.cluster.ssh.arguments import (
    Commands,
    logins,
    nanny_of,
    pythons,
    scheduler_flags,
    worker_flags,
)
from likewise.errors import UsageError


def commands(scheduler: dict[str, Any], worker: dict[str, Any]) -> Commands:
    return Commands(
        nanny=True,
        scheduler_options=scheduler,
        worker_options=worker,
        preloads={"scheduler": (), "worker": (), "nanny": ()},
        environ={"A": "1"},
        security=make_security(),
    )


def test_each_host_has_its_login() -> None:
    """One mapping for all, or one for each."""
    assert [login.name for login in logins(["a", "b"], None)] == ["a", "b"]
    assert [login.options["port"] for login in logins(["a", "a"], [{"port": 1}, {"port": 2}])] == [1, 2]
    assert pythons(["x", "y"], 2) == ("x", "y")
    assert pythons(None, 2) == ("python3", "python3")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"hosts": []}, "hosts"),
        ({"hosts": "h1"}, "hosts"),
        ({"hosts": ["a", "b"], "connect_options": [{}]}, "connect_options"),
        ({"hosts": ["a"], "remote_python": ["x", "y"]}, "remote_python"),
        ({"hosts": ["a"], "worker_options": {"n_workers": 0}}, "n_workers"),
        ({"hosts": ["a"], "worker_options": {"nthread": 1}}, "nthread"),
        ({"hosts": ["a"], "scheduler_options": {"protocol": "tcp"}}, "protocol"),
        ({"hosts": ["a"], "security": False}, "security"),
        ({"hosts": ["a"], "package_sync_ignore": "numpy"}, "numpy"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments: dict[str, Any], word: str) -> None:
    """Before anything is scanned or any host is asked."""
    with pytest.raises(UsageError, match=word):
        SSHCluster(**arguments)


def test_without_asyncssh_the_error_says_how_to_get_it() -> None:
    """likewise itself does without it."""
    code = "import sys; sys.modules['asyncssh'] = None; import likewise; likewise.SSHCluster(['h'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UnsupportedError" in done.stderr
    assert "pip install 'likewise[ssh]'" in done.stderr


def test_keywords_of_dasks_classes_become_options_of_its_commands() -> None:
    """As dask.distributed.SSHCluster spells them."""
    assert worker_flags({"port": 1, "nthreads": 2}, nanny=True) == {"nanny_port": 1, "nthreads": 2}
    assert worker_flags({"port": 1}, nanny=False) == {"worker_port": 1}
    assert scheduler_flags({"http_prefix": "/x", "port": 5}) == {"dashboard_prefix": "/x", "port": 5}
    assert nanny_of("distributed.Nanny") == (True, {})
    assert nanny_of("dask.distributed.Worker") == (False, {})
    assert nanny_of("my.Worker") == (True, {"worker_class": "my.Worker"})


def test_processes_listen_where_the_host_was_reached_unless_told_otherwise() -> None:
    """The address comes from the probe; `host`, `interface` and `port` of the user win."""
    plain = commands({}, {}).scheduler("h", ["py"], "10.0.0.1").argv
    assert plain[plain.index("--host") + 1] == "10.0.0.1"
    assert plain[plain.index("--port") + 1] == "0"
    chosen = commands({"interface": "ib0", "port": 8786}, {}).scheduler("h", ["py"], "10.0.0.1").argv
    assert "--host" not in chosen
    assert chosen[chosen.index("--port") + 1] == "8786"


def test_a_worker_waits_for_the_address_or_has_it() -> None:
    """Started early it waits for a file in its own working directory; later it is told on the command line."""
    early = commands({}, {}).worker("h", ["py"], "10.0.0.1", 0, None).argv
    late = commands({}, {}).worker("h", ["py"], "10.0.0.1", 0, "tls://10.0.0.1:5").argv
    assert early[early.index("--scheduler-file") + 1] == "scheduler.json"
    assert "tls://10.0.0.1:5" in late


def test_keys_are_in_variables_and_each_role_has_its_own() -> None:
    """Nothing of them is on a command line, and a worker does not have the scheduler's or the client's."""
    ours = commands({}, {})
    keys = {role: getattr(ours.security, f"tls_{role}_key") for role in ("scheduler", "worker", "client")}
    has = {
        "scheduler": ours.scheduler("h", ["py"], "10.0.0.1"),
        "worker": ours.worker("h", ["py"], "10.0.0.1", 0, None),
    }
    for role, command in has.items():
        assert {name for name, key in keys.items() if key in command.env.values()} == {role}
        assert "PRIVATE KEY" not in " ".join(command.argv)
        assert "PRIVATE KEY" not in repr(command)
