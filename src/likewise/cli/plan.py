"""``likewise plan``: the dry run."""

from __future__ import annotations

from typing import Any

import click

from likewise.cli import options
from likewise.cli.answer import describe
from likewise.cli.source import planned, sourced
from likewise.console.render import console_reporter


@click.command()
@sourced
@options.planning
@click.option("-v", "--verbose", is_flag=True, help="Also list what is simply the same.")
@options.as_json
@options.quiet
def command(source: dict[str, Any], wishes: dict[str, Any], verbose: bool, json: bool, quiet: bool) -> None:
    """What would happen to each distribution, and why. Nothing is built, packed or started."""
    with console_reporter(quiet=quiet) as reporter:
        snapshot, chosen = planned(**source, wishes=wishes, reporter=reporter)
    options.give(chosen, "\n".join(describe(snapshot, chosen, verbose=verbose)), json=json)
