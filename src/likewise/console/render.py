"""Reporters: what happens during a launch, shown while it happens.

On a terminal, stages that run have a bar with bytes and rate, and leave one line when they are over; elsewhere every
stage leaves one plain line, and a slow one a line every few seconds.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from likewise.console.text import format_bytes, format_seconds
from likewise.events import Event, Notice, Reporter, Silent, StageAdvanced, StageFinished, StageStarted

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID

_NAME_WIDTH = 11
_SECONDS_WIDTH = 8


class _Running:
    """A stage that has started and not finished, and how far it is."""

    def __init__(self, event: StageStarted, now: float) -> None:
        self.total, self.unit, self.amount, self.item = event.total, event.unit, 0, ""
        self.started = self.shown = now

    def progress(self, now: float) -> str:
        """``612 MB of 1.42 GB, 87.1 MB/s`` or ``3 of 40 files``, as far as known."""
        if self.unit != "bytes":
            return f"{self.amount:,}" + (f" of {self.total:,}" if self.total else "") + f" {self.unit}"
        text = format_bytes(self.amount) + (f" of {format_bytes(self.total)}" if self.total else "")
        seconds = now - self.started
        return f"{text}, {format_bytes(self.amount / seconds)}/s" if self.amount and seconds > 0 else text

    def conclusion(self, event: StageFinished) -> str:
        """What the finished stage did: its own summary, with bytes and rate where it counted bytes."""
        if self.unit != "bytes" or not self.amount:
            return event.summary
        rate = f", {format_bytes(self.amount / event.seconds)}/s" if event.seconds > 0 else ""
        quantity = f"{format_bytes(self.amount)}{rate}"
        return f"{event.summary} ({quantity})" if event.summary else quantity


class ConsoleReporter:
    """What the reporters here share: the running stages, a lock, and the promise never to raise. Shows nothing itself.

    A context manager, so that a stage that fails leaves the terminal as it was.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running: dict[str, _Running] = {}
        self._broken = False

    def __enter__(self) -> ConsoleReporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was. Needed when a stage failed; harmless at any time."""

    def report(self, event: Event, /) -> None:
        """Show `event`. Whatever goes wrong while showing it (a closed pipe, say) ends the show and nothing else."""
        with self._lock:
            if self._broken:
                return
            try:
                self._show(event)
            except Exception:
                self._broken = True

    def _show(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, StageStarted):
            self._running[event.stage] = _Running(event, now)
            self._started(event)
        elif isinstance(event, StageAdvanced) and event.stage in self._running:
            running = self._running[event.stage]
            running.amount += event.amount
            running.item = event.item or running.item
            self._advanced(event.stage, running, now)
        elif isinstance(event, StageFinished):
            known = self._running.pop(event.stage) if event.stage in self._running else None
            self._finished(event, known.conclusion(event) if known else event.summary)
        elif isinstance(event, Notice):
            self._notice(event)

    def _started(self, event: StageStarted) -> None:
        """A stage began."""

    def _advanced(self, stage: str, running: _Running, now: float) -> None:
        """A stage went on; `now` is `time.monotonic()`."""

    def _finished(self, event: StageFinished, conclusion: str) -> None:
        """A stage is over."""

    def _notice(self, event: Notice) -> None:
        """There is something to say."""


class PlainReporter(ConsoleReporter):
    """One line per finished stage and per notice; a stage that takes long says how far it is now and then.

    Parameters
    ----------
    stream : text file, default sys.stderr
    interval : float, default 5
        Seconds between two lines about one running stage.
    """

    def __init__(self, stream: TextIO | None = None, *, interval: float = 5.0) -> None:
        super().__init__()
        self._stream = stream if stream is not None else sys.stderr
        self._interval = interval

    def _advanced(self, stage: str, running: _Running, now: float) -> None:
        if now - running.shown >= self._interval:
            running.shown = now
            self._line(f"{stage} … {running.progress(now)}")

    def _finished(self, event: StageFinished, conclusion: str) -> None:
        self._line(f"{event.stage}: {format_seconds(event.seconds)}" + (f", {conclusion}" if conclusion else ""))

    def _notice(self, event: Notice) -> None:
        self._line(f"{event.severity}: {_sentence(event)}")

    def _line(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        safe = f"likewise: {text}".encode(encoding, "backslashreplace").decode(encoding, "replace")
        self._stream.write(safe + "\n")
        self._stream.flush()


class RichReporter(ConsoleReporter):
    """Live bars on a terminal while stages run; rich is imported when the first one starts.

    Nothing is live while no stage runs, so what the user's own program prints in between is left alone.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        from rich.console import Console

        plain = bool(os.environ.get("NO_COLOR"))
        self._console = Console(
            file=stream, stderr=stream is None, highlight=False, color_system=None if plain else "auto"
        )
        self._tick, self._dot = ("✓", "·") if (self._console.encoding or "").startswith("utf") else ("+", "-")
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        atexit.register(self.close)  # a stage that failed must not leave the cursor hidden

    def close(self) -> None:
        """Stop the bars and give the cursor back."""
        with self._lock:
            self._running.clear()
            self._tasks.clear()
            progress, self._progress = self._progress, None
            if progress is not None:
                with suppress(Exception):  # the stream may be closed by now
                    progress.stop()

    def _started(self, event: StageStarted) -> None:
        if self._progress is None:
            self._progress = _bars(self)
            self._progress.start()
        self._tasks[event.stage] = self._progress.add_task(event.stage, total=event.total or None)

    def _advanced(self, stage: str, running: _Running, now: float) -> None:
        if self._progress is not None:
            self._progress.update(self._tasks[stage], completed=running.amount)

    def _finished(self, event: StageFinished, conclusion: str) -> None:
        task = self._tasks.pop(event.stage, None)
        if self._progress is not None and task is not None:
            self._progress.remove_task(task)
        self._print(self._tick, "green", event.stage, format_seconds(event.seconds), conclusion)
        if not self._tasks:
            self.close()

    def _notice(self, event: Notice) -> None:
        from rich.text import Text

        style = {"error": "bold red", "warning": "yellow"}.get(event.severity, "dim")
        self._console.print(Text(f"{event.severity}: {_sentence(event)}", style=style), soft_wrap=True)

    def _print(self, mark: str, style: str, stage: str, seconds: str, text: str) -> None:
        from rich.text import Text

        line = Text.assemble(
            (mark, style), f" {stage:<{_NAME_WIDTH}} ", (f"{seconds:>{_SECONDS_WIDTH}}", "cyan"), f"  {text}"
        )
        self._console.print(line, soft_wrap=True)

    def _state(self, stage: str) -> str:
        running = self._running.get(stage)
        return running.progress(time.monotonic()) if running and (running.amount or running.total) else ""


