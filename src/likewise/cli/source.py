"""Options that say what is installed, where that is not what is here, and what the nodes are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from likewise.cli.perspective import as_session
from likewise.errors import UsageError

if TYPE_CHECKING:
    from likewise.events import Reporter
    from likewise.model.plan import Plan
    from likewise.model.snapshot import Snapshot

Command = TypeVar("Command", bound=Callable[..., Any])


def sourced(command: Command) -> Command:
    """What is planned for what, as options of `command`, which gets them as ``source``: keywords of `planned`."""

    @click.option(
        "--from",
        "file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="What is installed, where that is elsewhere: a saved scan, pip inspect, pip freeze, uv.lock, pylock.toml, "
        "environment.yml, conda list, conda-lock.yml, pixi.lock.",
    )
    @click.option("--client", metavar="PLATFORM", default="", help="With --from: where that is, like osx-arm64.")
    @click.option("--python", metavar="VERSION", default="", help="With --from: the Python there, like 3.11.7.")
    @click.option("--environment", metavar="NAME", default="", help="With --from: which of those in a pixi.lock.")
    @click.option(
        "--channel",
        "channels",
        multiple=True,
        metavar="CHANNEL",
        help="A conda channel to ask in place of those that packages come from. May be repeated, the best first.",
    )
    @click.option("--target", metavar="TARGET", default="", help="What the nodes are, like linux-64-cuda12.8.")
    @click.option(
        "--exclude-newer",
        metavar="DATE",
        default="",
        help="Where an index is asked: what was uploaded to it later does not count.",
    )
    @click.option("--refresh", is_flag=True, help="Ask indexes even where what they said is remembered.")
    @functools.wraps(command)
    def sourcing(
        *args: Any,
        file: Path | None,
        client: str,
        python: str,
        environment: str,
        channels: tuple[str, ...],
        target: str,
        exclude_newer: str,
        refresh: bool,
        **others: Any,
    ) -> Any:
        source = {
            "file": file,
            "client": client,
            "python": python,
            "environment": environment,
            "channels": channels,
            "target": target,
            "exclude_newer": exclude_newer,
            "refresh": refresh,
        }
        return command(*args, source=source, **others)

    return cast(Command, sourcing)


def planned(
    *,
    file: Path | None,
    client: str,
    python: str,
    environment: str,
    channels: tuple[str, ...],
    target: str,
    exclude_newer: str,
    refresh: bool,
    wishes: dict[str, Any],
    reporter: Reporter,
    fetched: bool = False,
) -> tuple[Snapshot, Plan]:
    """What is installed, and the plan for it.

    Parameters
    ----------
    file, client, python, environment, channels, target, exclude_newer, refresh
        As on the command line.
    wishes : dict
        Keywords of `likewise.sync.plan`.
    reporter : Reporter
    fetched : bool
        Whether everything has to come from an index, as for somebody who has none of the client's files.

    Raises
    ------
    LikewiseError
    """
    from likewise.sync import check_request, plan, plan_options, read_source, scan

    plan_options(**wishes)
    check_request(target or None, exclude_newer)
    if file is None and (client or python or environment):
        raise UsageError(
            "--client, --python and --environment say what a file leaves open, and there is none.",
            todo="Give --from FILE, or neither.",
        )
    if file is None:
        with as_session():
            snapshot = scan(reporter=reporter)
        reading = None
    else:
        reading = read_source(file, client=client, python=python, environment=environment)
        snapshot = reading.snapshot
    chosen = plan(
        reading or snapshot,
        target=target or None,
        exclude_newer=exclude_newer,
        channels=channels,
        fetched=fetched,
        refresh=refresh,
        **wishes,
        reporter=reporter,
    )
    return snapshot, chosen
