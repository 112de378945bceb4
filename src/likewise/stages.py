"""Timing of a launch's stages: each one is reported while it runs and kept for the launch report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from likewise.events import Reporter, StageAdvanced, StageFinished, StageStarted
from likewise.model.report import LaunchReport, Stage


def counted(number: int, noun: str) -> str:
    """``3 layers``, ``1 layer``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class OpenStage:
    """A stage that is running. Set `summary`; count with `did` and `advance`."""

    def __init__(self, name: str, reporter: Reporter) -> None:
        self.name = name
        self.summary = ""
        self.done: dict[str, int] = {}
        self._reporter = reporter

    def advance(self, amount: int, item: str = "") -> None:
        """Report `amount` more units. May be called from any thread."""
        self._reporter.report(StageAdvanced(stage=self.name, amount=amount, item=item))

    def did(self, **counts: int) -> None:
        """Record what the stage really did: ``did(packed=3)``."""
        self.done.update(counts)


class Stages:
    """The stages of one launch, in the order they run."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self._finished: list[Stage] = []

    @contextmanager
    def stage(self, name: str, *, total: int = 0, unit: str = "bytes") -> Iterator[OpenStage]:
        """Run one stage. When it fails it is not recorded as finished."""
        started = time.perf_counter()
        self.reporter.report(StageStarted(stage=name, total=total, unit=unit))
        running = OpenStage(name, self.reporter)
        yield running
        seconds = time.perf_counter() - started
        self._finished.append(Stage(name=name, seconds=seconds, summary=running.summary, done=running.done))
        self.reporter.report(StageFinished(stage=name, seconds=seconds, summary=running.summary))

    def launch_report(self) -> LaunchReport:
        """The stages so far."""
        return LaunchReport(stages=tuple(self._finished))
