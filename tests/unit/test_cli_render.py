"""Reporters: what is shown while stages run."""

from __future__ import annotations

import io
import sys
import threading
import types

import pytest

from likewise.console.render import (
    ConsoleReporter,
    PlainReporter,
    RichReporter,
    console_reporter,
    default_reporter,
)
from likewise.events import Event, Notice, Reporter, Silent, StageAdvanced, StageFinished, StageStarted

PACK = (
    StageStarted(stage="pack", total=3_000_000),
    StageAdvanced(stage="pack", amount=1_000_000, item="numpy"),
    StageAdvanced(stage="pack", amount=2_000_000, item="pandas"),
    StageFinished(stage="pack", seconds=2.0, summary="2 layers packed"),
)


def shown(*events: Event, interval: float = 60.0) -> list[str]:
    """The lines that a PlainReporter writes."""
    out = io.StringIO()
    reporter: Reporter = PlainReporter(out, interval=interval)
    for event in events:
        reporter.report(event)
    return out.getvalue().splitlines()


def test_a_finished_stage_is_one_line_with_bytes_and_rate() -> None:
    """Off a terminal a quick stage leaves exactly one line: time, summary, bytes, rate."""
    assert shown(*PACK) == ["likewise: pack: 2.00 s, 2 layers packed (3.00 MB, 1.50 MB/s)"]


def test_a_slow_stage_says_how_far_it_is() -> None:
    """A stage that runs longer than the interval writes its progress."""
    lines = shown(*PACK, interval=0.0)
    assert len(lines) == 3
    assert lines[0].startswith("likewise: pack … 1.00 MB of 3.00 MB")


def test_stages_that_count_things_do_not_speak_of_bytes() -> None:
    """The unit of a stage is used as it is."""
    lines = shown(
        StageStarted(stage="bytecode", total=40, unit="files"),
        StageAdvanced(stage="bytecode", amount=10),
        StageFinished(stage="bytecode", seconds=1.0, summary="done"),
        interval=0.0,
    )
    assert lines == ["likewise: bytecode … 10 of 40 files", "likewise: bytecode: 1.00 s, done"]


def test_notices_name_their_subject() -> None:
    """A notice says how grave it is, whom it concerns, and the sentence."""
    assert shown(Notice(message="was left out.", subject="numpy", severity="error")) == [
        "likewise: error: numpy: was left out."
    ]


def test_events_of_unknown_stages_are_taken_as_they_come() -> None:
    """Progress or an end without a start is no error."""
    lines = shown(StageAdvanced(stage="x", amount=1), StageFinished(stage="x", seconds=0.5, summary="odd"))
    assert lines == ["likewise: x: 0.50 s, odd"]


@pytest.mark.parametrize("make", [PlainReporter, RichReporter])
def test_a_broken_stream_ends_the_show_and_nothing_else(make: type[ConsoleReporter]) -> None:
    """A reporter never raises, even when its stream is closed."""
    out = io.StringIO()
    reporter = make(out)  # type: ignore[call-arg]
    out.close()
    for event in PACK:
        reporter.report(event)
    reporter.close()


def test_a_stream_that_is_not_utf8_gets_escapes() -> None:
    """Characters that the stream can't hold are escaped rather than lost with the line."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    PlainReporter(stream).report(Notice(message="naïve"))
    assert raw.getvalue() == b"likewise: warning: na\\xefve\n"


def test_reports_from_many_threads_are_whole_lines() -> None:
    """Events may come from any thread; lines never mix and no amount is lost."""
    out = io.StringIO()
    reporter = PlainReporter(out)
    reporter.report(StageStarted(stage="pack", total=8_000_000))

    def work() -> None:
        for _ in range(1000):
            reporter.report(StageAdvanced(stage="pack", amount=1000))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reporter.report(StageFinished(stage="pack", seconds=1.0))
    assert out.getvalue() == "likewise: pack: 1.00 s, 8.00 MB, 8.00 MB/s\n"


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A quiet command's reporter writes nothing at all."""
    with console_reporter(quiet=True) as reporter:
        for event in PACK:
            reporter.report(event)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Where stderr is no terminal a command writes plain lines to it, and nothing to stdout."""
    with console_reporter() as reporter:
        for event in PACK:
            reporter.report(event)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "\x1b" not in err


def test_a_library_call_is_silent_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script whose stderr is a file, a Cluster says nothing of its own accord."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(default_reporter(), Silent)


def test_a_notebook_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a Jupyter kernel, whose stderr is no terminal, a Cluster says what it does in plain lines."""
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    assert isinstance(default_reporter(), PlainReporter)
