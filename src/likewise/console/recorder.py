"""A reporter that remembers when everything was reported, and passes it on."""

from __future__ import annotations

import threading
import time

from likewise.events import Event, Reporter, StageAdvanced, StageFinished, StageStarted
from likewise.model.timeline import Mark, Span


class Recorder:
    """Notes the time of each event on its way to another reporter.

    Parameters
    ----------
    inner : Reporter
        Is told everything.
    """

    def __init__(self, inner: Reporter) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._marks: list[tuple[str, Mark]] = []

    def report(self, event: Event, /) -> None:
        """Note the time, and pass `event` on."""
        now = time.time()
        with self._lock:
            if isinstance(event, StageStarted):
                self._spans.append(Span(name=event.stage, started=now))
            elif isinstance(event, StageAdvanced) and event.item:
                self._marks.append((event.stage, Mark(name=event.item, at=now)))
            elif isinstance(event, StageFinished):
                self._finish(event, now)
        self._inner.report(event)

    def _finish(self, event: StageFinished, now: float) -> None:
        for index, span in reversed(list(enumerate(self._spans))):
            if span.name == event.stage and span.ended is None:
                marks = tuple(mark for stage, mark in self._marks if stage == span.name and mark.at >= span.started)
                self._spans[index] = Span(
                    name=span.name, started=span.started, ended=now, summary=event.summary, marks=marks
                )
                return

    def spans(self) -> tuple[Span, ...]:
        """The stages so far, in the order they began."""
        with self._lock:
            return tuple(self._spans)

    def when(self, stage: str, item: str) -> float | None:
        """When `item` was last said to be done in `stage`."""
        with self._lock:
            found = [mark.at for name, mark in self._marks if name == stage and mark.name == item]
            return found[-1] if found else None
