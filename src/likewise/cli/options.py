"""Options that several commands share, and how they give their value."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from likewise.cli.failure import PipeClosed, use_color, write_json

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", is_flag=True, help="Write the value as exactly one JSON document to stdout.")
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress and no notices; errors are still told.")


def give(value: Any, text: str, *, json: bool) -> None:
    """The command's value on stdout: as JSON, or as `text` for people.

    Raises
    ------
    PipeClosed
        When nobody reads it.
    """
    if json:
        write_json(value)
        return
    try:
        click.echo(text.encode("utf-8", "replace").decode("utf-8"), color=use_color())
        sys.stdout.flush()
    except BrokenPipeError:
        raise PipeClosed from None
    except UnicodeEncodeError:  # a terminal or pipe that is not UTF-8
        click.echo(text.encode("ascii", "backslashreplace").decode(), color=use_color())


def title(text: str) -> str:
    """`text` as a heading (bold on a terminal)."""
    return click.style(text, bold=True)


def severity_color(severity: str) -> str | None:
    """The colour in which something of this severity is shown."""
    return {"error": "red", "warning": "yellow", "ok": "green"}.get(severity)
