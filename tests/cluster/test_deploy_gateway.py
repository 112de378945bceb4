"""The dask-gateway example with its real server: the cluster runs in a replica of the client's environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.deploy import EXAMPLES, ONLY, Deployers, deployers, document, free_port, listens, running  # noqa: F401
from support.masking import masked_argv
from support.prefixes import clean_environ

pytestmark = [pytest.mark.registry, pytest.mark.root]


def test_gateway_cluster_runs_in_the_replica(deployers: Deployers, tmp_path: Path) -> None:  # noqa: F811
    """Scheduler and workers of a gateway that can't see the client's prefix compute with what is only there."""
    port = free_port()
    server = [deployers.servers, "-m", "dask_gateway_server", "--config", EXAMPLES / "gateway/dask_gateway_config.py"]
    with running(
        masked_argv(server, hide=deployers.prefixes),
        tmp_path / "gateway.log",
        ready=listens(port),
        env=clean_environ(GATEWAY_PORT=str(port), TMPDIR=str(tmp_path)),
    ):
        shown = deployers.run(
            EXAMPLES / "gateway/client.py",
            f"http://127.0.0.1:{port}",
            tmp_path / "bundle",
            *(f"--only={name}" for name in ONLY),
            f"--cache={tmp_path / 'node'}",
        )
    seen = document(shown)
    prefix = os.fspath(tmp_path / "node" / "prefixes")
    assert seen["scheduler"].startswith(prefix)
    assert seen["workers"] == [seen["scheduler"]] * 2
    assert [result[0] for result in seen["results"]] == [2 * x for x in range(8)]
    assert all(where == seen["scheduler"] and file.startswith(where) for _, where, file in seen["results"])