def _bars(owner: RichReporter) -> Progress:
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class State(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(owner._state(task.description))

    columns: list[Any] = [
        SpinnerColumn("dots" if owner._tick == "✓" else "line"),
        TextColumn(f"{{task.description:<{_NAME_WIDTH}}}"),
        BarColumn(bar_width=24),
        State(),
        TimeElapsedColumn(),
    ]
    return Progress(*columns, console=owner._console, transient=True, refresh_per_second=8, redirect_stdout=False)


def _sentence(event: Notice) -> str:
    return f"{event.subject}: {event.message}" if event.subject else event.message


def console_reporter(*, quiet: bool = False) -> ConsoleReporter:
    """The reporter for a command: bars where stderr is a terminal, plain lines elsewhere, nothing when `quiet`."""
    if quiet:
        return ConsoleReporter()
    return RichReporter() if _is_terminal(sys.stderr) else PlainReporter()


def default_reporter() -> Reporter:
    """The reporter for a library call: as for a command on a terminal or in a notebook, otherwise silent."""
    if _in_notebook():
        return PlainReporter()
    return RichReporter() if _is_terminal(sys.stderr) else Silent()


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except ValueError:  # closed
        return False


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; asked without importing IPython."""
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None and hasattr(shell, "get_ipython") else None
    return type(found).__name__ == "ZMQInteractiveShell"
