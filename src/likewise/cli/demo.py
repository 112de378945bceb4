"""``likewise demo``: the whole path on the present environment, small enough to watch."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click
import msgspec

from likewise.cli import options
from likewise.cli.perspective import as_session
from likewise.console.render import console_reporter
from likewise.console.reports import describe_launch, describe_verify
from likewise.console.text import format_seconds, table
from likewise.errors import VerifyError
from likewise.model.report import LaunchReport
from likewise.model.verify import VerifyReport

if TYPE_CHECKING:
    from likewise.cluster.local import Cluster


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """What a process runs, as it sees it itself."""

    process: str
    prefix: str
    interpreter: str


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """The value of ``likewise demo``. `seconds` is from the start to the first result."""

    result: int
    expected: int
    seconds: float
    launch: LaunchReport
    verify: VerifyReport
    client: Where
    workers: tuple[Where, ...]


@click.command()
@options.as_json
@options.quiet
def command(json: bool, quiet: bool) -> int:
    """Replicate the present environment on two nodes on this machine, compute there, and prove it is the same.

    The nodes are processes with node caches of their own. Nothing is changed but likewise's cache folder.
    """
    with as_session(), console_reporter(quiet=quiet) as reporter:
        from likewise.cluster.local import Cluster

        started = time.perf_counter()
        with Cluster(n_workers=2, threads_per_worker=1, nodes=2, reporter=reporter) as cluster:
            demo = _demonstrate(cluster, started)
    options.give(demo, describe(demo), json=json)
    if demo.verify.ok and demo.result == demo.expected and not _shared(demo):
        return 0
    click.echo("error: The replica is not what it should be; the report says how it differs.", err=True)
    return VerifyError.exit_code


def _demonstrate(cluster: Cluster, started: float) -> Demo:
    with cluster.get_client() as client:
        result = client.submit(sum, client.map(_square, range(100))).result()
        seconds = time.perf_counter() - started
        workers = client.run(_where)
    return Demo(
        result=result,
        expected=sum(map(_square, range(100))),
        seconds=seconds,
        launch=cluster.report,
        verify=cluster.verify(),
        client=_as_where("client", _where()),
        workers=tuple(_as_where(address, found) for address, found in sorted(workers.items())),
    )


def _square(number: int) -> int:
    return number * number


def _where() -> tuple[str, str]:
    return sys.prefix, os.path.realpath(sys.executable)


def _as_where(process: str, found: tuple[str, str]) -> Where:
    return Where(process=process, prefix=found[0], interpreter=found[1])


def _shared(demo: Demo) -> bool:
    """Whether any worker runs in the client's prefix or with the client's interpreter, which must not be."""
    return any(w.prefix == demo.client.prefix or w.interpreter == demo.client.interpreter for w in demo.workers)


def describe(demo: Demo) -> str:
    """The demonstration for people."""
    places = [(where.process, where.prefix, where.interpreter) for where in (demo.client, *demo.workers)]
    return "\n".join(
        [
            options.title("stages"),
            describe_launch(demo.launch),
            "",
            f"first result after {format_seconds(demo.seconds)}: the sum of 100 squares is {demo.result:,}",
            "",
            options.title("verified"),
            describe_verify(demo.verify),
            "",
            options.title("where they run"),
            table(places, head=("process", "prefix", "interpreter")),
        ]
    )
