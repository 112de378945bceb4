"""Two clients that start the same environment at the same moment, with nothing in any cache."""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path

import pytest

from support.prefixes import clean_environ
from support.users import make_user_venv

pytestmark = pytest.mark.registry

SCRIPT = textwrap.dedent(
    """
    import json, sys
    from likewise import Cluster

    def where():
        import sys
        return sys.prefix

    if __name__ == "__main__":
        with Cluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
            prefix = cluster.get_client().submit(where).result()
            report = cluster.verify()
            print(json.dumps({"prefix": prefix, "ok": report.ok, "differences": [str(d) for d in report.differences],
                              "id": cluster.environment.id}))
    """
)


def test_both_run_the_same_replica(tmp_path: Path) -> None:
    """Both clients get a sound cluster in one and the same prefix, and the caches hold each layer once."""
    python = make_user_venv(tmp_path / "venv")
    script = tmp_path / "work" / "script.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    environ = clean_environ(LIKEWISE_CACHE=str(tmp_path / "cache"))
    clients = [
        subprocess.Popen(
            [str(python), str(script)],
            cwd=script.parent,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = []
    for client in clients:
        out, err = client.communicate(timeout=500)
        assert client.returncode == 0, err[-4000:]
        said.append(json.loads(out.splitlines()[-1]))
    assert [one["ok"] for one in said] == [True, True], said
    assert len({one["prefix"] for one in said}) == len({one["id"] for one in said}) == 1
    store = tmp_path / "cache" / "store"
    assert not list((store / "tmp").iterdir())
    assert len(list((tmp_path / "cache" / "node" / "node-0" / "prefixes").iterdir())) == 1
