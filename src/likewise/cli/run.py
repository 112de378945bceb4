"""``likewise run SCRIPT``: a cluster of this environment, for a program that knows nothing of likewise."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, cast

import click

from likewise.cli import options
from likewise.cli.failure import INTERRUPTED
from likewise.cli.perspective import as_script
from likewise.cli.profile import Profile, ProfileCommand
from likewise.console.render import console_reporter
from likewise.console.reports import describe_layers
from likewise.events import Reporter
from likewise.model.report import SOURCES

if TYPE_CHECKING:
    from likewise.cluster.local import Cluster
    from likewise.cluster.ssh.cluster import SSHCluster


@click.command(cls=ProfileCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-w", "--workers", type=click.IntRange(min=1), metavar="N", help="Number of workers (on each host).")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Run the workers on this host, over SSH; may be repeated. The scheduler runs on the first one.",
)
@click.option(
    "-F",
    "--ssh-config",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="OpenSSH configuration for these hosts, in place of the user's (as ssh -F).",
)
@click.option(
    "--target",
    metavar="TARGET",
    default=None,
    help="What the hosts are, where they are not like this machine: linux-64, linux-aarch64-glibc2.31, ….",
)
@click.option(
    "--extra",
    "extras",
    multiple=True,
    metavar="REQUIREMENT",
    help="Something for the cluster alone, like cupy-cuda12x. May be repeated.",
)
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    default=None,
    help="Who gives hosts what a public index offers, too: this machine, the index, or whoever is quicker.",
)
@click.option("-v", "--verbose", is_flag=True, help="In the end, say where each layer came from.")
@click.option(
    "--profile",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="[FILE.html]",
    help="Write a page that shows when everything of the launch happened [default: likewise-profile.html].",
)
@options.quiet
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    workers: int | None,
    hosts: tuple[str, ...],
    ssh_config: str | None,
    target: str | None,
    extras: tuple[str, ...],
    source: str | None,
    verbose: bool,
    profile: Path | None,
    quiet: bool,
    script: Path,
    arguments: tuple[str, ...],
) -> int:
    """Run SCRIPT with its ARGUMENTS, as Python would, with a cluster of this environment as its default client.

    In the script, dask.compute(), Client.current() and a plain Client() use that cluster. It is closed when the
    script ends, however it ends; the exit code is the script's own.
    """
    with as_script(script) as main, _terminable(), ExitStack() as stack:
        with console_reporter(quiet=quiet) as console:
            reporter: Reporter = console
            if profile is not None:
                watcher = stack.enter_context(Profile(profile, str(script), console, quiet=quiet))
                reporter = watcher.recorder
            wishes = {"target": target, "extras": extras or None, "source": source}
            cluster = _start(workers, hosts, ssh_config, wishes, reporter)
        if verbose:
            stack.callback(_tell_layers, cluster)  # when it is closed: layers arrive until then
        stack.callback(cluster.close)
        stack.enter_context(_default_client(cluster))
        if profile is not None:
            stack.enter_context(watcher.of(cluster))
        return run_script(main, [str(script), *arguments])


def _start(
    workers: int | None,
    hosts: Sequence[str],
    ssh_config: str | None,
    wishes: Mapping[str, Any],
    reporter: Reporter,
) -> Cluster | SSHCluster:
    """Start it; `wishes` are its ``package_sync_…`` arguments."""
    sync: dict[str, Any] = {f"package_sync_{name}": wish for name, wish in wishes.items()}
    if hosts:
        from likewise.cluster.ssh.cluster import SSHCluster

        return SSHCluster(
            [hosts[0], *hosts],
            connect_options={"config": ssh_config} if ssh_config else None,
            worker_options={"n_workers": workers or 1},
            reporter=reporter,
            **sync,
        )
    from likewise.cluster.local import Cluster

    return Cluster(n_workers=workers, reporter=reporter, **sync)


def _tell_layers(cluster: Cluster | SSHCluster) -> None:
    click.echo(describe_layers(cluster.report.layers), err=True)


@contextmanager
def _default_client(cluster: Cluster | SSHCluster) -> Iterator[None]:
    """Make the cluster what ``dask.compute()`` and a ``Client()`` without an address use."""
    import dask

    tls = cluster.security.get_tls_config_for_role("client") if cluster.security else {}
    settings = {
        "scheduler-address": cluster.scheduler_address,
        "distributed.comm.tls.ca-file": tls.get("ca_file"),
        "distributed.comm.tls.client.cert": tls.get("cert"),
        "distributed.comm.tls.client.key": tls.get("key"),
    }
    with dask.config.set(settings), cluster.get_client():
        yield


def run_script(main: ModuleType, argv: Sequence[str]) -> int:
    """Execute the script of the module `main` (see `as_script`); return the exit code that Python would give it."""
    saved, sys.argv = sys.argv, list(argv)
    loader = cast(SourceFileLoader, main.__loader__)
    try:
        code = loader.source_to_code(loader.get_data(loader.path), loader.path)
        exec(code, main.__dict__)
    except SystemExit as end:
        return _exit_code(end)
    except BaseException as error:
        _show_traceback(error, loader.path)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    finally:
        sys.argv = saved
    return 0


def _exit_code(end: SystemExit) -> int:
    """What Python makes of ``sys.exit(…)``: a number, nothing for success, or a message."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    print(end.code, file=sys.stderr)
    return 1


def _show_traceback(error: BaseException, script: str) -> None:
    """The traceback from the script on: what likewise did before is none of the user's business.

    There is nothing of the script in it when the script could not be compiled; Python then shows no frames either.
    """
    at = error.__traceback__
    while at is not None and at.tb_frame.f_code.co_filename != script:
        at = at.tb_next
    traceback.print_exception(type(error), error, at)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM (a batch system's limit, say) end the script in an orderly way, with the cluster closed."""

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
