"""Commands of the simulated machines, and what they are made from."""

from __future__ import annotations

from pathlib import Path

import dask.config
import pytest
from distributed.security import Security

from likewise.cluster.commands import Nodes, address_file, client_environ, require_tls, split_preloads
from likewise.cluster.environment import environment_of
from likewise.errors import UsageError
from likewise.model.digest import EMPTY
from likewise.model.layer import LayerKind
from likewise.model.manifest import LayerRef, Manifest
from likewise.model.target import Platform, Target

SECURITY = Security.temporary()
NODES = Nodes(
    count=2,
    nanny=True,
    scheduler_options={"port": 0},
    worker_options={"nthreads": 3},
    preloads={"scheduler": ("s",), "worker": ("w",), "nanny": ()},
    environ={"PATH": "/bin"},
    security=SECURITY,
)


def test_workers_take_turns_on_the_machines() -> None:
    """Worker i runs on machine i modulo their number, in a folder of that machine; the scheduler on the first."""
    run = Path("/run/x")
    commands = [NODES.worker(["python"], run, name, None) for name in range(5)]
    assert [c.node for c in commands] == ["node-0", "node-1", "node-0", "node-1", "node-0"]
    assert commands[1].cwd == "/run/x/node-1"
    assert NODES.scheduler(["python"], run).node == "node-0"


def test_scheduler_and_workers_meet_at_a_file() -> None:
    """A worker without an address waits for the very file that the scheduler writes."""
    run = Path("/run/x")
    file = str(address_file(run))
    assert file in NODES.scheduler(["python"], run).argv
    assert file in NODES.worker(["python"], run, 0, None).argv
    later = NODES.worker(["python"], run, 0, "tls://127.0.0.1:5").argv
    assert file not in later
    assert "tls://127.0.0.1:5" in later


def test_no_secret_is_seen_in_ps_or_repr() -> None:
    """Certificates and keys are in variables alone, and those are not shown."""
    for command in (NODES.scheduler(["python"], Path("/r")), NODES.worker(["python"], Path("/r"), 0, None)):
        assert any("PRIVATE KEY" in value for value in command.env.values())
        assert "BEGIN" not in " ".join(command.argv)
        assert "BEGIN" not in repr(command)
    assert "BEGIN" not in repr(NODES)


@pytest.mark.parametrize("security", [None, True])
def test_credentials_are_made_where_none_are_given(security: bool | None) -> None:
    """Each cluster has credentials of its own."""
    first, second = require_tls(security), require_tls(security)
    assert first.require_encryption
    assert first.tls_worker_key != second.tls_worker_key


@pytest.mark.parametrize("security", [False, Security(), "tls", Security(tls_ca_file="x\n", require_encryption=True)])
def test_connections_in_the_clear_are_refused(security: object) -> None:
    """There is no way to switch TLS off."""
    with pytest.raises(UsageError, match="TLS"):
        require_tls(security)  # type: ignore[arg-type]


def test_given_credentials_are_used() -> None:
    """A complete Security is taken as it is."""
    assert require_tls(SECURITY) is SECURITY


def test_preloads_of_the_configuration_stay_in_force() -> None:
    """Dask ignores configured preloads where the command line has any, so ours bring them along."""
    config = {"distributed": {"scheduler": {"preload": "one"}, "worker": {"preload": ["two", "three"]}}}
    assert split_preloads(config, {}, {}) == {"scheduler": ("one",), "worker": ("two", "three"), "nanny": ()}
    given = split_preloads(config, {"preload": ["mine"]}, {"preload": "also mine"})
    assert given == {"scheduler": ("mine",), "worker": ("also mine",), "nanny": ()}


def test_what_stays_on_the_client_is_told() -> None:
    """A configured secret leads to a notice with its name, and without its value."""
    notices: list[str] = []
    with dask.config.set({"cloud.password": "hunter2"}):
        environ, _ = client_environ({"PATH": "/bin"}, {"A": "b"}, replica=True, notice=notices.append)
    assert len(notices) == 1
    assert "cloud.password" in notices[0]
    assert "hunter2" not in notices[0]
    assert environ["A"] == "b"
    assert dask.config.deserialize(environ["DASK_INTERNAL_INHERIT_CONFIG"])["cloud"] == {}


def test_environment_of_a_manifest() -> None:
    """A cluster's environment has the manifest's id and its distributions, not its other layers."""
    target = Target(platform=Platform(os="linux", arch="x86_64"), python="3.11.7")
    kinds = [("python", LayerKind.INTERPRETER), ("numpy", LayerKind.DISTRIBUTION), ("code-1", LayerKind.CODE)]
    layers = tuple(LayerRef(kind=kind, name=name, version="1.0", digest=EMPTY, files=1, size=1) for name, kind in kinds)
    manifest = Manifest(target=target, python="python3.11", cache_tag="cpython-311", layers=layers)
    environment = environment_of(manifest)
    assert environment.id == manifest.id
    assert environment.python == "3.11.7"
    assert environment.distributions == {"numpy": "1.0"}
