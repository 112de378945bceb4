"""``likewise run --profile``: what has to be noted during a run for the page that `likewise.console.profile` draws."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from likewise.console.profile import profile_page
from likewise.console.recorder import Recorder
from likewise.errors import UsageError
from likewise.events import Reporter
from likewise.model.timeline import Mark, PrefixTimes, ProcessTimes, Timeline

OPTION, DEFAULT = "--profile", "likewise-profile.html"


class ProfileCommand(click.Command):
    """A command whose ``--profile`` may go without its value, although a script's name follows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write the value out, then go on as always."""
        flags = {flag for p in self.params if isinstance(p, click.Option) and not p.is_flag for flag in p.opts}
        return super().parse_args(ctx, with_value(args, flags - {OPTION}))


def with_value(args: Sequence[str], taking: set[str]) -> list[str]:
    """`args` with ``--profile=FILE`` where ``--profile`` stood alone: FILE is the next word, when it ends in ``.html``.

    Parameters
    ----------
    args : sequence of str
    taking : set of str
        The options whose next word is their value. The words after the first that is neither are the script's own.

    Raises
    ------
    UsageError
        When a value is given that ends otherwise: it may be meant as the script, and would be overwritten.
    """
    words, position = list(args), 0
    while position < len(words) and words[position].startswith("-") and words[position] != "--":
        if words[position] == OPTION:
            following = words[position + 1 : position + 2]
            if following and following[0].lower().endswith(".html"):
                del words[position + 1]
            else:
                following = [DEFAULT]
            words[position] = f"{OPTION}={following[0]}"
        if words[position].startswith(f"{OPTION}=") and not words[position].lower().endswith(".html"):
            raise UsageError(f"{words[position]} does not end in .html.", where=OPTION)
        position += 2 if words[position] in taking else 1
    return words


class Profile:
    """Notes what happens, and writes the page when the run is over, however it ended.

    Parameters
    ----------
    file : Path
    title : str
        What is run.
    reporter : Reporter
        Is told all that `recorder` is told.
    quiet : bool
        Whether nothing is said of a page that could be written.

    Raises
    ------
    UsageError
        When its folder is not there: better now than when everything is over.
    """

    def __init__(self, file: Path, title: str, reporter: Reporter, *, quiet: bool = False) -> None:
        if not file.absolute().parent.is_dir():
            raise UsageError(
                "The folder for the profile is not there.", where=str(file), todo="Make it, or name another."
            )
        self.recorder = Recorder(reporter)
        self._quiet = quiet
        self._file, self._title = file.absolute(), title  # the script may change its working directory
        self._marks: list[Mark] = []
        self._processes: tuple[ProcessTimes, ...] = ()
        self._prefixes: tuple[PrefixTimes, ...] = ()

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        timeline = Timeline(
            stages=self.recorder.spans(),
            processes=self._processes,
            prefixes=self._prefixes,
            marks=tuple(self._marks),
        )
        try:
            self._file.write_text(profile_page(timeline, title=f"likewise run {self._title}"), encoding="utf-8")
        except OSError as problem:
            print(f"likewise: The profile can't be written: {problem}.", file=sys.stderr)
            return
        if not self._quiet:
            print(f"likewise: The launch's profile is in {self._file}.", file=sys.stderr)

    @contextmanager
    def of(self, cluster: Any) -> Iterator[None]:
        """Ask the cluster's processes, and again when the script has run."""
        from likewise.cluster.timeline import collect, watch

        watched = watch(cluster, lambda name: self.recorder.when("start", name))
        self._processes = watched.processes
        self._marks.append(Mark(name="the script begins", at=time.time()))
        try:
            yield
        finally:
            self._marks.append(Mark(name="the script ends", at=time.time()))
            self._prefixes = collect(cluster, watched)
