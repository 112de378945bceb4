"""``likewise run --profile``: what is noted, the page that is drawn, and the option that may go without its value."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import pytest

from likewise.cli.profile import DEFAULT, Profile, with_value
from likewise.console.profile import groups_of, profile_page
from likewise.console.recorder import Recorder
from likewise.errors import UsageError
from likewise.events import Event, Notice, Silent, StageAdvanced, StageFinished, StageStarted
from likewise.model.timeline import Mark, PrefixTimes, ProcessTimes, Span, Timeline

HOSTILE = "</text><script>alert(1)</script>\"'&<b>\ud800\0"
WHOLE = Timeline(
    stages=(
        Span(name="scan", started=100.0, ended=100.4, summary="160 distributions"),
        Span(name="start", started=100.5, ended=102.5, marks=(Mark(name="scheduler", at=101.5),)),
    ),
    processes=(
        ProcessTimes(name="scheduler", node="node-0", pid=7, prefix="/p", spawned=100.6, ready=100.9, joined=101.5),
        ProcessTimes(name="worker 0", node="node-0", pid=8, prefix="/p", spawned=100.6, ready=None, joined=None),
    ),
    prefixes=(PrefixTimes(node="node-0", prefix="/p", layers=(Mark(name="numpy", at=101.2),), complete=103.0),),
    marks=(Mark(name="the script begins", at=102.6),),
)


def parsed(page: str) -> ElementTree.Element:
    """The page as a browser's rules read it; an error wherever they would have to repair anything."""
    document: ElementTree.Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)
    return document


def words(page: str) -> list[str]:
    """All texts of the drawing."""
    return [element.text or "" for element in parsed(page).iter() if element.tag.rpartition("}")[2] == "text"]


def test_the_page_shows_stages_processes_and_layers() -> None:
    """Every stage, process and layer has a row with how long it took; the moments of the script are there."""
    shown = words(profile_page(WHOLE, title="likewise run a.py"))
    for expected in ("scan", "start", "scheduler", "worker 0", "numpy", "complete", "Node node-0", "the script begins"):
        assert expected in shown
    for took in ("0.40 s", "2.00 s", "0.90 s", "0.60 s", "2.40 s", "never seen joining"):
        assert took in shown


def test_bars_lie_where_their_times_are() -> None:
    """A bar's place and width are its start and length, in one scale for all."""
    page = parsed(profile_page(WHOLE, title="t"))
    (drawing,) = (e for e in page.iter() if "data-left" in e.attrib)
    left, scale = float(drawing.attrib["data-left"]), float(drawing.attrib["data-scale"])
    bars = {
        (rect.attrib["class"], round((float(rect.attrib["x"]) - left) / scale + 100, 2)):
            round(float(rect.attrib["width"]) / scale, 2)
        for rect in drawing.iter() if rect.attrib.get("class") in ("stage", "make", "start", "layer")
    }  # fmt: skip
    expected = {
        ("stage", 100.0): 0.4, ("stage", 100.5): 2.0, ("make", 100.6): 0.3, ("start", 100.9): 0.6,
        ("layer", 100.6): 0.6, ("start", 100.6): 2.4,
    }  # fmt: skip
    assert bars == pytest.approx(expected, abs=0.011)


def test_names_are_text_and_nothing_else() -> None:
    """A name full of markup, with what no file can hold, ends up as text: no element, no attribute comes of it."""
    hostile = Timeline(
        stages=(Span(name=HOSTILE, started=1.0, ended=2.0, summary=HOSTILE, marks=(Mark(name=HOSTILE, at=1.5),)),),
        processes=(ProcessTimes(name=HOSTILE, node=HOSTILE, pid=1, prefix=HOSTILE, spawned=1.0, joined=2.0),),
        prefixes=(PrefixTimes(node=HOSTILE, prefix=HOSTILE, layers=(Mark(name=HOSTILE, at=1.2),), complete=2.0),),
        marks=(Mark(name=HOSTILE, at=1.5),),
    )
    page = profile_page(hostile, title=HOSTILE)
    page.encode("utf-8")
    tags = [element.tag.rpartition("}")[2] for element in parsed(page).iter() if isinstance(element.tag, str)]
    assert tags.count("script") == 1 and "b" not in tags
    assert {e.tag for e in parsed(page).iter()} == {e.tag for e in parsed(profile_page(WHOLE, title="t")).iter()}
    assert any(text.startswith("</text><script>alert(1)") for text in words(page))


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """Nothing in it is loaded, and its own policy allows its own script and no other."""
    page = profile_page(WHOLE, title="t")
    assert not re.search(r"\b(src|href)=|url\(|@import", page)
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not a place
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{digest}'" in policy


