"""``likewise export``: the plan as a file for other tools."""

from __future__ import annotations

from typing import Any

import click

from likewise.cli import options
from likewise.cli.source import planned, sourced
from likewise.console.render import console_reporter
from likewise.console.text import counted
from likewise.events import Notice


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["pylock", "requirements", "dockerfile", "explicit", "pixi"]),
    default="pylock",
    show_default=True,
    help="pylock.toml (PEP 751), hashed requirements for pip, a Dockerfile; an explicit list for conda, or pixi.lock.",
)
@sourced
@options.planning
@options.quiet
def command(form: str, source: dict[str, Any], wishes: dict[str, Any], quiet: bool) -> None:
    """Write the plan as a file that other tools understand, to stdout.

    Each file is pinned by version and sha256. What lies on this machine alone (editables, loose code) is named in
    comments: other tools can't bring it.
    """
    from likewise.formats.write import lost, write

    with console_reporter(quiet=quiet) as reporter:
        _, plan = planned(**source, wishes=wishes, reporter=reporter, fetched=True)
        text = write(plan, form)
        if left := lost(plan, form):
            named = ", ".join(decision.name for decision in left)
            reporter.report(Notice(message=f"{counted(len(left), 'subject')} can't be in such a file: {named}."))
    click.echo(text, nl=False)
