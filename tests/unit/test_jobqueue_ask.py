"""A node that starts asks the scheduler what to run: real schedulers, with TLS."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Scheduler

from likewise.cluster.certificates import make_security
from likewise.cluster.environ import tls_environ
from likewise.cluster.scheduler_side import install
from likewise.errors import NodeError
from likewise.model.digest import digest_bytes
from likewise.transport.ask import Current, ask_scheduler, main, scheduler_address

CURRENT = Current(manifest=digest_bytes(b"now"), cluster="0123456789abcdef", hub="tls://127.0.0.1:1")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a function in a thread beside a scheduler that `prepare` was applied to; the worker's TLS is set."""
    security = make_security()
    for name, value in tls_environ(security, "worker").items():
        monkeypatch.setenv(name, value)

    async def with_scheduler(prepare: Any, function: Any) -> Any:
        options = {
            "host": "127.0.0.1",
            "port": 0,
            "protocol": "tls",
            "security": security,
            "dashboard_address": "127.0.0.1:0",
        }
        async with Scheduler(**options) as scheduler:
            prepare(scheduler)
            return await asyncio.to_thread(function, scheduler.address)

    def run(prepare: Any, function: Any) -> Any:
        with dask.config.set(config_from_environ()):
            return asyncio.run(with_scheduler(prepare, function))

    return run


def config_from_environ() -> dict[str, Any]:
    """What a new process would read from its variables."""
    found: dict[str, Any] = dask.config.collect_env()
    return dask.config.merge(dask.config.config, found)


def test_the_scheduler_says_what_to_run(asked: Any) -> None:
    """The answer is the manifest, cluster and hub that the scheduler was told last."""

    def prepare(scheduler: Any) -> None:
        install(scheduler, manifest=digest_bytes(b"last week"), cluster=CURRENT.cluster)
        scheduler.handlers["likewise_set_current"](manifest=CURRENT.manifest, hub=CURRENT.hub)

    assert asked(prepare, ask_scheduler) == CURRENT


def test_a_scheduler_of_somebody_else(asked: Any) -> None:
    """A scheduler without likewise, and one that answers nonsense, are errors that name its address."""
    for prepare in (lambda s: None, lambda s: s.handlers.update(likewise_current=lambda: {"manifest": "../x"})):
        with pytest.raises(NodeError) as raised:
            asked(prepare, lambda address: ask_scheduler(address, 5))
        assert raised.value.where.startswith("tls://127.0.0.1:")


def test_a_scheduler_that_is_gone() -> None:
    """Nobody at the address: an error after the given time that says so."""
    with pytest.raises(NodeError, match="can't be asked") as raised:
        ask_scheduler("tcp://127.0.0.1:9", 0.3)
    assert raised.value.where == "tcp://127.0.0.1:9"


def test_what_bootstrap_reads(asked: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints three words, a dash for what is empty; without a scheduler's address it ends with 15."""
    manifest = CURRENT.manifest
    argv = ["-m", "distributed.cli.dask_worker"]
    asked(lambda s: install(s, manifest=manifest), lambda address: main([*argv, address, "--death-timeout", "60"]))
    assert capsys.readouterr().out == f"{manifest} - -\n"
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == NodeError.exit_code
    assert capsys.readouterr().err.startswith("likewise: ")


def test_where_the_scheduler_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address on the command line comes first, then the scheduler's file, then the variable."""
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    file = tmp_path / "scheduler.json"
    argv = ["-m", "distributed.cli.dask_worker", "--scheduler-file", str(file)]
    assert scheduler_address(argv) is None
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tls://c:3")
    assert scheduler_address(argv) == "tls://c:3"
    file.write_text(json.dumps({"address": "tls://b:2"}))
    assert scheduler_address(argv) == "tls://b:2"
    assert scheduler_address([*argv, "tls://a:1"]) == "tls://a:1"
