"""Options that several commands share, and how they give their value."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import click

from likewise.cli.failure import PipeClosed, use_color, write_json
from likewise.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", is_flag=True, help="Write the value as exactly one JSON document to stdout.")
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress and no notices; errors are still told.")


def planning(command: Command) -> Command:
    """What a plan may do, as options of `command`, which gets it as ``wishes``: keywords of `likewise.sync.plan`.

    What is not on the command line is not among them, and is as the settings say.
    """

    @click.option("--strict", is_flag=True, help="Refuse everything that is not exact.")
    @click.option("--ignore", multiple=True, metavar="NAME", help="Leave this distribution out. May be repeated.")
    @click.option("--only", multiple=True, metavar="NAME", help="Ship this one and what it requires. May be repeated.")
    @click.option(
        "--level",
        multiple=True,
        metavar="NAME=LEVEL",
        help="How far this one's version may move on another platform: exact, minor or any. May be repeated.",
    )
    @click.option(
        "--extra",
        multiple=True,
        metavar="REQUIREMENT",
        help="Something for the cluster alone, like cupy-cuda12x. May be repeated.",
    )
    @click.option(
        "--conda-extra",
        multiple=True,
        metavar="SPEC",
        help="A conda package for the cluster alone, like cuda-version=12. May be repeated.",
    )
    @functools.wraps(command)
    def wishing(
        *args: Any,
        strict: bool,
        ignore: tuple[str, ...],
        only: tuple[str, ...],
        level: tuple[str, ...],
        extra: tuple[str, ...],
        conda_extra: tuple[str, ...],
        **others: Any,
    ) -> Any:
        given = {"strict": strict, "ignore": ignore, "only": only, "level": parse_levels(level), "extras": extra}
        given["conda_extras"] = conda_extra
        return command(*args, wishes={name: value for name, value in given.items() if value}, **others)

    return cast(Command, wishing)


def parse_levels(given: Iterable[str]) -> dict[str, str]:
    """``numpy=any`` as a mapping.

    Raises
    ------
    UsageError
        For a text of another form, or two levels for one name.
    """
    levels: dict[str, str] = {}
    for text in given:
        name, equals, level = (part.strip() for part in text.partition("="))
        if not (name and equals and level):
            raise UsageError(f"--level {text!r} can't be understood.", todo="Write --level numpy=any.")
        if levels.setdefault(name, level) != level:
            raise UsageError(f"--level has both {levels[name]} and {level} for {name}.", todo="Give one.")
    return levels


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
