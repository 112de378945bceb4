"""The command ``likewise``: finds the subcommand, runs it, and turns an error into an exit code.

A subcommand's module is imported when it is needed, so that ``likewise --help`` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

import click

from likewise import __version__
from likewise.cli.failure import exit_code, show, use_color

COMMANDS = {
    "scan": "What is here: interpreter, distributions, loose code.",
    "plan": "What would happen to each distribution, and why.",
    "export": "The plan as pylock.toml, requirements or a Dockerfile.",
    "run": "Run a script with a cluster of this environment.",
    "demo": "Replicate this environment, compute there, prove it.",
    "bundle": "The files and the command prefix for any other deployment.",
    "cache": "What is kept on this machine, and removing it.",
    "doctor": "Check what likewise needs, and say what to do.",
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries, and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"likewise.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and summaries without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="likewise", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Every machine of your Dask cluster runs the Python environment that you are looking at."""
    ctx.color = use_color()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: this process's own) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = cli.main(arguments, prog_name="likewise", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        show(error, json=wants_json(arguments))
        return exit_code(error)
    return code if isinstance(code, int) else 0


def program() -> NoReturn:
    """The command as a process: run it, and end with its exit code.

    Of a request that fails py-rattler may leave others to threads of its own, which take Python's lock. One that does
    so while the interpreter is being dismantled aborts the process (exit -6), so there it ends at once; ``run`` and
    ``demo`` end as what they have run needs it.
    """
    code = main()
    if "rattler" in sys.modules and sys.argv[1:2] not in (["run"], ["demo"]):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
                stream.flush()
        os._exit(code)
    sys.exit(code)


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the data value was asked for as JSON, even where the arguments are too wrong to be parsed.

    What follows ``run`` may belong to the user's script, which is none of our business.
    """
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in ours and "run" not in ours[:1]
