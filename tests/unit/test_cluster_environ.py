"""The environment variables that a node's processes get."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import dask.config
import pytest
from distributed.security import Security

from likewise.cluster.environ import basic_environ, check_environ, dask_environ, tls_environ
from likewise.errors import UsageError

LOGIN = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/ann",
    "USER": "ann",
    "LANG": "C.UTF-8",
    "LC_TIME": "de_DE",
    "TZ": "UTC",
}


def test_a_login_sessions_variables_pass() -> None:
    """What every login session has reaches the nodes unchanged."""
    assert basic_environ(LOGIN) == LOGIN


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "PIP_INDEX_URL", "SSH_AUTH_SOCK", "PYTHONPATH", "VIRTUAL_ENV",
        "LD_PRELOAD", "LD_LIBRARY_PATH", "http_proxy", "DASK_DISTRIBUTED__LOGGING", "LCX", "XDG_RUNTIME_DIR",
    ],
)  # fmt: skip
def test_nothing_else_passes(name: str) -> None:
    """Credentials, and whatever steers a Python or a loader, stay on the client."""
    assert basic_environ({**LOGIN, name: "hunter2"}) == LOGIN


def test_the_clients_programs_leave_path() -> None:
    """Folders of the client's own prefix are taken out of PATH."""
    environ = basic_environ({"PATH": "/venv/bin:/usr/bin:/venv/bin/more"}, without={"/venv/bin"})
    assert environ == {"PATH": "/usr/bin:/venv/bin/more"}


def test_asked_for_variables() -> None:
    """What the user asks for is taken as it is."""
    assert check_environ({"OMP_NUM_THREADS": "1", "EMPTY": ""}) == {"OMP_NUM_THREADS": "1", "EMPTY": ""}
    assert check_environ(None) == {}


@pytest.mark.parametrize("env", [{"A": 1}, {"A": None}, {"A=B": "x"}, {"": "x"}, {"A": "x\0y"}, {1: "x"}])
def test_impossible_variables(env: Any) -> None:
    """What can't be an environment variable is a usage error, not a failure of a node."""
    with pytest.raises(UsageError, match="env"):
        check_environ(env)


def test_dask_reads_what_is_sent() -> None:
    """Dask itself reads the configuration out of the variables, and no file of the places they can move."""
    sent = {"distributed": {"scheduler": {"allowed-failures": 7}}}
    environ = dask_environ(dask.config.serialize(sent))
    assert dask.config.collect_env(environ)["distributed"] == sent["distributed"]
    paths = [environ["DASK_CONFIG"], environ["DASK_ROOT_CONFIG"]]
    assert list(dask.config.collect_yaml(paths)) == []


def test_a_huge_configuration_is_refused() -> None:
    """What Linux would refuse as a variable is refused with a sentence."""
    with pytest.raises(UsageError, match="too big"):
        dask_environ("x" * 200_000)


@pytest.mark.parametrize("role", ["scheduler", "worker"])
def test_tls_survives_the_variables(role: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Security made from the variables has the certificate, key and versions of its role."""
    security = Security.temporary(tls_min_version=ssl.TLSVersion.TLSv1_3, tls_max_version=ssl.TLSVersion.TLSv1_3)
    node = _security_of(tls_environ(security, role))
    assert node.require_encryption is True
    assert node.tls_ca_file == security.tls_ca_file
    assert node.get_tls_config_for_role(role) == security.get_tls_config_for_role(role)
    assert node.tls_min_version == node.tls_max_version == ssl.TLSVersion.TLSv1_3
    assert node.get_connection_args(role)["ssl_context"] is not None


def test_each_role_gets_its_own_key_only() -> None:
    """A worker knows neither the scheduler's key nor the user's; the scheduler knows only its own."""
    pem = {
        f"tls_{role}_{kind}": f"--{role} {kind}--\n"
        for role in ("client", "scheduler", "worker")
        for kind in ("cert", "key")
    }
    security = Security(require_encryption=True, tls_ca_file="--ca--\n", **pem)
    worker = "".join(tls_environ(security, "worker").values())
    scheduler = "".join(tls_environ(security, "scheduler").values())
    assert "--worker key--" in worker
    assert "--scheduler key--" in scheduler
    assert not any(name in worker for name in ("client key", "scheduler key"))
    assert not any(name in scheduler for name in ("client key", "worker key"))


def test_certificate_files_travel_as_text(tmp_path: Path) -> None:
    """A certificate given as a file is read by the client: the node may not have that file."""
    temporary = Security.temporary()
    files = {}
    for name in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
        path = tmp_path / name
        path.write_text(getattr(temporary, name))
        files[name] = str(path)
    node = _security_of(tls_environ(Security(require_encryption=True, **files), "worker"))
    assert node.tls_worker_key == temporary.tls_worker_key


def test_an_unreadable_certificate_is_named(tmp_path: Path) -> None:
    """A certificate file that is not there is a usage error with its path."""
    missing = tmp_path / "gone.pem"
    with pytest.raises(UsageError, match=r"gone\.pem"):
        tls_environ(Security(require_encryption=True, tls_ca_file=str(missing)), "worker")


def _security_of(environ: dict[str, str]) -> Security:
    """The Security that a process with these variables makes."""
    assert not any(os.sep in value and "\n" not in value for value in environ.values())
    with dask.config.set(dask.config.merge(dask.config.config, dask.config.collect_env(environ))):
        return Security()
