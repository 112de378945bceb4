"""``likewise doctor``: what likewise needs here, and what to do where it is not so."""

from __future__ import annotations

import click

from likewise.cli import options
from likewise.cli.checks import Check, Status, all_checks
from likewise.console.text import table

_MARKS = {Status.OK: "ok", Status.WARNING: "warning", Status.ERROR: "error"}


@click.command()
@options.as_json
def command(json: bool) -> int:
    """Check what likewise needs here. The exit code is 1 when something is an error."""
    checks = all_checks()
    options.give(checks, describe(checks), json=json)
    return int(any(check.status is Status.ERROR for check in checks))


def describe(checks: list[Check]) -> str:
    """The checks for people: one line each, and beneath it what to do."""
    lines = table([(_MARKS[c.status], c.name, c.message) for c in checks]).splitlines()
    shown = []
    for check, line in zip(checks, lines, strict=True):
        mark = _MARKS[check.status]
        shown.append(click.style(line[: len(mark)], fg=options.severity_color(mark)) + line[len(mark) :])
        if check.todo:
            shown.append(" " * 9 + check.todo)
    return "\n".join(shown)