def test_a_long_run_leaves_room_for_the_launch() -> None:
    """The axis ends with the launch: a script that goes on for an hour does not press it into a corner."""
    late = Timeline(stages=WHOLE.stages, marks=(*WHOLE.marks, Mark(name="the script ends", at=3700.0)))
    page = profile_page(late, title="t")
    assert "the script begins" in words(page) and "the script ends" not in words(page)
    assert "2.50 s from the first stage" in page


def test_an_empty_report_is_a_page_that_says_so() -> None:
    """Without any stage, process or layer there is a page all the same, and no layer lane."""
    shown = words(profile_page(Timeline(), title="t"))
    assert "None was reported." in shown and not any("Layers" in text for text in shown)


def test_a_complete_prefix_has_no_layers_to_show() -> None:
    """Where no prefix was seen growing the page says that, in place of layers."""
    (*_, last) = groups_of(Timeline(stages=WHOLE.stages, processes=WHOLE.processes))
    assert (last.title, last.rows) == ("Layers", ()) and "complete" in last.note


def test_a_stage_that_failed_is_shown_as_such() -> None:
    """A stage without an end reaches to the last thing known, and says that it did not end."""
    rows = groups_of(Timeline(stages=(*WHOLE.stages, Span(name="kit", started=101.0))))[0].rows
    assert rows[-1].note == "did not end"
    assert (rows[-1].bars[0].start, rows[-1].bars[0].end) == (101.0, 102.5)


class Heard:
    """A reporter that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event, /) -> None:
        self.events.append(event)


def test_the_recorder_notes_when_and_passes_everything_on() -> None:
    """Stages get their times in the order of the events; the other reporter hears all of them unchanged."""
    heard = Heard()
    recorder = Recorder(heard)
    events = (
        StageStarted(stage="ship"),
        StageStarted(stage="start"),
        StageAdvanced(stage="start", amount=1, item="scheduler"),
        StageAdvanced(stage="start", amount=1),
        Notice(message="a word"),
        StageFinished(stage="start", seconds=1.0, summary="all there"),
    )
    for event in events:
        recorder.report(event)
    assert heard.events == list(events)
    ship, start = recorder.spans()
    assert (ship.name, ship.ended, start.name, start.summary) == ("ship", None, "start", "all there")
    assert start.ended is not None and ship.started <= start.started <= start.marks[0].at <= start.ended
    assert recorder.when("start", "scheduler") == start.marks[0].at and recorder.when("start", "worker 0") is None


def test_a_launch_that_fails_leaves_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was reported until the error is on the page, and the error goes on."""
    file = tmp_path / "page.html"
    with pytest.raises(UsageError), Profile(file, "a.py", Silent()) as profile:
        profile.recorder.report(StageStarted(stage="scan"))
        raise UsageError("No.")
    assert "did not end" in words(file.read_text("utf-8"))
    assert str(file) in capsys.readouterr().err


def test_the_page_is_where_the_run_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that changes its working directory does not move the page; --quiet says nothing of it."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Profile(Path("page.html"), "a.py", Silent(), quiet=True):
        monkeypatch.chdir("elsewhere")
    assert (tmp_path / "page.html").exists()
    assert capsys.readouterr() == ("", "")


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's own end is not changed by it; where there is no folder from the beginning, nothing begins."""
    (tmp_path / "folder").mkdir()
    with Profile(tmp_path / "folder" / "page.html", "a.py", Silent()):
        (tmp_path / "folder").rmdir()
    assert "can't be written" in capsys.readouterr().err
    with pytest.raises(UsageError, match="folder"):
        Profile(tmp_path / "missing" / "page.html", "a.py", Silent())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--profile", "a.py"], [f"--profile={DEFAULT}", "a.py"]),
        (["--profile", "x.html", "a.py"], ["--profile=x.html", "a.py"]),
        (["--profile=x.html", "a.py"], ["--profile=x.html", "a.py"]),
        (["-w", "2", "--profile", "a.py", "y.html"], ["-w", "2", f"--profile={DEFAULT}", "a.py", "y.html"]),
        (["--host", "--profile", "a.py"], ["--host", "--profile", "a.py"]),
        (["a.py", "--profile", "x.html"], ["a.py", "--profile", "x.html"]),
        (["--", "--profile"], ["--", "--profile"]),
        (["--profile"], [f"--profile={DEFAULT}"]),
    ],
)
def test_the_option_takes_a_value_that_looks_like_one(given: list[str], expected: list[str]) -> None:
    """The next word is the page's file only when it ends in .html; the script's own words are left alone."""
    assert with_value(given, {"-w", "--workers", "--host"}) == expected


def test_no_other_file_is_overwritten() -> None:
    """A value that may be the user's script is refused."""
    with pytest.raises(UsageError, match=r"script\.py"):
        with_value(["--profile=script.py", "a.py"], set())
