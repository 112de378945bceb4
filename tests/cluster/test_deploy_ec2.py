"""The dask-cloudprovider example against moto's EC2: user data is rendered, sent, fetched back, and executed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.deploy import EXAMPLES, ONLY, Deployers, deployers, document  # noqa: F401
from support.prefixes import clean_environ

pytestmark = [pytest.mark.registry, pytest.mark.root]

USER_DATA_LIMIT = 16 * 1024
"""Bytes of user data that EC2 takes, before it is encoded."""


def run_in_cloud(deployers: Deployers, folder: Path, *client: str | Path) -> dict[str, Any]:  # noqa: F811
    """What ``deploy_cloud.py`` prints."""
    own = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    cloud = [deployers.servers, Path(__file__).parents[1] / "support" / "deploy_cloud.py", folder]
    hidden = [*deployers.origins, EXAMPLES.parent / "src"]
    done = subprocess.run(
        [str(word) for word in (*own, *cloud, *hidden, "--", deployers.python, *client)],
        env=clean_environ(LIKEWISE_CACHE=str(deployers.cache)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=420,
        check=False,
    )
    logs = "\n".join(f"== {log}\n{log.read_text()[-3000:]}" for log in sorted(folder.rglob("*.log")))
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{logs}"
    seen = document(done.stdout)
    assert seen["code"] == 0, logs
    return seen


def test_ec2_machines_without_python_run_the_replica(deployers: Deployers, tmp_path: Path) -> None:  # noqa: F811
    """Three instances that have a shell and curl fetch the bundle, compute, and are gone in the end."""
    seen = run_in_cloud(
        deployers,
        tmp_path,
        EXAMPLES / "cloudprovider/ec2.py",
        tmp_path / "www" / "likewise",
        "http://127.0.0.1:8000/likewise",
        "--ami=ami-12c6146b",
        *(f"--only={name}" for name in ONLY),
    )
    computed = document(seen["client"])
    assert computed["scheduler"].startswith("/var/lib/likewise/node/prefixes/")
    assert computed["workers"] == [computed["scheduler"]] * 2
    assert [result[0] for result in computed["results"]] == [2 * x for x in range(8)]
    assert all(file.startswith(prefix) for _, prefix, file in computed["results"])
    assert len(seen["user_data"]) == 3
    assert seen["running"] == 0
    for text in seen["user_data"].values():
        assert len(text.encode()) <= USER_DATA_LIMIT
        assert "docker" not in text
        assert text.splitlines()[-1] == "shutdown -h now", "a scheduler that ends takes its machine along"
        command = next(line for line in text.splitlines() if " -m distributed" in line)
        assert "DASK_INTERNAL_INHERIT_CONFIG" not in command, "certificates would be on a command line"
