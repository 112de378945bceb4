"""The one place where errors become words and exit codes.

====  ==========================================================
code  meaning
====  ==========================================================
0     done
1     an error of no particular kind; `doctor` found an error
2     wrong usage
10 …  one for each kind of `likewise.errors.LikewiseError`
130   interrupted (Ctrl-C)
141   whoever read our output is gone
====  ==========================================================
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import click

from likewise.errors import LikewiseError, UsageError

INTERRUPTED = 130
PIPE_CLOSED = 141


class PipeClosed(Exception):
    """The reader of stdout is gone: there is nobody left to tell."""


def exit_code(error: BaseException) -> int:
    """The exit code that says what kind of error this was."""
    if isinstance(error, LikewiseError):
        return error.exit_code
    if isinstance(error, click.UsageError):
        return UsageError.exit_code
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(error, (BrokenPipeError, PipeClosed)):
        return PIPE_CLOSED
    return 1


def as_likewise_error(error: BaseException) -> LikewiseError:
    """`error` as one of ours, for those that were not."""
    if isinstance(error, LikewiseError):
        return error
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "likewise"
        return UsageError(error.format_message(), todo=f"See `{command} --help`.")
    if isinstance(error, click.ClickException):
        return LikewiseError(error.format_message())
    return LikewiseError(
        f"{type(error).__name__}: {error}",
        todo="That is a fault of likewise: please report it with the lines above.",
        details={"unexpected": True},
    )


def show(error: BaseException, *, json: bool) -> None:
    """Tell the user what went wrong: one JSON document on stdout when `json`, words on stderr otherwise."""
    if isinstance(error, (BrokenPipeError, PipeClosed)):
        _silence_stdout()
        return
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        error = Interrupted("Interrupted.")
    known = as_likewise_error(error)
    if known.details.get("unexpected"):
        traceback.print_exception(error, file=sys.stderr)
    if json:
        try:
            write_json(known.as_dict())
        except PipeClosed:
            _silence_stdout()
    else:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True, color=use_color())
        click.echo(str(known), err=True, color=use_color())
        output = known.details.get("output")
        if isinstance(output, str) and output.strip():
            click.echo(output.rstrip(), err=True)


class Interrupted(LikewiseError):
    """Ctrl-C."""

    code, exit_code = "interrupted", INTERRUPTED


def write_json(value: Any) -> None:
    """Exactly one JSON document on stdout.

    Raises
    ------
    PipeClosed
        When nobody reads it.
    """
    import msgspec

    try:
        data = msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_as_text(msgspec.to_builtins(value, enc_hook=str)))
    text = msgspec.json.format(data, indent=2).decode("utf-8") + "\n"
    try:
        if hasattr(sys.stdout, "buffer"):  # JSON is UTF-8 (RFC 8259, section 8.1), whatever the locale says
            sys.stdout.buffer.write(text.encode("utf-8"))
        else:
            sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise PipeClosed from None


def _as_text(value: Any) -> Any:
    """`value` with every string made encodable: a file name that is no UTF-8 reaches us with lone surrogates."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_as_text(key): _as_text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_text(item) for item in value]
    return value


def use_color() -> bool | None:
    """False when the user says so (https://no-color.org), None to let click look at the stream."""
    return False if os.environ.get("NO_COLOR") else None


def _silence_stdout() -> None:
    """Let Python's own flush at exit go nowhere (see the note on SIGPIPE in the documentation of `signal`)."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
